//! Putting a restored set of files in place so that it can be taken back at any instant.
//!
//! Beside each source lies a hidden folder of the job. What is restored is unpacked into it first, under numbers; what was there is
//! moved into it before the new takes its place; both are renames on one file system. The list of moves is written down before the
//! first of them, so that a later life of the agent goes on with it, or takes it back, by looking at what lies where. It must never copy
//! over a file in place. Called by `backup.restore`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use fleet_types::digest::{Digest, Hasher};
use serde::{Deserialize, Serialize};

use super::archive_error::ArchiveError;
use super::deadline::Deadline;
use crate::host::{Dress, FileError, FileKind, FileProblem, Files, Stat, read_all, walk_below, write_atomic};

/// Begins the name of every such folder.
pub(super) const STAGE: &str = ".fleet-restore-";
/// The list of moves, in the first of the folders.
const MOVES: &str = "moves.json";
/// Largest list: half a million paths.
const MAX_MOVES_BYTES: u64 = 256 * 1024 * 1024;

/// What becomes of one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Move {
    /// The unpacked file takes its place; what is there is set aside.
    Put,
    /// What is there is set aside.
    Remove,
    /// A folder is there with this dress; `was` is what it had, none where there was none.
    Folder {
        /// What it is to have.
        dress: Dress,
        /// What it had.
        was: Option<Dress>,
    },
    /// A folder that is empty by then goes.
    RemoveFolder {
        /// What it had.
        was: Dress,
    },
}

/// One path, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step {
    /// The path, without links.
    pub(super) path: PathBuf,
    /// The hidden folder on its file system.
    pub(super) stage: PathBuf,
    /// Its number there.
    pub(super) number: usize,
    /// What becomes of it.
    pub(super) change: Move,
    /// Digest of the new content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<Digest>,
}

impl Step {
    /// Where the new content lies until it is in place.
    pub(super) fn new_file(&self) -> PathBuf {
        self.stage.join(format!("new-{}", self.number))
    }

    /// Where the former content lies from then on.
    fn old_file(&self) -> PathBuf {
        self.stage.join(format!("old-{}", self.number))
    }
}

fn is_there(files: &dyn Files, path: &Path) -> Result<Option<Stat>, FileError> {
    match files.stat(path) {
        // Below what is a file now there is nothing.
        Err(error) if matches!(error.problem, FileProblem::NotFound | FileProblem::WrongKind) => Ok(None),
        other => other.map(Some),
    }
}

/// What a file or folder has beside its content.
pub(super) fn dress_of(files: &dyn Files, path: &Path, stat: &Stat) -> Result<Dress, FileError> {
    Ok(Dress {
        uid: stat.uid,
        gid: stat.gid,
        mode: stat.mode,
        modified_seconds: stat.modified_seconds,
        attributes: files.attributes(path)?,
    })
}

/// Digest of a file's content.
pub(super) fn digest(files: &dyn Files, path: &Path, deadline: Deadline<'_>) -> Result<Digest, ArchiveError> {
    let mut file = files.open(path)?;
    let mut hasher = Hasher::new();
    let mut chunk = vec![0; 256 * 1024];
    loop {
        deadline.check()?;
        match file.read(&mut chunk).map_err(|e| FileError::of("read", path, &e))? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&chunk[..count]),
        }
    }
}

/// Writes the moves down. From here on they are carried out, or taken back.
pub(super) fn write_moves(files: &dyn Files, first: &Path, steps: &[Step]) -> Result<(), ArchiveError> {
    let bytes = serde_json::to_vec(steps).map_err(|e| ArchiveError::Write(e.into()))?;
    Ok(write_atomic(files, &first.join(MOVES), &bytes, 0o600)?)
}

