//! Every code that fleetctl gives stands in docs/errors.md.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::path::Path;

/// Product code below a folder, without its tests.
fn sources(folder: &Path, out: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            out.push_str(text.split("#[cfg(test)]").next().unwrap_or_default());
        }
    }
}

/// The word in quotes that a text begins with, unless it is the pattern of a match.
fn quoted(text: &str) -> Option<&str> {
    let (word, rest) = text.trim_start().strip_prefix('"')?.split_once('"')?;
    let is_code = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    (is_code && !rest.trim_start().starts_with(['|', '='])).then_some(word)
}

#[test]
fn every_code_is_explained() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    sources(&here.join("src"), &mut text);
    // A code stands behind its exit code.
    let behind_exits =
        text.split("ExitCode::").filter_map(|rest| quoted(rest.split_once(',')?.1)).collect::<Vec<_>>();
    assert!(behind_exits.len() > 60, "{behind_exits:?}");
    let others = ["went_back(", "refused("].iter().flat_map(|mark| text.split(mark).skip(1));
    let explained = std::fs::read_to_string(here.join("../docs/errors.md")).unwrap();
    let missing: Vec<_> = behind_exits
        .into_iter()
        .chain(others.filter_map(quoted))
        .filter(|code| !explained.contains(&format!("`{code}`")))
        .collect();
    assert!(missing.is_empty(), "not in docs/errors.md: {missing:?}");
}
