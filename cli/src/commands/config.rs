//! `fleetctl config validate|apply`.

use std::path::PathBuf;

use fleet_documents::{Level, Lint, ParsedSet, Problem, SourceFile, parse_set, to_canonical_json};
use fleet_types::action::BUILT;
use fleet_types::document::{Document, DocumentKind};
use fleet_types::view::ApplyView;
use serde::Serialize;

use super::files::{self, TextFile};
use crate::client::{Client, SourceDocument};
use crate::confirm::{Danger, confirm};
use crate::context::{Revision, Seen};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Cell, Column, Table, Tone, units};
use crate::session::Session;
use crate::signing::Signer;

#[derive(Serialize)]
struct Validated<'a> {
    files: usize,
    valid: bool,
    items: Vec<ProblemItem<'a>>,
}

#[derive(Serialize)]
struct ProblemItem<'a> {
    level: &'static str,
    file: &'a str,
    line: usize,
    column: usize,
    code: &'static str,
    message: &'a str,
    fix: &'a str,
}

/// Checks files; asks nobody. The problems are the data of this command, so they go to stdout.
pub fn validate(session: &mut Session<'_>, paths: &[PathBuf]) -> Result<ExitCode, Failure> {
    let texts = files::read(paths)?;
    let built = BUILT.iter().copied().collect();
    let unreadable = unreadable(&texts);
    let lint = Lint { built_actions: Some(&built), unreadable: &unreadable, ..Lint::default() };
    let (problems, set) = match parse_set(&sources(&texts), &lint) {
        Ok(set) => (set.warnings.clone(), Some(set)),
        Err(problems) => (problems, None),
    };
    let items = problems.iter().map(problem_item).collect();
    let body = Validated { files: texts.len(), valid: set.is_some(), items };
    let mut answer = Answer::local("fleet/v1/validation", &body);
    for problem in &problems {
        answer = problem_lines(answer, problem);
    }
    if let Some(set) = &set {
        let documents = set.documents.iter().map(|parsed| &parsed.document);
        answer = answer.names(documents.map(|document| format!("{}/{}", document.kind(), document.name())));
    }
    let errors = count(&problems, Level::Error);
    let summary = summary(texts.len(), errors, count(&problems, Level::Warning));
    let tone = if errors > 0 { Tone::Bad } else { Tone::Good };
    session.print(&answer.block(Block::Toned(tone, summary)))?;
    Ok(if errors > 0 { ExitCode::Usage } else { ExitCode::Done })
}

fn summary(files: usize, errors: usize, warnings: usize) -> String {
    let files = units::count(files, "file");
    let warnings =
        if warnings == 0 { String::new() } else { format!(", {}", units::count(warnings, "warning")) };
    if errors == 0 {
        format!("{files} valid{warnings}")
    } else {
        format!("{files}: {}{warnings}", units::count(errors, "error"))
    }
}

fn problem_item(problem: &Problem) -> ProblemItem<'_> {
    ProblemItem {
        level: problem.level.as_str(),
        file: &problem.file,
        line: problem.line,
        column: problem.column,
        code: problem.code,
        message: &problem.message,
        fix: &problem.fix,
    }
}

fn problem_lines(answer: Answer, problem: &Problem) -> Answer {
    let tone = if problem.level == Level::Error { Tone::Bad } else { Tone::Warn };
    let place = format!("{}:{}:{}", problem.file, problem.line, problem.column);
    let head = format!("{}[{}]: {place}: {}", problem.level.as_str(), problem.code, problem.message);
    let answer = answer.block(Block::Toned(tone, head));
    if problem.fix.is_empty() { answer } else { answer.line(format!("  fix: {}", problem.fix)) }
}

fn count(problems: &[Problem], level: Level) -> usize {
    problems.iter().filter(|problem| problem.level == level).count()
}

fn unreadable(files: &[TextFile]) -> Vec<Problem> {
    files.iter().filter_map(|file| file.unreadable.clone()).collect()
}

fn sources(files: &[TextFile]) -> Vec<SourceFile<'_>> {
    files.iter().map(|file| SourceFile { name: &file.name, text: &file.text }).collect()
}

