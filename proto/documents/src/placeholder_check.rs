//! Placeholders: braces that are wrong, and names that nothing stands behind.

use std::collections::BTreeSet;

use fleet_types::action::nearest;
use fleet_types::document::placeholder::BUILT_IN;

use crate::action_check::placeholder_names;
use crate::reporter::Reporter;
use crate::text_check::quoted;
use crate::walk::TemplateUse;

/// Checks one text. `names` are variables and parameters that may be used there; `None` when they are
/// not known yet, then only braces are looked at.
pub(crate) fn check(reporter: &mut Reporter<'_>, template: &TemplateUse, names: Option<&BTreeSet<&str>>) {
    let used = match placeholder_names(&template.text) {
        Ok(used) => used,
        Err(error) => {
            let fix = "write {name} with the name of a variable, and no other braces";
            let message = format!("{} {error}", quoted(&template.text));
            return reporter.error(&template.path, "bad-placeholder", message, fix);
        }
    };
    let Some(names) = names else { return };
    for name in used {
        if names.contains(name) || BUILT_IN.contains(&name) || is_label(name) {
            continue;
        }
        let known: Vec<&str> = names.iter().copied().chain(BUILT_IN).collect();
        let fix = match nearest(name, known.iter().copied()) {
            Some(meant) => format!("did you mean {{{meant}}}?"),
            None => format!("known here: {}, label.<key>", known.join(", ")),
        };
        let message = format!("unknown placeholder {} in {}", quoted(name), quoted(&template.text));
        reporter.error(&template.path, "unknown-placeholder", message, fix);
    }
}

fn is_label(name: &str) -> bool {
    name.strip_prefix("label.").is_some_and(|key| fleet_types::label::check_key(key).is_ok())
}
