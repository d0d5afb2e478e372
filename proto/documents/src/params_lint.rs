//! Parameters: what commands and procedures declare, and what steps and schedules give them.

use std::collections::BTreeMap;

use fleet_types::document::{Key, ParamSpec, Value};

use crate::reporter::Reporter;
use crate::text_check::{did_you_mean, quoted};

/// Declarations that contradict themselves; `of` is what declares them, such as ` of [command.status]`.
pub(crate) fn declared(reporter: &mut Reporter<'_>, specs: &BTreeMap<Key, ParamSpec>, path: &str, of: &str) {
    for (name, spec) in specs {
        if let Err(error) = spec.check_declaration() {
            let message = format!("parameter \"{name}\"{of}: {error}");
            reporter.error(&format!("{path}/{name}"), "bad-parameter", message, "");
        }
    }
}

/// The values below `path`/params, against what `of` declares: known, fitting, and all that it needs. Those that are
/// templates may hold placeholders.
pub(crate) fn given<'v>(
    reporter: &mut Reporter<'_>,
    specs: &BTreeMap<Key, ParamSpec>,
    values: impl IntoIterator<Item = (&'v str, &'v Value)>,
    (path, of): (&str, &str),
    are_templates: bool,
) {
    let values: BTreeMap<&str, &Value> = values.into_iter().collect();
    for (name, value) in &values {
        let at = format!("{path}/params/{name}");
        match specs.get(*name) {
            None => {
                let fix = did_you_mean(name, specs.keys().map(Key::as_str), String::new);
                let message = format!("{} has no parameter {}", quoted(of), quoted(name));
                reporter.error(&at, "unknown-parameter", message, fix);
            }
            // A placeholder gets its value when the run is made, and is checked then.
            Some(_) if are_templates && value.as_str().is_some_and(|text| text.contains('{')) => {}
            Some(spec) => {
                if let Err(error) = spec.check(value) {
                    let message = format!("parameter {} of {}: {error}", quoted(name), quoted(of));
                    reporter.error(&at, "bad-parameter", message, "");
                }
            }
        }
    }
    // Outside of a dry run a parameter without a value has no place to come from: the documents are signed.
    for (name, spec) in
        specs.iter().filter(|(name, spec)| spec.required && !values.contains_key(name.as_str()))
    {
        let message = format!("{} needs the parameter \"{name}\"", quoted(of));
        let fix = format!("add params = {{ {name} = … }} ({})", spec.param_type.as_str());
        reporter.error(path, "missing-parameter", message, fix);
    }
}