/// Checks, shows what would change, asks, signs and stores.
pub async fn apply(session: &mut Session<'_>, paths: &[PathBuf]) -> Result<ExitCode, Failure> {
    let texts = files::read(paths)?;
    let signer = Signer::load(&session.context()?)?;
    let client = session.connect().await?;
    let applied = applied_documents(&client).await?;
    let set = checked(&texts, &applied)?;
    if set.documents.is_empty() {
        return Err(Failure::new(ExitCode::NotFound, "no-documents", "none of the files holds a document"));
    }
    let documents = signed(&signer, &set, &texts)?;
    let warnings: Vec<String> = set.warnings.iter().map(ToString::to_string).collect();
    for warning in &warnings {
        session.say(format!("warning: {warning}"));
    }
    let reason = session.settings.reason.clone().unwrap_or_default();
    let preview = client.apply(&documents, &reason, true).await?;
    for warning in preview.warnings.iter().filter(|warning| !warnings.contains(warning)) {
        session.say(format!("warning: {warning}"));
    }
    let changed = preview.items.iter().filter(|item| item.action != "unchanged").count();
    if session.settings.dry_run || changed == 0 {
        session.print(&answer(&preview))?;
        return Ok(ExitCode::Done);
    }
    if reason.trim().is_empty() && set.warnings.iter().any(Problem::needs_reason) {
        return Err(Failure::new(
            ExitCode::Confirmation,
            "reason-needed",
            "documents with warnings are applied with a reason only; nothing was stored",
        )
        .fix("mend what the warnings say, or add --reason TEXT"));
    }
    let doing = format!("apply {}", units::count(changed, "changed document"));
    confirm(session, &Danger::Moderate, &doing, &answer(&preview)).await?;
    let stored = client.apply(&documents, &reason, false).await?;
    let mut seen = Seen::load(&session.context()?.seen_file())?;
    for item in &stored.items {
        if let Ok(kind) = item.kind.parse() {
            seen.note_document(kind, &item.name, Revision { revision: item.revision, digest: item.digest });
        }
    }
    seen.save_or_say(session);
    session.print(&answer(&stored))?;
    Ok(ExitCode::Done)
}

fn checked(texts: &[TextFile], applied: &[Document]) -> Result<ParsedSet, Failure> {
    let built = BUILT.iter().copied().collect();
    let unreadable = unreadable(texts);
    let lint = Lint { applied, built_actions: Some(&built), unreadable: &unreadable };
    parse_set(&sources(texts), &lint).map_err(|problems| {
        let errors: Vec<_> = problems.iter().filter(|problem| problem.level == Level::Error).collect();
        let what = format!("{}; nothing was applied", summary(texts.len(), errors.len(), 0));
        let failure = Failure::new(ExitCode::Usage, "config-invalid", what);
        errors.into_iter().fold(failure, |failure, problem| failure.cause(problem.to_string()))
    })
}

/// What procedures and schedules may refer to: the profiles and procedures that are applied already.
async fn applied_documents(client: &Client) -> Result<Vec<Document>, Failure> {
    let mut documents = Vec::new();
    for kind in [DocumentKind::Profile, DocumentKind::Procedure] {
        let page = client.documents(kind).await?;
        for item in page.items {
            let content = client.document(kind, &item.name, item.revision).await?.content;
            // A document of a newer release is none that these files can be checked against.
            documents.extend(serde_json::from_value(content).ok());
        }
    }
    Ok(documents)
}

fn signed(signer: &Signer, set: &ParsedSet, texts: &[TextFile]) -> Result<Vec<SourceDocument>, Failure> {
    let mut documents = Vec::new();
    for parsed in &set.documents {
        let bytes = to_canonical_json(&parsed.document)
            .map_err(|error| Failure::usage(format!("{} cannot be written", parsed.file)).because(&error))?;
        let source = texts.iter().find(|file| file.name == parsed.file).map(|file| file.text.clone());
        documents.push(SourceDocument {
            envelope: signer.document(bytes),
            source: source.unwrap_or_default(),
            source_name: parsed.file.clone(),
        });
    }
    Ok(documents)
}

fn answer(view: &ApplyView) -> Answer {
    let mut table = Table::new(&[
        Column::whole("ACTION"),
        Column::whole("KIND"),
        Column::whole("NAME"),
        Column::number("REVISION"),
        Column::whole("DIGEST").wide(),
    ]);
    for item in &view.items {
        let tone = if item.action == "unchanged" { Tone::Dim } else { Tone::Good };
        table.row([
            Cell::toned(tone, item.action.as_str()),
            item.kind.as_str().into(),
            item.name.as_str().into(),
            item.revision.to_string().into(),
            item.digest.to_string().into(),
        ]);
    }
    let changed = view.items.iter().filter(|item| item.action != "unchanged").count();
    let word = if view.dry_run { "would change" } else { "changed" };
    Answer::of(view)
        .names(view.items.iter().map(|item| format!("{}/{}", item.kind, item.name)))
        .table(table, "nothing to apply")
        .line(format!("{changed} of {} {word}", units::count(view.items.len(), "document")))
}
