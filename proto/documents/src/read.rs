//! From the text of one file to a typed document, with every problem on the way.

use std::collections::{BTreeMap, BTreeSet};

use fleet_types::action::nearest;
use fleet_types::canonical::CanonicalError;
use fleet_types::document::{Document, DocumentKind};
use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};

use crate::known::Known;
use crate::position::{Lines, Places, Position};
use crate::problem::{Level, Problem, TOO_MANY};
use crate::reporter::Reporter;
use crate::schema::root;
use crate::source::MAX_FILE_BYTES;
use crate::text_check::quoted;
use crate::unbuilt::Unbuilt;
use crate::walk::{Reference, TemplateUse, Walk};
use crate::{path_check, placeholder_check};
use crate::{procedure_lint, profile_lint, rollout_policy_lint, schedule_lint, stand_in};

/// A good document, with what an operator should still know about it.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The file it came from, as it was named by the caller.
    pub file: String,
    /// The document.
    pub document: Document,
    /// Warnings; applying needs a reason for each.
    pub warnings: Vec<Problem>,
    /// The document as JSON, as [`to_canonical_json`] writes it.
    pub value: Json,
}

/// What was read of a file, good or not.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub file: String,
    pub problems: Vec<Problem>,
    pub document: Option<Document>,
    pub places: Places,
    pub references: Vec<Reference>,
    pub templates: Vec<TemplateUse>,
    /// What may not be acted on by this build.
    pub unbuilt: Vec<Unbuilt>,
    /// The value without what was wrong in it.
    pub value: Json,
}

/// Reads one file and checks all that needs no other document.
///
/// References to other documents, placeholders that may be variables of a profile, and lint rules that
/// need the profile are left to [`crate::parse_set`].
pub fn parse(source_name: &str, text: &str) -> Result<Parsed, Vec<Problem>> {
    let mut read = read(source_name, text);
    let found = lint(&read, &Known::default());
    read.problems.extend(found);
    finish(read)
}

/// The canonical JSON of a document (RFC 8785): the bytes that are signed, hashed, stored and sent.
pub fn to_canonical_json(document: &Document) -> Result<Vec<u8>, CanonicalError> {
    fleet_types::canonical::to_vec(document)
}

/// Sorts the problems; a document without errors comes out, else all problems.
pub(crate) fn finish(read: Read) -> Result<Parsed, Vec<Problem>> {
    let Read { file, mut problems, document, .. } = read;
    sort(&mut problems);
    match document {
        Some(document) if problems.iter().all(|problem| problem.level == Level::Warning) => {
            match serde_json::to_value(&document) {
                Ok(value) => Ok(Parsed { file, document, warnings: problems, value }),
                Err(error) => {
                    let message = format!("cannot be written as JSON: {error}");
                    Err(vec![Problem::error(&file, Position::START, "config-invalid", message, "")])
                }
            }
        }
        _ => Err(problems),
    }
}

/// By line and column; the same problem twice (a value and what is made of it) is kept once.
pub(crate) fn sort(problems: &mut Vec<Problem>) {
    // That there are more stands after those that are listed.
    let more = |problem: &Problem| problem.code == TOO_MANY;
    problems.sort_by(|a, b| {
        (&a.file, more(a), a.line, a.column, a.level, a.code, &a.message).cmp(&(
            &b.file,
            more(b),
            b.line,
            b.column,
            b.level,
            b.code,
            &b.message,
        ))
    });
    problems.dedup();
}

/// Reads one file without looking at any other.
pub(crate) fn read(file: &str, text: &str) -> Read {
    let mut read = Read { file: file.to_owned(), ..Read::default() };
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file is over {MAX_FILE_BYTES} bytes");
        let fix = "split it into several documents";
        read.problems.push(Problem::error(file, Position::START, "too-large", message, fix));
        return read;
    }
    let (top, errors) = DeTable::parse_recoverable(text);
    let broken = !errors.is_empty();
    let lines = Lines::new(text);
    for error in errors.iter().take(20) {
        let position = lines.position(error.span().map_or(0, |span| span.start));
        // The parser's message may hold text of the file over several lines; only its own words are kept.
        let words: String = error
            .message()
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        let code = if words.contains("duplicate") { "duplicate-key" } else { "toml-syntax" };
        read.problems.push(Problem::error(file, position, code, words, ""));
    }
    let Some((kind, place)) = kind_of(top.get_ref(), &lines) else {
        if !broken {
            let fix = "add kind = \"profile\", \"procedure\", \"schedule\" or \"rollout_policy\"";
            let message = "the key \"kind\" is missing, or is no string".to_owned();
            read.problems.push(Problem::error(file, Position::START, "missing-key", message, fix));
        }
        return read;
    };
    let schema = if let Ok(kind) = kind.parse() {
        root(kind)
    } else {
        let kinds = DocumentKind::ALL.map(DocumentKind::as_str);
        let fix = match nearest(&kind, kinds) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("kinds: {}", kinds.join(", ")),
        };
        let message = format!("unknown kind {}", quoted(&kind));
        read.problems.push(Problem::error(file, place, "bad-value", message, fix));
        return read;
    };
    let mut walk = Walk::new(file, text);
    let value = walk.table(top.get_ref(), schema, "", "the file");
    // What is missing after a syntax error may stand in the part that could not be read.
    walk.problems.retain(|problem| !broken || !matches!(problem.code, "missing-key" | "missing-parameter"));
    read.problems.append(&mut walk.problems);
    (read.places, read.references, read.templates) = (walk.places, walk.references, walk.templates);
    read.unbuilt = walk.unbuilt;
    match serde_json::from_value::<Document>(value.clone()) {
        Ok(document) => read.document = Some(document),
        // Errors of the walk explain it; without one the schema and the types disagree, and the file is
        // refused rather than guessed at.
        Err(error) if read.problems.iter().all(|problem| problem.level == Level::Warning) => {
            let message = format!("not a {kind}: {error}");
            let fix = "check the file against the reference";
            read.problems.push(Problem::error(file, Position::START, "config-invalid", message, fix));
        }
        Err(_) => {}
    }
    read.value = value;
    read
}

