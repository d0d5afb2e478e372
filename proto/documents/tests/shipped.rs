//! Every shipped document parses, together with the others of its folder, without errors.

#![allow(clippy::unwrap_used)] // helpers of tests: a panic is the failure

use std::fs;
use std::path::{Path, PathBuf};

use fleet_documents::{Lint, ParsedSet, Problem, SourceFile, parse_set, to_canonical_json};
use fleet_types::document::Document;

fn toml_files(folder: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                files.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!files.is_empty(), "no document in {}", folder.display());
    files
}

fn parsed(folder: &str) -> ParsedSet {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/profiles").join(folder);
    let files = toml_files(&folder);
    let sources: Vec<SourceFile<'_>> = files.iter().map(|(name, text)| SourceFile { name, text }).collect();
    match parse_set(&sources, &Lint::default()) {
        Ok(set) => set,
        Err(problems) => {
            let shown: Vec<String> =
                problems.iter().map(|p| format!("{}[{}]: {p}", p.level.as_str(), p.code)).collect();
            panic!("{}", shown.join("\n"))
        }
    }
}

/// What is warned about, without what every set is told about rollout policies.
fn warnings(set: &ParsedSet) -> Vec<String> {
    set.warnings
        .iter()
        .filter(|problem| problem.code != "kind-not-read")
        .map(|problem: &Problem| problem.to_string())
        .collect()
}

/// The JSON of a document reads back as the same document, and as the same bytes.
fn one_json(set: &ParsedSet) {
    for parsed in &set.documents {
        let bytes = to_canonical_json(&parsed.document).unwrap();
        let back: Document = fleet_types::canonical::from_slice(&bytes).unwrap();
        assert_eq!(back, parsed.document);
        assert_eq!(to_canonical_json(&back).unwrap(), bytes, "{}", parsed.file);
    }
}

#[test]
fn zehrasec() {
    let set = parsed("zehrasec");
    assert_eq!(set.documents.len(), 16);
    assert_eq!(warnings(&set), Vec::<String>::new());
    one_json(&set);
}

#[test]
fn wan22() {
    let set = parsed("wan22");
    assert_eq!(set.documents.len(), 18);
    assert_eq!(warnings(&set), Vec::<String>::new());
    one_json(&set);
}

#[test]
fn dev() {
    let set = parsed("dev");
    assert_eq!(set.documents.len(), 3);
    assert_eq!(warnings(&set), Vec::<String>::new());
    one_json(&set);
}

/// The reference files hold every key of the schema.
#[test]
fn reference() {
    let profile = include_str!("reference/profile.toml");
    let procedure = include_str!("reference/procedure.toml");
    let files = [
        SourceFile { name: "profile.toml", text: profile },
        SourceFile { name: "procedure.toml", text: procedure },
    ];
    let problems = parse_set(&files, &Lint::default()).unwrap_err();
    // What the reference names without being a whole set.
    let shown: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.code, p.message)).collect();
    let missing = |name: &str| format!("unknown-document: no procedure has the name \"{name}\"");
    assert_eq!(shown, [missing("signature-update"), missing("daily-maintenance")]);
    let schedule = fleet_documents::parse("schedule.toml", include_str!("reference/schedule.toml")).unwrap();
    assert_eq!(schedule.warnings, []);
}
