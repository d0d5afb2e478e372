//! What the commands around files of documents share: reading them, and checking them together.

use fleet_documents::{Level, Lint, ParsedSet, Problem, SourceFile, parse_set};
use fleet_types::action::BUILT;
use fleet_types::document::{Document, DocumentKind};

use crate::client::Client;
use crate::commands::files::TextFile;
use crate::error::{ExitCode, Failure};
use crate::render::units;

/// The documents of a set without errors; what procedures and schedules may refer to is applied already.
pub fn checked(texts: &[TextFile], applied: &[Document]) -> Result<ParsedSet, Failure> {
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
pub async fn applied_documents(client: &Client) -> Result<Vec<Document>, Failure> {
    let mut documents = Vec::new();
    for kind in [DocumentKind::Profile, DocumentKind::Procedure] {
        let page = client.documents(Some(kind)).await?;
        for item in page.items {
            let content = client.document(kind, &item.name, item.revision).await?.content;
            // A document of a newer release is none that these files can be checked against.
            documents.extend(serde_json::from_value(content).ok());
        }
    }
    Ok(documents)
}

/// `3 files valid, 1 warning`.
pub fn summary(files: usize, errors: usize, warnings: usize) -> String {
    let files = units::count(files, "file");
    let warnings =
        if warnings == 0 { String::new() } else { format!(", {}", units::count(warnings, "warning")) };
    if errors == 0 {
        format!("{files} valid{warnings}")
    } else {
        format!("{files}: {}{warnings}", units::count(errors, "error"))
    }
}

/// How many problems are of a level.
pub fn count(problems: &[Problem], level: Level) -> usize {
    problems.iter().filter(|problem| problem.level == level).count()
}

/// What is wrong with the bytes of files.
pub fn unreadable(files: &[TextFile]) -> Vec<Problem> {
    files.iter().filter_map(|file| file.unreadable.clone()).collect()
}

/// Files as the checks take them.
pub fn sources(files: &[TextFile]) -> Vec<SourceFile<'_>> {
    files.iter().map(|file| SourceFile { name: &file.name, text: &file.text }).collect()
}
