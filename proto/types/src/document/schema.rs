//! What the JSON Schema of a document says of the types that are checked by their own code.
//!
//! The documents derive theirs. `x-takes` is what a value is beyond its JSON type; `fleet-documents` reads it. Without
//! the feature `schema` the derive makes nothing.

#[cfg(not(feature = "schema"))]
pub(crate) use fleet_no_schema::JsonSchema;
#[cfg(feature = "schema")]
pub(crate) use schemars::JsonSchema;

#[cfg(feature = "schema")]
mod by_hand {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use crate::document::expr::{AlertWhen, When};
    use crate::document::threshold::Threshold;
    use crate::document::{Id, Key, Share, Value};
    use crate::id::Name;
    use crate::label::Selector;
    use crate::time::Span;

    macro_rules! schemas {
        ($($type:ident: $schema:tt)*) => {$(
            impl JsonSchema for $type {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> Cow<'static, str> {
                    stringify!($type).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!($schema)
                }
            }
        )*};
    }

    schemas! {
        Span: { "type": "string", "x-takes": "duration", "pattern": "^[0-9]+(ms|s|m|h|d)$" }
        Name: { "type": "string", "x-takes": "name", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$" }
        Id: { "type": "string", "x-takes": "id", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" }
        Key: { "type": "string", "pattern": "^[a-z][a-z0-9_]{0,62}$" }
        Selector: { "type": "string", "x-takes": "selector" }
        When: { "type": "string", "x-takes": "when" }
        AlertWhen: { "type": "string", "x-takes": "alert-when" }
        Share: { "anyOf": [{ "type": "integer" }, { "type": "string" }], "x-takes": "share" }
        Threshold: { "anyOf": [{ "type": "integer" }, { "type": "string" }], "x-takes": "threshold" }
        Value: { "x-takes": "any" }
    }
}
