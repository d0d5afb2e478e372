//! The arguments of a step: placeholders filled in, defaults added, each checked against the catalogue.
//!
//! Pure. What passes has the parameters that the action knows, of the right shape, with ids that the
//! signed profile declares (security-and-delivery §1.17: unknown parameters are refused).

use std::collections::BTreeMap;

use fleet_types::action::{Action, Parameter, Table, Takes};
use fleet_types::document::Value;
use fleet_types::document::placeholder::{Sources, expand, expand_value};
use fleet_types::document::procedure::With;
use fleet_types::document::profile::Profile;
use fleet_types::time::Span;

/// Arguments by name.
pub type Arguments = BTreeMap<String, Value>;

/// What is wrong with one argument; completes "step x: ".
pub type Fault = (&'static str, String);

/// Fills in and checks the arguments of one step.
pub fn fill(
    action: &Action,
    with: &With,
    profile: &Profile,
    sources: &Sources<'_>,
) -> Result<Arguments, Fault> {
    let mut arguments = Arguments::new();
    for (name, value) in with {
        let parameter = action
            .parameter(name)
            .ok_or_else(|| ("with-unknown", format!("{} has no parameter {name:?}", action.name)))?;
        let value =
            expand_value(value, sources).map_err(|e| ("placeholder", format!("parameter {name}: {e}")))?;
        check(parameter, &value, profile)
            .map_err(|why| ("with-invalid", format!("parameter {name}: {why}")))?;
        arguments.insert(name.clone(), value);
    }
    for parameter in action.parameters {
        if arguments.contains_key(parameter.name) {
            continue;
        }
        if parameter.required {
            let message = format!("{} needs parameter {:?}", action.name, parameter.name);
            return Err(("with-missing", message));
        }
        // A default of a group of which one is given would be a second one.
        let grouped = action.one_of.iter().any(|group| group.contains(&parameter.name));
        if !parameter.default.is_empty() && !grouped {
            let value = default_of(parameter, sources)
                .map_err(|why| ("placeholder", format!("default of {}: {why}", parameter.name)))?;
            arguments.insert(parameter.name.to_owned(), value);
        }
    }
    for group in action.one_of {
        let given = group.iter().filter(|name| arguments.contains_key(**name)).count();
        if given != 1 {
            let message = format!("{} needs exactly one of {}", action.name, group.join(", "));
            return Err(("with-missing", message));
        }
    }
    Ok(arguments)
}

fn default_of(parameter: &Parameter, sources: &Sources<'_>) -> Result<Value, String> {
    match parameter.takes {
        Takes::Bool => Ok(Value::Bool(parameter.default == "true")),
        Takes::Integer => parameter.default.parse().map(Value::Integer).map_err(|_| "no number".to_owned()),
        Takes::Params => Ok(Value::Table(BTreeMap::new())),
        _ => expand(parameter.default, sources).map(Value::String).map_err(|e| e.to_string()),
    }
}

fn check(parameter: &Parameter, value: &Value, profile: &Profile) -> Result<(), String> {
    let found = || value.kind();
    let text = || value.as_str().ok_or_else(|| format!("expected a text, found {}", found()));
    let texts = || value.as_strings().ok_or_else(|| format!("expected a list of texts, found {}", found()));
    let declared = |table: Table, id: &str| {
        if profile.ids(table).contains(&id) { Ok(()) } else { Err(format!("profile has no [{table}.{id}]")) }
    };
    match parameter.takes {
        Takes::Integer => {
            value.as_integer().map(|_| ()).ok_or_else(|| format!("expected a number, found {}", found()))
        }
        Takes::Bool => {
            value.as_bool().map(|_| ()).ok_or_else(|| format!("expected yes or no, found {}", found()))
        }
        Takes::Params => {
            value.as_table().map(|_| ()).ok_or_else(|| format!("expected a table, found {}", found()))
        }
        Takes::Duration => text()?.parse::<Span>().map(|_| ()).map_err(|e| e.to_string()),
        Takes::Word(words) => one_of(text()?, words),
        Takes::WordOrDuration(words) => {
            let text = text()?;
            if text.parse::<Span>().is_ok() { Ok(()) } else { one_of(text, words) }
        }
        Takes::Words(words) => texts()?.into_iter().try_for_each(|word| one_of(word, words)),
        Takes::Id(table) => declared(table, text()?),
        Takes::Ids(table) => texts()?.into_iter().try_for_each(|id| declared(table, id)),
        Takes::IdsOrAll(table) => {
            if value.as_str() == Some("all") {
                Ok(())
            } else {
                texts()?.into_iter().try_for_each(|id| declared(table, id))
            }
        }
        Takes::Path => absolute(text()?),
        Takes::Paths => texts()?.into_iter().try_for_each(absolute),
        Takes::Texts | Takes::Notifiers => texts().map(|_| ()),
        Takes::Text | Takes::Date | Takes::ReportId | Takes::Procedure | Takes::RolloutPolicy => {
            text().map(|_| ())
        }
    }
}

fn one_of(word: &str, words: &[&str]) -> Result<(), String> {
    if words.contains(&word) { Ok(()) } else { Err(format!("{word:?} is not one of {}", words.join(", "))) }
}

fn absolute(path: &str) -> Result<(), String> {
    let good = path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(|part| part != ".."));
    if good { Ok(()) } else { Err(format!("{path:?} is not an absolute path without '..'")) }
}

/// The ids of `table` that the arguments name; `all` is every one of the profile.
pub fn ids_of(action: &Action, arguments: &Arguments, profile: &Profile, table: Table) -> Vec<String> {
    let mut ids = Vec::new();
    for parameter in action.parameters {
        let (Takes::Id(of) | Takes::Ids(of) | Takes::IdsOrAll(of)) = parameter.takes else { continue };
        let Some(value) = arguments.get(parameter.name).filter(|_| of == table) else { continue };
        match value {
            Value::String(all) if all == "all" && matches!(parameter.takes, Takes::IdsOrAll(_)) => {
                ids.extend(profile.ids(table).into_iter().map(str::to_owned));
            }
            Value::String(id) => ids.push(id.clone()),
            Value::List(members) => ids.extend(members.iter().filter_map(Value::as_str).map(str::to_owned)),
            _ => {}
        }
    }
    ids
}
