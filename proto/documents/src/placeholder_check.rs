//! Placeholders: braces that are wrong, and names that nothing stands behind.

use std::collections::BTreeSet;

use fleet_types::action::nearest;
use fleet_types::document::placeholder::BUILT_IN;

use crate::action_check::placeholder_names;
use crate::position::Places;
use crate::problem::{Level, Problem};
use crate::text_check::quoted;
use crate::walk::TemplateUse;

/// Checks one text. `names` are variables and parameters that may be used there; `None` when they are
/// not known yet, then only braces are looked at.
pub(crate) fn check(
    file: &str,
    places: &Places,
    template: &TemplateUse,
    names: Option<&BTreeSet<&str>>,
) -> Vec<Problem> {
    let place = places.nearest(&template.path).value;
    let problem = |code, message, fix| Problem {
        level: Level::Error,
        file: file.to_owned(),
        line: place.line,
        column: place.column,
        code,
        message,
        fix,
    };
    let used = match placeholder_names(&template.text) {
        Ok(used) => used,
        Err(error) => {
            let fix = "write {name} with the name of a variable, and no other braces".to_owned();
            return vec![problem("bad-placeholder", format!("{} {error}", quoted(&template.text)), fix)];
        }
    };
    let Some(names) = names else { return Vec::new() };
    used.into_iter()
        .filter(|name| !names.contains(name) && !BUILT_IN.contains(name) && !is_label(name))
        .map(|name| {
            let known = names.iter().copied().chain(BUILT_IN);
            let fix = nearest(name, known).map_or_else(
                || {
                    format!(
                        "known here: {}, label.<key>",
                        names.iter().copied().chain(BUILT_IN).collect::<Vec<_>>().join(", ")
                    )
                },
                |meant| format!("did you mean {{{meant}}}?"),
            );
            problem(
                "unknown-placeholder",
                format!("unknown placeholder {} in {}", quoted(name), quoted(&template.text)),
                fix,
            )
        })
        .collect()
}

fn is_label(name: &str) -> bool {
    name.strip_prefix("label.").is_some_and(|key| fleet_types::label::check_key(key).is_ok())
}
