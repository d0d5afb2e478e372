//! The schema and the typed documents name the same keys.
//!
//! A typed table that is given a key it does not know names all keys that it does; that list must be the
//! schema's. So a key added to one of them and not to the other fails here.

use std::collections::BTreeSet;

use fleet_types::document::Document;
use serde_json::{Value as Json, json};

use super::{FieldKind, PROCEDURE, PROFILE, SCHEDULE, TableSchema};

/// The keys that the typed table under `wrap` knows.
fn typed_keys(wrap: &dyn Fn(Json) -> Json) -> BTreeSet<String> {
    let error = serde_json::from_value::<Document>(wrap(json!({ "zzz": 1 }))).unwrap_err().to_string();
    let (found, expected) =
        error.split_once(", expected ").unwrap_or_else(|| panic!("no list of keys in: {error}"));
    assert_eq!(found, "unknown field `zzz`");
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn compare(schema: &'static TableSchema, wrap: &dyn Fn(Json) -> Json, path: &str) {
    let mut declared: BTreeSet<String> = schema.fields.iter().map(|field| field.name.to_owned()).collect();
    if path.is_empty() {
        declared.remove("kind");
    }
    if schema.name == "rollback" {
        // Both kinds of undo entries are one type; outcomes to leave out make sense in [[finally]] only.
        declared.insert("except".to_owned());
    }
    assert_eq!(declared, typed_keys(wrap), "keys of {} at {path}", schema.name);
    for field in schema.fields {
        let below = format!("{path}/{}", field.name);
        let (inner, shape): (_, fn(Json) -> Json) = match field.kind {
            FieldKind::Table(inner) => (inner, |value| value),
            FieldKind::Tables(inner) => (inner, |value| json!([value])),
            FieldKind::ById(inner) | FieldKind::ByKey(inner) => (inner, |value| json!({ "a": value })),
            _ => continue,
        };
        compare(inner, &|value| wrap(json!({ field.name: shape(value) })), &below);
    }
}

#[test]
fn the_schema_and_the_types_name_the_same_keys() {
    for (root, kind) in [(&PROFILE, "profile"), (&PROCEDURE, "procedure"), (&SCHEDULE, "schedule")] {
        let wrap = |mut value: Json| {
            value["kind"] = json!(kind);
            value
        };
        compare(root, &wrap, "");
    }
}
