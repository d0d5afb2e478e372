//! The schema of every kind of document, derived from the structs of `fleet-types`.
//!
//! The walk over a file, `explain`, the lists of allowed words and the JSON Schema for editors all come from it, so
//! that they cannot say different things.

mod derived;
mod field;

pub use derived::json_schema;
pub(crate) use derived::root;
pub(crate) use field::{Field, FieldKind, TableSchema, ValueKind};
