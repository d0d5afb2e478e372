//! Paths with the variables of the profile filled in: absolute, without `..`; and variables that are not made of
//! themselves. Values that only a node or a run knows are taken to be harmless names; the node checks them.

use std::collections::BTreeMap;

use fleet_types::document::placeholder::{Piece, pieces};

use crate::reporter::Reporter;
use crate::text_check::quoted;
use crate::walk::TemplateUse;
use crate::walk_text::check_path;

/// As deep as the node follows variables.
const MAX_DEPTH: u32 = 8;

/// Checks one text. What is wrong with a variable of the same file is reported where the variable stands, once.
pub(crate) fn check(reporter: &mut Reporter<'_>, template: &TemplateUse, vars: &BTreeMap<&str, &str>) {
    let Some(filled) = fill(&template.text, vars, 0) else {
        // Said of the variable, not of each use.
        let message = format!("{} is made of itself, or through too many others", quoted(&template.text));
        if template.path.starts_with("vars/") {
            reporter.error(&template.path, "bad-placeholder", message, "write out what it stands for");
        }
        return;
    };
    if !template.is_path || !template.text.contains('{') {
        return;
    }
    let Ok(pieces) = pieces(&template.text) else { return };
    if let Some(Piece::Name(name)) = pieces.first()
        && let Some(value) = vars.get(name).and_then(|text| fill(text, vars, 1))
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

/// The text with all variables filled in; none when they go in a circle. A text with wrong braces stays as it is.
fn fill(text: &str, vars: &BTreeMap<&str, &str>, depth: u32) -> Option<String> {
    let Ok(pieces) = pieces(text) else { return Some(text.to_owned()) };
    let mut out = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Name(name) => match vars.get(name) {
                Some(_) if depth == MAX_DEPTH => return None,
                Some(text) => out.push_str(&fill(text, vars, depth + 1)?),
                None => out.push_str(if out.is_empty() { "/x" } else { "x" }),
            },
        }
    }
    Some(out)
}
