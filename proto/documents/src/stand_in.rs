//! Stand-ins for required values that are missing or wrong.
//!
//! With them the rest of a document still becomes a typed value, so that lint rules report in the same
//! pass. A document with a stand-in is always refused: what was missing has been reported. Problems
//! about the stand-ins themselves are dropped, by [`MARK`].

use serde_json::{Value as Json, json};

use crate::problem::Problem;
use crate::schema::{Field, FieldKind, TableSchema, ValueKind};

/// Part of every name that stands in; nobody writes it.
const MARK: &str = "not-given-0";

/// A harmless value for a required key; `None` where there is no such thing.
pub(crate) fn stand_in(field: &Field, number: usize) -> Option<Json> {
    let name = || json!(format!("{MARK}{number}"));
    Some(match &field.kind {
        FieldKind::One(kind) => match kind {
            ValueKind::Text | ValueKind::Template => json!(""),
            ValueKind::Path => json!("/"),
            // A procedure without a timeout is not also too short for its steps.
            ValueKind::Duration if field.name == "timeout" => json!("3660d"),
            ValueKind::Duration | ValueKind::Offset => json!("0s"),
            ValueKind::Name
            | ValueKind::Procedure
            | ValueKind::RolloutPolicy
            | ValueKind::Id
            | ValueKind::IdOf(_) => name(),
            ValueKind::Word(words) => json!(words.first()?),
            ValueKind::Instant => json!("2000-01-01T00:00:00Z"),
            ValueKind::AlertWhen => json!("cpu_used > 100"),
            ValueKind::MetricSource => json!("cpu_used"),
            ValueKind::Unit => json!(format!("{MARK}{number}.service")),
            _ => return None,
        },
        // A program that is a stand-in is not also a missing one.
        FieldKind::Many(ValueKind::Template) => json!([name()]),
        FieldKind::Many(_) => json!([]),
        FieldKind::WordOrTexts(words) => json!(words.first()?),
        FieldKind::Integer(min, _) => json!(min),
        // True changes more, so that no rule complains that a change was not declared.
        FieldKind::Bool => json!(true),
        FieldKind::Table(schema) => table(schema, number)?,
        _ => return None,
    })
}

fn table(schema: &TableSchema, number: usize) -> Option<Json> {
    let required = schema.fields.iter().filter(|field| field.required);
    let entries = required.map(|field| Some((field.name.clone(), stand_in(field, number)?)));
    entries.collect::<Option<serde_json::Map<_, _>>>().map(Json::Object)
}

/// Takes out what is only about stand-ins.
pub(crate) fn drop_problems(problems: &mut Vec<Problem>) {
    problems.retain(|problem| !problem.message.contains(MARK));
}
