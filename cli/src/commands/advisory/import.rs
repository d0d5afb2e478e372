//! `fleetctl advisory import`: sends files to the controller, which takes all of them or none.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use fleet_types::view::AdvisoryImport;
use tokio::sync::mpsc;

use crate::client::AdvisoryPiece;
use crate::confirm::{Danger, confirm};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Column, Table, Tone, units};
use crate::session::Session;

/// Bytes of a piece.
const PIECE_BYTES: u64 = 512 * 1024;
/// Pieces that are read ahead.
const AHEAD: usize = 4;
/// Files of one import; the controller takes no more.
const MAX_FILES: usize = 500_000;
/// How deep folders are looked into.
const MAX_DEPTH: usize = 16;
/// What is taken of a folder: a mirror has its notes beside its data.
const ENDINGS: [&str; 5] = ["json", "jsonl", "csv", "zip", "gz"];

/// What goes along with the files.
pub struct Words {
    /// Whose they are.
    pub label: String,
    /// May a source become less than half of what it was?
    pub may_shrink: bool,
}

/// Imports.
pub async fn import(session: &mut Session<'_>, paths: &[PathBuf], words: Words) -> Result<ExitCode, Failure> {
    let (mut files, mut others) = (Vec::new(), 0);
    for path in paths {
        collect(path, 0, &mut files, &mut others)?;
    }
    if files.is_empty() {
        return Err(Failure::usage("there is no file to import")
            .fix(format!("of a folder these are taken: {}", ENDINGS.join(", "))));
    }
    if others > 0 {
        session.say(format!(
            "{} passed over, of other kinds than {}",
            units::count(others, "file"),
            ENDINGS.join(", ")
        ));
    }
    let doing = format!("import advisories of {}", units::count(files.len(), "file"));
    if session.would(&doing)? {
        return Ok(ExitCode::Done);
    }
    let client = session.connect().await?;
    confirm(session, &Danger::Moderate, &doing, &Answer::default()).await?;
    let reason = session.settings.reason.clone().unwrap_or_default();
    let (pieces, stream) = mpsc::channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || send_all(&files, &words, &reason, &pieces));
    let imported = client.import_advisories(stream).await;
    let read = reading.await.map_err(|error| Failure::unexpected("files cannot be read", &error))?;
    // What could not be read here is the cause of what the controller says.
    read?;
    session.print(&answer(&imported?))?;
    Ok(ExitCode::Done)
}

fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>, others: &mut usize) -> Result<(), Failure> {
    let about = if depth == 0 { std::fs::metadata(path) } else { std::fs::symlink_metadata(path) };
    let about = about.map_err(|error| unreadable(path, &error))?;
    if about.is_file() {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if depth > 0 && !ENDINGS.contains(&ending) {
            *others += 1;
        } else if files.len() >= MAX_FILES {
            return Err(Failure::usage(format!("there are more than {MAX_FILES} files")));
        } else {
            files.push(path.to_owned());
        }
    } else if about.is_dir() {
        if depth >= MAX_DEPTH {
            return Err(Failure::usage(format!("{} is {MAX_DEPTH} folders deep", path.display())));
        }
        let entries = std::fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let mut entries: Vec<PathBuf> =
            entries.map_err(|error| unreadable(path, &error))?.iter().map(std::fs::DirEntry::path).collect();
        entries.sort();
        let is_hidden = |path: &PathBuf| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with('.'))
        };
        for entry in entries.iter().filter(|entry| !is_hidden(entry)) {
            collect(entry, depth + 1, files, others)?;
        }
    } else {
        // A link within a folder, a pipe, a device.
        *others += 1;
    }
    Ok(())
}

fn unreadable(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::new(ExitCode::Usage, "unreadable-file", format!("{} cannot be read", path.display()))
        .because(error)
}

/// Reads the files and sends them piece by piece; ends where the controller takes no more.
fn send_all(
    files: &[PathBuf],
    words: &Words,
    reason: &str,
    pieces: &mpsc::Sender<AdvisoryPiece>,
) -> Result<(), Failure> {
    let mut is_first = true;
    for path in files {
        let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let mut begins = true;
        loop {
            let mut data = Vec::new();
            let read = (&mut file).take(PIECE_BYTES).read_to_end(&mut data);
            read.map_err(|error| unreadable(path, &error))?;
            if data.is_empty() && !begins {
                break;
            }
            let first = std::mem::take(&mut is_first);
            let piece = AdvisoryPiece {
                file: path.display().to_string(),
                begins,
                data,
                label: if first { words.label.clone() } else { String::new() },
                may_shrink: first && words.may_shrink,
                reason: if first { reason.to_owned() } else { String::new() },
            };
            begins = false;
            if pieces.blocking_send(piece).is_err() {
                return Ok(());
            }
        }
    }
    // The end of what is to be imported: a stream that is cut off has none.
    let _ = pieces.blocking_send(AdvisoryPiece::default());
    Ok(())
}

fn answer(imported: &AdvisoryImport) -> Answer {
    let mut sources =
        Table::new(&[Column::whole("SOURCE"), Column::number("ENTRIES"), Column::number("BEFORE")]);
    for source in &imported.sources {
        sources.row([
            source.name.as_str().into(),
            source.entries.to_string().into(),
            source.before.map_or_else(|| "new".to_owned(), |before| before.to_string()).into(),
        ]);
    }
    let head = format!("imported {}", units::count(usize::try_from(imported.files).unwrap_or(0), "file"));
    let answer = Answer::of(imported)
        .names(imported.sources.iter().map(|source| source.name.clone()))
        .line(head)
        .table(sources, "nothing in them was of use");
    if imported.skipped.is_empty() {
        return answer;
    }
    let mut skipped = Table::new(&[
        Column::number("TIMES"),
        Column::text("NOT USED, BECAUSE"),
        Column::text("FIRST IN"),
        Column::text("AT").wide(),
    ]);
    for one in &imported.skipped {
        skipped.row([
            one.count.to_string().into(),
            one.reason.as_str().into(),
            one.file.as_str().into(),
            one.place.as_str().into(),
        ]);
    }
    answer
        .block(Block::Gap)
        .block(Block::Toned(Tone::Warn, "NOT USED".to_owned()))
        .block(Block::Table(skipped))
}
