//! A set of files of one apply, checked together.

use std::collections::{BTreeMap, BTreeSet};

use fleet_types::document::{Document, DocumentKind};

use crate::known::Known;
use crate::problem::Problem;
use crate::read::{Parsed, Read, finish, lint, read, sort};
use crate::source::SourceFile;
use crate::text_check::quoted;
use crate::unbuilt;

/// What is known beside the files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lint<'a> {
    /// Documents that are applied already; a file of the set with the same kind and name goes first.
    pub applied: &'a [Document],
    /// Actions that this build's agents have. The others of the catalogue are warned about, and so is all else that
    /// this build keeps and does not act on. `None`: not asked.
    pub built_actions: Option<&'a BTreeSet<&'a str>>,
    /// What is wrong with the files as such: their bytes are no text. Reported with all else.
    pub unreadable: &'a [Problem],
}

/// A set without errors.
#[derive(Debug, Clone)]
pub struct ParsedSet {
    /// Its documents, in the order of the files. Rollout policies are not among them.
    pub documents: Vec<Parsed>,
    /// Warnings of all files, by file, line and column.
    pub warnings: Vec<Problem>,
}

/// Reads all files of an apply and checks them together; every problem of every file comes back at once.
pub fn parse_set(files: &[SourceFile<'_>], context: &Lint<'_>) -> Result<ParsedSet, Vec<Problem>> {
    let mut reads: Vec<_> = files.iter().map(|file| read(file.name, file.text)).collect();
    let mut known = Known { complete: true, ..Known::default() };
    context.applied.iter().for_each(|document| known.add(document));
    reads.iter().filter_map(|read| read.document.as_ref()).for_each(|document| known.add(document));
    let mut found: Vec<Vec<Problem>> = reads.iter().map(|read| lint(read, &known)).collect();

    // A file that could not be read to the end still has its name: what refers to it is not wrong too.
    let unread: BTreeSet<&str> = reads
        .iter()
        .filter(|read| read.document.is_none())
        .filter_map(|read| read.value.get("name")?.as_str())
        .collect();
    for found in &mut found {
        found.retain(|problem| {
            problem.code != "unknown-document"
                || !unread.iter().any(|name| problem.message.contains(&quoted(name)))
        });
    }
    duplicates(&reads, &mut found);

    for (read, found) in reads.iter_mut().zip(found) {
        read.problems.extend(found);
    }
    let (mut documents, mut warnings, mut problems) = (Vec::new(), Vec::new(), context.unreadable.to_vec());
    if let Some(built) = context.built_actions {
        warnings.extend(unbuilt::warnings(&reads, built));
    }
    for read in reads {
        match finish(read) {
            Ok(parsed) => {
                warnings.extend(parsed.warnings.iter().cloned());
                documents.push(parsed);
            }
            Err(of_file) => problems.extend(of_file),
        }
    }
    sort(&mut warnings);
    if problems.is_empty() {
        return Ok(ParsedSet { documents, warnings });
    }
    problems.extend(warnings);
    sort(&mut problems);
    Err(problems)
}

/// Two files with the same kind and name.
fn duplicates(reads: &[Read], found: &mut [Vec<Problem>]) {
    let mut seen: BTreeMap<(DocumentKind, &str), &str> = BTreeMap::new();
    for (read, found) in reads.iter().zip(found) {
        let Some(document) = &read.document else { continue };
        if let Some(first) = seen.insert((document.kind(), document.name().as_str()), &read.file) {
            let at = read.places.nearest("name").value;
            let name = quoted(document.name().as_str());
            let message = format!("{} {name} is also in {first}", document.kind());
            let fix = "give one of them another name";
            found.push(Problem::error(&read.file, at, "duplicate-document", message, fix));
        }
    }
}
