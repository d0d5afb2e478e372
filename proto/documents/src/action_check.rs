//! A step's action and its parameters, against the catalogue.

use fleet_types::action::{Action, Parameter, Table, Takes, nearest};
use fleet_types::document::{Id, placeholder};
use fleet_types::id::Name;
use fleet_types::time::Span;
use serde_json::{Map, Value as Json};

use crate::text_check::quoted;
use crate::walk::{At, Reference, TemplateUse, Walk, join};
use crate::walk_text::check_path;

/// Checks `uses` and `with` of one step or undo entry; parameters that are wrong are taken out.
pub(crate) fn check(walk: &mut Walk<'_>, step: &mut Map<String, Json>, path: &str, context: &str) {
    let Some(action) = step.get("uses").and_then(Json::as_str).and_then(Action::find) else { return };
    let empty = Map::new();
    let with = step.get("with").and_then(Json::as_object).unwrap_or(&empty).clone();
    let with_path = join(path, "with");
    let mut good = Map::new();
    for (name, value) in &with {
        let below = join(&with_path, name);
        let Some(parameter) = action.parameter(name) else {
            let fix = match nearest(name, action.parameters.iter().map(|p| p.name)) {
                Some(meant) => format!("did you mean \"{meant}\"? (fleetctl explain {})", action.name),
                None if action.parameters.is_empty() => format!("{} takes no parameters", action.name),
                None => format!("{} takes: {}", action.name, names(action).join(", ")),
            };
            let message = format!("{} has no parameter {}, in {context}", action.name, quoted(name));
            walk.error(&below, At::Key, "unknown-parameter", message, fix);
            continue;
        };
        if parameter_fits(walk, action, parameter, value, &below, context) {
            good.insert(name.clone(), value.clone());
        }
    }
    for parameter in action.parameters.iter().filter(|p| p.required && !with.contains_key(p.name)) {
        let message = format!("{} needs the parameter \"{}\", in {context}", action.name, parameter.name);
        walk.error(
            &with_path,
            At::Key,
            "missing-parameter",
            message,
            format!("add {} = {}", parameter.name, expects(parameter.takes)),
        );
    }
    for group in action.one_of {
        let given = group.iter().filter(|name| with.contains_key(**name)).count();
        if given != 1 {
            let message = format!("{} needs exactly one of {}, in {context}", action.name, group.join(", "));
            walk.error(
                &with_path,
                At::Key,
                "missing-parameter",
                message,
                format!("write one of: {}", group.join(", ")),
            );
        }
    }
    if step.contains_key("with") {
        step.insert("with".to_owned(), Json::Object(good));
    }
}

fn names(action: &Action) -> Vec<&'static str> {
    action.parameters.iter().map(|p| p.name).collect()
}

/// What a parameter takes, for messages and `explain`.
pub(crate) fn expects(takes: Takes) -> String {
    match takes {
        Takes::Text => "a string".to_owned(),
        Takes::Integer => "an integer".to_owned(),
        Takes::Bool => "true or false".to_owned(),
        Takes::Duration => "a duration such as \"5m\"".to_owned(),
        Takes::Date => "a day such as \"20250901\", or \"latest\"".to_owned(),
        Takes::WordOrDuration(words) => format!("one of: {}; or a duration", words.join(", ")),
        Takes::Word(words) => format!("one of: {}", words.join(", ")),
        Takes::Words(words) => format!("a list of: {}", words.join(", ")),
        Takes::Id(table) => format!("an id of [{table}.*]"),
        Takes::Ids(table) => format!("a list of ids of [{table}.*]"),
        Takes::IdsOrAll(table) => format!("\"all\", or a list of ids of [{table}.*]"),
        Takes::ReportId => "an id of [report.*], or \"run_summary\"".to_owned(),
        Takes::Procedure => "the name of a procedure".to_owned(),
        Takes::RolloutPolicy => "the name of a rollout policy".to_owned(),
        Takes::Notifiers => "a list of notifiers".to_owned(),
        Takes::Path => "an absolute path".to_owned(),
        Takes::Paths => "a list of absolute paths".to_owned(),
        Takes::Texts => "a list of strings".to_owned(),
        Takes::Params => "a table of parameters".to_owned(),
    }
}

