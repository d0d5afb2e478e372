//! Finding files: everything a glob matches, or everything below a folder.
//!
//! The part before the first wildcard may go through links inside the root; below it no link is followed, so a
//! tree never leads out of itself and never in circles. Called by tasks.

use std::path::{Path, PathBuf};

use super::files::{FileError, FileKind, FileProblem, Files, Stat};
use super::glob::Glob;

/// More files than this in one tree are refused, before the list of them takes the node's memory
/// (a million entries are some 200 MB).
const MAX_FOUND: usize = 1_000_000;

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As declared; patterns are matched against this.
    pub declared: PathBuf,
    /// Where it lies, without links; what is read or changed.
    pub path: PathBuf,
    /// What it is.
    pub stat: Stat,
}

/// May this base be read through the links in its path? Never when its last part is one: declare what it points to.
/// Above that only links of root or of the agent's own account count, because whoever owns another one would
/// choose what is read.
pub fn check_links(files: &dyn Files, base: &Path) -> Result<(), FileError> {
    let own = rustix::process::geteuid().as_raw();
    let mut at = PathBuf::from("/");
    let mut parts = base.strip_prefix("/").unwrap_or(base).components().peekable();
    while let Some(part) = parts.next() {
        let path = at.join(part);
        let stat = match files.stat(&path) {
            // What is not there leads nowhere; the walk says so.
            Err(error) if error.problem == FileProblem::NotFound => return Ok(()),
            other => other?,
        };
        if stat.kind != FileKind::Link {
            at = path;
        } else if parts.peek().is_none() {
            let why = "it is a link, which is not followed; declare what it points to";
            return Err(FileError::new("read", base, FileProblem::Link, why));
        } else if stat.uid != 0 && stat.uid != own {
            let why = format!("{} is a link of user {}, which is not followed", path.display(), stat.uid);
            return Err(FileError::new("read", base, FileProblem::Link, why));
        } else {
            at = files.canonical(&path)?;
        }
    }
    Ok(())
}

/// Everything that the glob matches, in order of path. Without a wildcard that is the path itself. A base that
/// is not there gives nothing.
pub fn walk(files: &dyn Files, glob: &Glob) -> Result<Vec<Found>, FileError> {
    go(files, &glob.base(), Some(glob))
}

/// A folder and everything below it.
pub fn walk_below(files: &dyn Files, folder: &Path) -> Result<Vec<Found>, FileError> {
    go(files, folder, None)
}

/// What the glob matches and everything in the folders among it; members of folders stand after them.
pub fn walk_trees(files: &dyn Files, glob: &Glob) -> Result<Vec<Found>, FileError> {
    let mut all: Vec<Found> = Vec::new();
    for found in walk(files, glob)? {
        if found.stat.kind == FileKind::Directory {
            all.extend(walk_below(files, &found.declared)?);
        } else {
            all.push(found);
        }
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all.dedup_by(|a, b| a.path == b.path);
    Ok(all)
}

/// What the glob matches below its base; without one everything.
fn go(files: &dyn Files, base: &Path, glob: Option<&Glob>) -> Result<Vec<Found>, FileError> {
    let real = match files.canonical(base) {
        Ok(real) => real,
        Err(error) if error.problem == FileProblem::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let depth = glob.and_then(Glob::depth);
    let is_taken = |declared: &Path| glob.is_none_or(|glob| glob.matches(declared));
    let top = Found { declared: base.to_owned(), path: real.clone(), stat: files.stat(&real)? };
    let mut found = Vec::new();
    // Folders that are still to be listed, with their depth below the base.
    let mut waiting = Vec::new();
    if top.stat.kind == FileKind::Directory && depth != Some(0) {
        waiting.push((top.declared.clone(), top.path.clone(), 0));
    }
    if is_taken(&top.declared) {
        found.push(top);
    }
    while let Some((declared, path, level)) = waiting.pop() {
        let entries = match files.list(&path) {
            // It went between being found and being listed.
            Err(error) if level > 0 && error.problem == FileProblem::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let name = entry.path.file_name().unwrap_or_default();
            let one = Found { declared: declared.join(name), path: entry.path.clone(), stat: entry.stat };
            if one.stat.kind == FileKind::Directory && depth.is_none_or(|most| level + 1 < most) {
                waiting.push((one.declared.clone(), one.path.clone(), level + 1));
            }
            if is_taken(&one.declared) {
                if found.len() == MAX_FOUND {
                    let why = format!("over {MAX_FOUND} files");
                    return Err(FileError::new("walk", base, FileProblem::TooLarge, why));
                }
                found.push(one);
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}