fn kind_of(top: &DeTable<'_>, lines: &Lines<'_>) -> Option<(String, Position)> {
    let value = top.get("kind")?;
    match value.get_ref() {
        DeValue::String(text) => Some((text.to_string(), lines.position(value.span().start))),
        _ => None,
    }
}

/// What is checked once the other documents are known.
pub(crate) fn lint(read: &Read, known: &Known<'_>) -> Vec<Problem> {
    let mut reporter = Reporter::new(&read.file, &read.places);
    match &read.document {
        Some(Document::Profile(profile)) => profile_lint::check(&mut reporter, profile, known),
        Some(Document::Procedure(procedure)) => {
            procedure_lint::check(&mut reporter, procedure, known, &read.references);
        }
        Some(Document::Schedule(schedule)) => schedule_lint::check(&mut reporter, schedule, known),
        Some(Document::RolloutPolicy(policy)) => rollout_policy_lint::check(&mut reporter, policy),
        None => {}
    }
    if read.value.get("kind").and_then(Json::as_str) == Some(DocumentKind::Profile.as_str()) {
        profile_lint::check_references(&mut reporter, &read.value, &read.references);
    }
    // Without an error before there is no stand-in, and nothing that looks like one may hide a problem.
    if read.problems.iter().any(|problem| problem.level == Level::Error) {
        stand_in::drop_problems(&mut reporter.problems);
    }
    let vars = vars_for(read, known);
    for template in &read.templates {
        if let Some(vars) = &vars {
            path_check::check(&mut reporter, template, vars);
        }
        placeholder_check::check(&mut reporter, template, names_for(read, known, template).as_ref());
    }
    reporter.problems
}

/// The variables that paths may begin with; `None` while the profile is not known.
fn vars_for<'r>(read: &'r Read, known: &Known<'r>) -> Option<BTreeMap<&'r str, &'r str>> {
    match read.value.get("kind").and_then(Json::as_str)? {
        "profile" => {
            let vars = read.value.get("vars").and_then(Json::as_object);
            Some(vars.into_iter().flatten().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))).collect())
        }
        "procedure" => {
            let profile = known.profiles.get(read.value.get("profile").and_then(Json::as_str)?)?;
            Some(profile.vars.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect())
        }
        _ => None,
    }
}

/// Variables and parameters that may stand in a text; `None` while the profile is not known.
fn names_for<'r>(read: &'r Read, known: &Known<'r>, template: &TemplateUse) -> Option<BTreeSet<&'r str>> {
    let keys = |value: Option<&'r Json>| -> Vec<&'r str> {
        value
            .and_then(Json::as_object)
            .map(|table| table.keys().map(String::as_str).collect())
            .unwrap_or_default()
    };
    match read.value.get("kind").and_then(Json::as_str)? {
        "profile" => {
            let mut names: BTreeSet<&str> = keys(read.value.get("vars")).into_iter().collect();
            let mut parts = template.path.split('/');
            if parts.next() == Some("command")
                && let Some(id) = parts.next()
            {
                names.extend(keys(
                    read.value.get("command").and_then(|c| c.get(id)).and_then(|c| c.get("params")),
                ));
            }
            Some(names)
        }
        "procedure" => {
            let profile = known.profiles.get(read.value.get("profile").and_then(Json::as_str)?)?;
            let mut names: BTreeSet<&str> = keys(read.value.get("params")).into_iter().collect();
            names.extend(profile.vars.keys().map(fleet_types::document::Key::as_str));
            Some(names)
        }
        _ => None,
    }
}