fn parameter_fits(
    walk: &mut Walk<'_>,
    action: &Action,
    parameter: &Parameter,
    value: &Json,
    path: &str,
    context: &str,
) -> bool {
    // A text that is one placeholder is a parameter of the procedure: its type is checked where the
    // run is made. plan_only must be readable from the document alone (ADR 0003).
    let whole = value
        .as_str()
        .is_some_and(|text| text.starts_with('{') && text.ends_with('}') && text.matches('{').count() == 1);
    note_templates(walk, value, path, matches!(parameter.takes, Takes::Path | Takes::Paths));
    if whole
        && !matches!(parameter.takes, Takes::Id(_) | Takes::Procedure | Takes::RolloutPolicy)
        && parameter.name != "plan_only"
    {
        return true;
    }
    let outcome = match parameter.takes {
        Takes::Text => value.as_str().map(drop).ok_or(None),
        Takes::Integer => value.as_i64().filter(|number| *number >= 0).map(drop).ok_or(None),
        Takes::Bool => value.as_bool().map(drop).ok_or(None),
        Takes::Duration => text_that(value, |text| text.parse::<Span>().is_ok()),
        Takes::Date => {
            text_that(value, |text| text == "latest" || jiff::civil::Date::strptime("%Y%m%d", text).is_ok())
        }
        Takes::Word(words) => word(value, words),
        Takes::WordOrDuration(words) => {
            if value.as_str().is_some_and(|text| text.parse::<Span>().is_ok()) {
                Ok(())
            } else {
                word(value, words)
            }
        }
        Takes::Words(words) => match value.as_array() {
            Some(members) if !members.is_empty() => members.iter().try_for_each(|member| word(member, words)),
            _ => Err(None),
        },
        Takes::Id(table) => id(walk, value, table, path),
        Takes::IdsOrAll(_) if value.as_str() == Some("all") => Ok(()),
        Takes::Ids(table) | Takes::IdsOrAll(table) => ids(walk, value, table, path),
        Takes::ReportId => text_that(value, |text| text == "run_summary" || text.parse::<Id>().is_ok()),
        Takes::Procedure | Takes::RolloutPolicy => text_that(value, |text| text.parse::<Name>().is_ok()),
        Takes::Notifiers => all_texts(value, |text| text.parse::<Name>().is_ok()),
        Takes::Path => text_that(value, |text| check_path(text).is_ok()),
        Takes::Paths => all_texts(value, |text| check_path(text).is_ok()),
        Takes::Texts => all_texts(value, |_| true),
        Takes::Params => value.as_object().map(drop).ok_or(None),
    };
    let Err(meant) = outcome else { return true };
    let shown = value.as_str().map_or_else(|| kind_of(value).to_owned(), quoted);
    let message = format!("{shown} is no value for \"{}\" of {}, in {context}", parameter.name, action.name);
    let expected = format!("write {}", expects(parameter.takes));
    let fix = meant.map_or_else(|| expected.clone(), |meant| format!("did you mean \"{meant}\"? {expected}"));
    walk.error(path, At::Value, "bad-parameter", message, fix);
    false
}

/// An error with the word that was perhaps meant.
type Fits = Result<(), Option<String>>;

fn text_that(value: &Json, good: impl Fn(&str) -> bool) -> Fits {
    value.as_str().filter(|text| text.contains('{') || good(text)).map(drop).ok_or(None)
}

fn all_texts(value: &Json, good: impl Fn(&str) -> bool) -> Fits {
    match value.as_array() {
        Some(members) if !members.is_empty() => {
            members.iter().try_for_each(|member| text_that(member, &good))
        }
        _ => Err(None),
    }
}

fn word(value: &Json, words: &[&str]) -> Fits {
    let text = value.as_str().ok_or(None)?;
    if words.contains(&text) { Ok(()) } else { Err(nearest(text, words.iter().copied()).map(str::to_owned)) }
}

fn id(walk: &mut Walk<'_>, value: &Json, table: Table, path: &str) -> Fits {
    let text = value.as_str().filter(|text| text.parse::<Id>().is_ok()).ok_or(None)?;
    walk.references.push(Reference { path: path.to_owned(), table, id: text.to_owned() });
    Ok(())
}

fn ids(walk: &mut Walk<'_>, value: &Json, table: Table, path: &str) -> Fits {
    let members = value.as_array().filter(|members| !members.is_empty()).ok_or(None)?;
    for (index, member) in members.iter().enumerate() {
        id(walk, member, table, &join(path, &index.to_string()))?;
    }
    Ok(())
}

fn note_templates(walk: &mut Walk<'_>, value: &Json, path: &str, is_path: bool) {
    match value {
        Json::String(text) if text.contains(['{', '}']) => {
            walk.templates.push(TemplateUse { path: path.to_owned(), text: text.clone(), is_path });
        }
        Json::Array(members) => {
            for (index, member) in members.iter().enumerate() {
                note_templates(walk, member, &join(path, &index.to_string()), is_path);
            }
        }
        Json::Object(entries) => {
            for (key, entry) in entries {
                note_templates(walk, entry, &join(path, key), is_path);
            }
        }
        _ => {}
    }
}

const fn kind_of(value: &Json) -> &'static str {
    match value {
        Json::Null => "nothing",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "a table",
    }
}

/// The names of placeholders in a text, or where a brace is wrong.
pub(crate) fn placeholder_names(text: &str) -> Result<Vec<&str>, placeholder::PlaceholderError> {
    Ok(placeholder::pieces(text)?
        .into_iter()
        .filter_map(|piece| if let placeholder::Piece::Name(name) = piece { Some(name) } else { None })
        .collect())
}
