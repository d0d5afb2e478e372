//! `fleetctl config fmt`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use fleet_documents::MAX_FILE_BYTES;
use serde::Serialize;

use super::layout::laid_out;
use crate::commands::files::{self, TextFile};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, units};
use crate::session::Session;

#[derive(Serialize)]
struct Formatted<'a> {
    files: usize,
    written: bool,
    /// Files that were not laid out.
    items: Vec<&'a str>,
}

/// Lays files out; asks nobody. With `check` it only says which are not, with exit code 20.
pub fn format(session: &mut Session<'_>, paths: &[PathBuf], check: bool) -> Result<ExitCode, Failure> {
    let texts = files::read(paths)?;
    let mut changed = Vec::new();
    // All are read before the first is written.
    for file in &texts {
        let new = new_text(file)?;
        if new != file.text {
            changed.push((file.name.as_str(), new));
        }
    }
    let written = !check;
    if written {
        for (name, text) in &changed {
            write(Path::new(name), text).map_err(|error| {
                Failure::new(ExitCode::Unexpected, "unwritable-file", format!("{name} cannot be written"))
                    .because(&error)
            })?;
        }
    }
    let items: Vec<&str> = changed.iter().map(|(name, _)| *name).collect();
    let word = if written { "laid out anew" } else { "to be laid out anew" };
    let summary = format!("{} of {} {word}", items.len(), units::count(texts.len(), "file"));
    let names = items.iter().map(|name| (*name).to_owned());
    let answer =
        Answer::local("fleet/v1/format", &Formatted { files: texts.len(), written, items: items.clone() });
    let answer = items.iter().fold(answer.names(names), |answer, name| answer.line(*name));
    session.print(&answer.line(summary))?;
    Ok(if check && !changed.is_empty() { ExitCode::Differences } else { ExitCode::Done })
}

fn new_text(file: &TextFile) -> Result<String, Failure> {
    let nothing =
        |what| Failure::new(ExitCode::Usage, "config-invalid", format!("{what}; no file was written"));
    if let Some(problem) = &file.unreadable {
        return Err(nothing(format!("{} is no text", file.name)).cause(problem.to_string()));
    }
    if file.text.len() > MAX_FILE_BYTES {
        return Err(nothing(format!("{} is over {MAX_FILE_BYTES} bytes", file.name)));
    }
    laid_out(&file.text).map_err(|why| {
        nothing(format!("{} cannot be laid out", file.name)).cause(format!("{}:{why}", file.name))
    })
}

/// Puts a new file in the place of the old one, with its permissions; whoever reads sees one of them whole.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    // What a link points to is written, not the link.
    let path = path.canonicalize()?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().prefix(".fmt-").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(std::fs::metadata(&path)?.permissions())?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    Ok(())
}
