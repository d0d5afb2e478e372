//! Documents: what operators wrote and applied, as typed values.
//!
//! These are the types both sides parse from the one signed JSON form of a document
//! (security-and-delivery §1.15). They hold no floats, keep durations and expressions as written, and
//! leave out what was not said, so that a value has exactly one JSON. They must never read files or
//! know TOML: spans, suggestions and references across documents are the business of
//! `fleet-documents`. Every crate may use them.

pub mod expr;
pub mod gates;
pub mod ids;
pub mod kind;
pub mod param;
pub mod placeholder;
pub mod procedure;
pub mod profile;
pub mod rollout_policy;
pub mod schedule;
pub(crate) mod schema;
pub mod share;
pub mod size;
pub mod threshold;
pub mod value;

pub use ids::{Id, Key};
pub use kind::{Document, DocumentKind, SchemaVersion};
pub use param::{ParamSpec, ParamType};
pub use share::Share;
pub use size::Size;
pub use value::Value;
