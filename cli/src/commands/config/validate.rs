//! `fleetctl config validate`.

use std::path::PathBuf;

use fleet_documents::{Level, Lint, Problem, parse_set};
use fleet_types::action::BUILT;
use serde::Serialize;

use super::read::{count, sources, summary, unreadable};
use crate::commands::files;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Tone};
use crate::session::Session;

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