/// The moves that were written down; none where it did not come so far.
pub(super) fn read_moves(files: &dyn Files, first: &Path) -> Result<Option<Vec<Step>>, ArchiveError> {
    let path = first.join(MOVES);
    let bytes = match read_all(files, &path, MAX_MOVES_BYTES) {
        Err(error) if error.problem == FileProblem::NotFound => return Ok(None),
        other => other?,
    };
    let why = |e: serde_json::Error| ArchiveError::Damaged { path, why: e.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(why)
}

/// Carries the moves out; what was done of them before is passed over.
pub(super) fn carry_out(files: &dyn Files, steps: &[Step]) -> Result<(), FileError> {
    for step in steps {
        match &step.change {
            Move::Put if is_there(files, &step.new_file())?.is_some() => {
                set_aside(files, step)?;
                // Of a file that is a source itself the folder may be gone, and is in no archive.
                files.make_directories(step.path.parent().unwrap_or(Path::new("/")), 0o755)?;
                files.rename(&step.new_file(), &step.path)?;
                sync(files, step)?;
            }
            Move::Put => {}
            Move::Remove => {
                set_aside(files, step)?;
                sync(files, step)?;
            }
            Move::Folder { dress, .. } => {
                files.make_directories(&step.path, 0o700)?;
                files.dress(&step.path, dress)?;
            }
            Move::RemoveFolder { .. } => unless_gone(files.remove_directory(&step.path))?,
        }
    }
    Ok(())
}

fn set_aside(files: &dyn Files, step: &Step) -> Result<(), FileError> {
    let (old, path) = (step.old_file(), &step.path);
    if is_there(files, &old)?.is_none() && is_there(files, path)?.is_some() {
        files.rename(path, &old)?;
    }
    Ok(())
}

fn sync(files: &dyn Files, step: &Step) -> Result<(), FileError> {
    // A folder that went meanwhile, or never came to be, has nothing to keep.
    unless_gone(files.sync_directory(step.path.parent().unwrap_or(Path::new("/"))))?;
    files.sync_directory(&step.stage)
}

fn unless_gone(result: Result<(), FileError>) -> Result<(), FileError> {
    match result {
        Err(error) if matches!(error.problem, FileProblem::NotFound | FileProblem::NotEmpty) => Ok(()),
        other => other,
    }
}

/// Takes the moves back, the last first; how far they had come is seen from what lies where. Twice is as good as once.
pub(super) fn take_back(files: &dyn Files, steps: &[Step]) -> Result<(), FileError> {
    for step in steps.iter().rev() {
        match &step.change {
            Move::Put | Move::Remove => {
                let is_put = step.change == Move::Put;
                // The new content goes back to where it was unpacked, so that nothing is lost by a wrong way back.
                if is_put
                    && is_there(files, &step.new_file())?.is_none()
                    && is_there(files, &step.path)?.is_some()
                {
                    files.rename(&step.path, &step.new_file())?;
                }
                if is_there(files, &step.old_file())?.is_some() {
                    files.rename(&step.old_file(), &step.path)?;
                }
                sync(files, step)?;
            }
            Move::Folder { was: None, .. } => unless_gone(files.remove_directory(&step.path))?,
            Move::Folder { was: Some(was), .. } | Move::RemoveFolder { was } => {
                files.make_directories(&step.path, 0o700)?;
                files.dress(&step.path, was)?;
            }
        }
    }
    Ok(())
}

/// Is everything as the moves leave it?
pub(super) fn check(files: &dyn Files, steps: &[Step], deadline: Deadline<'_>) -> Result<(), ArchiveError> {
    for step in steps {
        let wrong = |why: &str| ArchiveError::Damaged { path: step.path.clone(), why: why.to_owned() };
        match (&step.change, &step.sha256) {
            (Move::Put, Some(sha256)) if digest(files, &step.path, deadline)? != *sha256 => {
                return Err(wrong("what was restored does not read back as it was archived"));
            }
            (Move::Remove, _) if is_there(files, &step.path)?.is_some() => {
                return Err(wrong("it is there again"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes a hidden folder with what is in it; none is as good.
pub(super) fn remove(files: &dyn Files, stage: &Path) -> Result<(), FileError> {
    let Some(stat) = is_there(files, stage)? else { return Ok(()) };
    if stat.kind != FileKind::Directory {
        return files.remove_file(stage);
    }
    // The list goes first: what is gone of the rest would be taken for moves that were made.
    let moves = stage.join(MOVES);
    if is_there(files, &moves)?.is_some() {
        files.remove_file(&moves)?;
        files.sync_directory(stage)?;
    }
    // The folder itself stands first.
    for found in walk_below(files, stage)?.into_iter().rev() {
        match found.stat.kind {
            FileKind::Directory => files.remove_directory(&found.path)?,
            _ => files.remove_file(&found.path)?,
        }
    }
    Ok(())
}
