//! Every shipped document parses, together with the others of its folder, without errors.

#![allow(clippy::unwrap_used)] // helpers of tests: a panic is the failure

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use fleet_documents::{Lint, ParsedSet, SourceFile, parse_set, to_canonical_json};
use fleet_types::action::BUILT;
use fleet_types::document::Document;
use fleet_types::document::procedure::{Order, Procedure, StepKind};

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

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/profiles").join(name)
}

fn parsed(name: &str) -> ParsedSet {
    let files = toml_files(&folder(name));
    let sources: Vec<SourceFile<'_>> = files.iter().map(|(name, text)| SourceFile { name, text }).collect();
    let built = BUILT.iter().copied().collect();
    match parse_set(&sources, &Lint { built_actions: Some(&built), ..Lint::default() }) {
        Ok(set) => set,
        Err(problems) => {
            let shown: Vec<String> =
                problems.iter().map(|p| format!("{}[{}]: {p}", p.level.as_str(), p.code)).collect();
            panic!("{}", shown.join("\n"))
        }
    }
}

/// What is warned about that is a matter of the documents, and not of what this build does not do.
fn warnings(set: &ParsedSet) -> Vec<&str> {
    set.warnings.iter().filter(|problem| problem.needs_reason()).map(|problem| &*problem.message).collect()
}

/// Why a run of this procedure is refused by this build; nothing when it is not.
fn refused(procedure: &Procedure) -> Option<String> {
    let entries = procedure.rollback.iter().chain(&procedure.finally).map(|entry| entry.uses.as_str());
    let uses = procedure.steps.iter().filter_map(|step| step.uses.as_deref()).chain(entries);
    let missing: BTreeSet<String> =
        uses.filter(|action| !BUILT.contains(action)).map(|action| format!("`{action}`")).collect();
    let mut reasons: Vec<String> = missing.into_iter().collect();
    let words = [
        (procedure.steps.iter().any(|step| step.kind == StepKind::Manual), "sign-offs"),
        (procedure.order == Order::Lockstep, "lockstep"),
    ];
    reasons.extend(words.into_iter().filter(|(is, _)| *is).map(|(_, word)| word.to_owned()));
    (!reasons.is_empty()).then(|| reasons.join(", "))
}

/// The tables of COVERAGE.md that follow from the build, not from the guide.
fn not_carried_out(set: &ParsedSet) -> String {
    let procedures: Vec<&Procedure> = set
        .documents
        .iter()
        .filter_map(|parsed| match &parsed.document {
            Document::Procedure(procedure) => Some(&**procedure),
            _ => None,
        })
        .collect();
    let mut out = "| Procedure | A run is refused, because this build lacks |\n| --- | --- |\n".to_owned();
    for procedure in &procedures {
        if let Some(reasons) = refused(procedure) {
            let _ = writeln!(out, "| {} | {reasons} |", procedure.name);
        }
    }
    let whole: Vec<&str> =
        procedures.iter().filter(|p| refused(p).is_none()).map(|p| p.name.as_str()).collect();
    let _ = writeln!(out, "\nThese run: {}.\n", whole.join(", "));
    out.push_str("| Written, and not acted on | Because |\n| --- | --- |\n");
    for problem in set.warnings.iter().filter(|problem| problem.code == "not-acted-on") {
        let rest = problem.message.strip_prefix("this build does not act on ").unwrap();
        let (whats, why) = rest.rsplit_once("): ").unwrap();
        // Without the places, which change with every line.
        let whats: Vec<&str> = whats.split("), ").map(|what| what.split(" (").next().unwrap()).collect();
        let _ = writeln!(out, "| `{}` | {why} |", whats.join("`, `"));
    }
    out
}

#[test]
fn both_guides_say_what_this_build_does_not_carry_out() {
    for name in ["zehrasec", "wan22"] {
        let expected = not_carried_out(&parsed(name));
        let written = fs::read_to_string(folder(name).join("COVERAGE.md")).unwrap();
        assert!(written.contains(&expected), "COVERAGE.md of {name} lacks:\n{expected}");
    }
}

#[test]
fn the_rollout_policy_of_a_development_fleet_can_be_started_with() {
    let set = parsed("dev");
    let policies = set.documents.iter().filter_map(|parsed| match &parsed.document {
        Document::RolloutPolicy(policy) => Some((policy.name.as_str(), policy.not_built())),
        _ => None,
    });
    assert_eq!(policies.collect::<Vec<_>>(), [("dev", vec![])]);
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
    assert_eq!(set.documents.len(), 19);
    let stays =
        "a failure rolls back, and nothing undoes what these steps change: \"log-cleanup\" (log.prune)";
    assert_eq!(warnings(&set), [stays]);
    one_json(&set);
}

#[test]
fn wan22() {
    let set = parsed("wan22");
    assert_eq!(set.documents.len(), 21);
    let stays = |step| format!("a failure rolls back, and nothing undoes what these steps change: {step}");
    let expected = [stays("\"old-logs\" (log.prune)"), stays("\"database\" (command.run)")];
    assert_eq!(warnings(&set), expected);
    one_json(&set);
}

#[test]
fn dev() {
    let set = parsed("dev");
    assert_eq!(set.documents.len(), 6);
    assert_eq!(warnings(&set), Vec::<&str>::new());
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
    let policy = include_str!("reference/rollout-policy.toml");
    assert_eq!(fleet_documents::parse("rollout-policy.toml", policy).unwrap().warnings, []);
}
