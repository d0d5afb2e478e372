//! What tasks remember from one job to the next: the last counters of interfaces, recent restarts, what was tuned.
//!
//! Small named texts below the node's state folder, replaced atomically. They are of this node about itself: losing them
//! costs a rate, a pause, or what a later `tuning.revert` would put back; a job's own way back is in the journal. Called
//! by tasks.

use std::path::{Path, PathBuf};

/// Largest note. Counters of 4,096 interfaces fit.
const MAX_NOTE_BYTES: usize = 1024 * 1024;

/// A note could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// The name is no plain file name.
    #[error("\"{0}\" is no name of a note")]
    Name(String),
    /// Too large.
    #[error("note {0} is over {MAX_NOTE_BYTES} bytes")]
    TooLarge(String),
    /// The system refused.
    #[error("note {name}: {why}")]
    Io {
        /// Which.
        name: String,
        /// The system's words.
        why: String,
    },
}

/// Named notes.
pub trait Notes: Send + Sync {
    /// The note of this name, if there is one.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, NoteError>;

    /// Replaces the note of this name; durable when it returns.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), NoteError>;
}

/// Notes as files of one folder.
#[derive(Debug, Clone)]
pub struct FolderNotes {
    folder: PathBuf,
}

impl FolderNotes {
    /// Notes in this folder, which is made at the first write.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn path(&self, name: &str) -> Result<PathBuf, NoteError> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 128 || name.starts_with('.') || !name.bytes().all(good) {
            return Err(NoteError::Name(name.chars().take(64).collect()));
        }
        Ok(self.folder.join(name))
    }
}

impl Notes for FolderNotes {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, NoteError> {
        match std::fs::read(self.path(name)?) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(NoteError::Io { name: name.to_owned(), why: error.to_string() }),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), NoteError> {
        let path = self.path(name)?;
        if bytes.len() > MAX_NOTE_BYTES {
            return Err(NoteError::TooLarge(name.to_owned()));
        }
        std::fs::create_dir_all(&self.folder)
            .and_then(|()| super::record::write_durably(&path, bytes))
            .map_err(|error| NoteError::Io { name: name.to_owned(), why: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_survive_and_names_cannot_leave_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let notes = FolderNotes::new(&folder.path().join("notes"));
        assert!(notes.read("a").unwrap().is_none());
        notes.write("a", b"1").unwrap();
        notes.write("a", b"2").unwrap();
        assert_eq!(FolderNotes::new(&folder.path().join("notes")).read("a").unwrap().unwrap(), b"2");
        for bad in ["", "../x", "a/b", ".hidden", "a b"] {
            assert!(matches!(notes.write(bad, b""), Err(NoteError::Name(_))), "{bad}");
        }
    }
}
