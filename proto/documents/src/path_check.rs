//! Paths with the variables of the profile filled in: absolute, without `..`; and variables that are not made of
//! themselves. Values that only a node or a run knows are taken to be harmless names; the node checks them.

use std::collections::BTreeMap;

use fleet_types::document::placeholder::{Piece, PlaceholderError, expand_with, pieces};

use crate::reporter::Reporter;
use crate::text_check::quoted;
use crate::walk::TemplateUse;
use crate::walk_text::check_path;

/// Checks one text. What is wrong with a variable of the same file is reported where the variable stands, once.
pub(crate) fn check(reporter: &mut Reporter<'_>, template: &TemplateUse, vars: &BTreeMap<&str, &str>) {
    // Wrong braces are reported where the text stands.
    let Ok(pieces) = pieces(&template.text) else { return };
    let filled = match fill(&template.text, vars) {
        Ok(filled) => filled,
        Err(error) => {
            // Said of the variable, not of each use.
            let is_its_own = |piece: &Piece<'_>| match piece {
                Piece::Name(name) => vars.get(name).is_none_or(|text| fill(text, vars).is_ok()),
                Piece::Text(_) => true,
            };
            // In a circle each leads to the next, and none is by itself right.
            let is_circle =
                template.path.starts_with("vars/") && matches!(error, PlaceholderError::TooDeep(_));
            if is_circle || pieces.iter().all(is_its_own) {
                let message = match error {
                    PlaceholderError::TooDeep(_) => {
                        "is made of itself, or through too many others".to_owned()
                    }
                    error => format!("cannot be filled in: {error}"),
                };
                let message = format!("{} {message}", quoted(&template.text));
                reporter.error(&template.path, "bad-placeholder", message, "write out what it stands for");
            }
            return;
        }
    };
    if !template.is_path || !template.text.contains('{') {
        return;
    }
    if let Some(Piece::Name(name)) = pieces.first()
        && let Some(value) = vars.get(name).and_then(|text| fill(text, vars).ok())
        && let Err(why) = check_path(&value)
        && reporter.places.has(&format!("vars/{name}"))
    {
        let message = format!("variable \"{name}\" begins a path, and stands for {}", quoted(&value));
        reporter.error(&format!("vars/{name}"), "bad-value", message, why);
    } else if let Err(why) = check_path(&filled) {
        let message = format!("{} stands for {}", quoted(&template.text), quoted(&filled));
        reporter.error(&template.path, "bad-value", message, why);
    }
}

/// The text with all variables filled in, as the node does it.
fn fill(text: &str, vars: &BTreeMap<&str, &str>) -> Result<String, PlaceholderError> {
    let stand_in = |before: &str| if before.is_empty() { "/x" } else { "x" };
    expand_with(text, |name| vars.get(name).copied(), |_, before| Ok(stand_in(before).to_owned()))
}
