//! Reading the parameters of an action. The schema was checked before; what does not fit here is an error that
//! names the parameter, never a guess. Called by tasks.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_types::document::ids::Id;
use fleet_types::time::Span;
use serde_json::Value;

use super::contract::{TaskContext, TaskError};

fn wrong(name: &str, expected: &str) -> TaskError {
    TaskError::Declared(format!("parameter {name}: expected {expected}"))
}

/// A text, if given and not empty.
pub(super) fn text<'a>(context: &'a TaskContext<'_>, name: &str) -> Result<Option<&'a str>, TaskError> {
    match context.with.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(wrong(name, "a text")),
    }
}

/// A text that must be given.
pub(super) fn required_text<'a>(context: &'a TaskContext<'_>, name: &str) -> Result<&'a str, TaskError> {
    text(context, name)?.ok_or_else(|| wrong(name, "a text"))
}

/// Texts, one or a list of them; none where it is left out.
pub(super) fn texts<'a>(context: &'a TaskContext<'_>, name: &str) -> Result<Vec<&'a str>, TaskError> {
    match context.with.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(list)) => {
            list.iter().map(|text| text.as_str().ok_or_else(|| wrong(name, "a list of texts"))).collect()
        }
        Some(_) => Err(wrong(name, "a list of texts")),
    }
}

/// Yes or no.
pub(super) fn flag(context: &TaskContext<'_>, name: &str, default: bool) -> Result<bool, TaskError> {
    match context.with.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(yes)) => Ok(*yes),
        Some(Value::String(text)) if text == "true" || text == "false" => Ok(text == "true"),
        Some(_) => Err(wrong(name, "true or false")),
    }
}

/// A whole number, not below nought.
pub(super) fn integer(context: &TaskContext<'_>, name: &str, default: u64) -> Result<u64, TaskError> {
    match context.with.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::String(text)) => text.parse().map_err(|_| wrong(name, "a whole number")),
        Some(value) => value.as_u64().ok_or_else(|| wrong(name, "a whole number")),
    }
}

/// A duration, if given.
pub(super) fn span(context: &TaskContext<'_>, name: &str) -> Result<Option<Duration>, TaskError> {
    let Some(text) = text(context, name)? else { return Ok(None) };
    text.parse::<Span>()
        .map(|span| Some(span.length()))
        .map_err(|e| TaskError::Declared(format!("parameter {name}: {e}")))
}

/// One id of a table of the profile, which must be given.
pub(super) fn id<'a, T>(
    context: &TaskContext<'a>,
    name: &str,
    table: &'a BTreeMap<Id, T>,
) -> Result<(&'a Id, &'a T), TaskError> {
    let id = required_text(context, name)?;
    table
        .get_key_value(id)
        .ok_or_else(|| TaskError::Declared(format!("parameter {name}: the profile declares no \"{id}\"")))
}

/// Ids of a table of the profile, in written order; the word `all` is every id.
pub(super) fn ids<'a, T>(
    context: &TaskContext<'_>,
    name: &str,
    table: &'a BTreeMap<Id, T>,
    default_all: bool,
) -> Result<Vec<(&'a Id, &'a T)>, TaskError> {
    let one = |id: &str| {
        table
            .get_key_value(id)
            .ok_or_else(|| TaskError::Declared(format!("parameter {name}: the profile declares no \"{id}\"")))
    };
    match context.with.get(name) {
        None | Some(Value::Null) if default_all => Ok(table.iter().collect()),
        Some(Value::String(word)) if word == "all" && default_all => Ok(table.iter().collect()),
        Some(Value::String(id)) => Ok(vec![one(id)?]),
        Some(Value::Array(list)) => {
            list.iter().map(|id| one(id.as_str().ok_or_else(|| wrong(name, "a list of ids"))?)).collect()
        }
        _ => Err(wrong(name, "a list of ids")),
    }
}
