//! Joining anew: the state of the node that this machine was is set aside, so that the new one starts clean.
//!
//! Nothing of an old identity fits a new one: not its journal, reports, fence or report key. Order on disk: the new key
//! apart, then (once the controller has answered) a mark, the old state moved aside, the new key put in place, and when
//! the identity is in place the mark is removed. The same command goes on from any crash; while the mark stands no
//! executor starts. What was set aside is kept until the next replacement. Called by `fleet-agent enrol --replace`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fleet_types::seal::SigningKey;

use crate::durable;
use crate::journal::{JournalError, JournalLock};
use crate::state::{self, REPORT_KEY, StateError};

/// What an executor keeps of its node beside the report key; trust and the node's record are written anew.
const STATE: [&str; 11] = [
    "journal",
    "journal.numbers",
    "journal.damage",
    "journal.damaged",
    "state.json",
    "history",
    "running.json",
    "reports",
    "documents",
    "runs",
    "notes",
];
/// Where the new key waits.
const NEXT: &str = "next";
/// Where the old state goes.
const ASIDE: &str = "replaced";
/// Stands while the state is neither the old nor the new one.
const MARK: &str = "replacing";

/// The state cannot be replaced.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// An agent uses it.
    #[error(
        "an agent runs on {0}: stop it first (systemctl stop fleet-agent), then give the same command again"
    )]
    Runs(String),
    /// Its lock cannot be had.
    #[error("the executor's state cannot be locked")]
    Lock(#[source] JournalError),
    /// The report key cannot be made.
    #[error("the new report key cannot be made")]
    Key(#[source] StateError),
    /// The file system refused.
    #[error("the state in {path} cannot be set aside")]
    Io {
        /// The state directory.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A replacement under way; no executor starts meanwhile.
#[derive(Debug)]
pub struct Replacement {
    directory: PathBuf,
    _lock: JournalLock,
}

/// Was a replacement begun and not ended? Then there is no state to start on.
pub fn is_interrupted(directory: &Path) -> bool {
    directory.join(MARK).exists()
}

impl Replacement {
    /// Takes hold of the state and gives the new node's report key: the same one until the replacement is done,
    /// because the controller binds the token to it.
    pub fn begin(directory: &Path) -> Result<(Self, SigningKey), ReplaceError> {
        let shown = directory.display().to_string();
        durable::make_private_directory(directory)
            .map_err(|source| ReplaceError::Io { path: shown.clone(), source })?;
        let lock = JournalLock::hold(directory).map_err(|error| match error {
            JournalError::Held(_) => ReplaceError::Runs(shown),
            other => ReplaceError::Lock(other),
        })?;
        let replacement = Self { directory: directory.to_owned(), _lock: lock };
        let next = directory.join(NEXT);
        let is_in_place = is_interrupted(directory) && !next.join(REPORT_KEY).exists();
        let key = state::report_key(if is_in_place { directory } else { &next });
        Ok((replacement, key.map_err(ReplaceError::Key)?))
    }

    /// Moves the old state aside and puts the new key in its place.
    pub fn set_aside(&self) -> Result<(), ReplaceError> {
        self.moved().map_err(|source| self.failed(source))
    }

    fn moved(&self) -> io::Result<()> {
        let (directory, aside) = (&self.directory, self.directory.join(ASIDE));
        if !is_interrupted(directory) {
            unless_missing(fs::remove_dir_all(&aside))?;
            durable::write_atomically(&directory.join(MARK), b"fleet/v1/replacing\n")?;
        }
        durable::make_private_directory(&aside)?;
        for name in STATE {
            unless_missing(fs::rename(directory.join(name), aside.join(name)))?;
        }
        let next = directory.join(NEXT).join(REPORT_KEY);
        if next.exists() {
            unless_missing(fs::rename(directory.join(REPORT_KEY), aside.join(REPORT_KEY)))?;
            fs::rename(next, directory.join(REPORT_KEY))?;
        }
        durable::sync_directory(&aside)?;
        durable::sync_directory(directory)
    }

    /// The new identity is in place: executors may start.
    pub fn done(self) -> Result<(), ReplaceError> {
        let unmarked = || {
            unless_missing(fs::remove_dir_all(self.directory.join(NEXT)))?;
            unless_missing(fs::remove_file(self.directory.join(MARK)))?;
            durable::sync_directory(&self.directory)
        };
        unmarked().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> ReplaceError {
        ReplaceError::Io { path: self.directory.display().to_string(), source }
    }
}

/// What is not there need not be moved.
fn unless_missing(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::damage;

    #[test]
    fn the_new_node_starts_clean_with_one_key_whatever_was_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path();
        let old = state::report_key(directory).unwrap().public();
        for name in ["journal", "state.json"] {
            fs::write(directory.join(name), "old").unwrap();
        }
        damage::begin_history(directory).unwrap();
        // The answer of the controller is lost: nothing has changed, and the key stays the same.
        let (lost, key) = Replacement::begin(directory).unwrap();
        drop(lost);
        let new = key.public();
        assert!(new != old && !is_interrupted(directory) && directory.join("journal").exists());
        for _ in 0..2 {
            // A crash before the identity is in place.
            let (replacement, key) = Replacement::begin(directory).unwrap();
            assert_eq!(key.public(), new);
            replacement.set_aside().unwrap();
            assert!(is_interrupted(directory) && !damage::has_history(directory));
            assert_eq!(state::report_key(directory).unwrap().public(), new);
        }
        let (replacement, _) = Replacement::begin(directory).unwrap();
        replacement.set_aside().unwrap();
        replacement.done().unwrap();
        assert!(!is_interrupted(directory) && !directory.join("journal").exists());
        assert_eq!(fs::read(directory.join("replaced/journal")).unwrap(), b"old");
        assert_eq!(state::report_key(&directory.join("replaced")).unwrap().public(), old);
    }

    #[test]
    fn not_while_an_agent_runs() {
        let folder = tempfile::tempdir().unwrap();
        let _agent = JournalLock::hold(folder.path()).unwrap();
        assert!(matches!(Replacement::begin(folder.path()), Err(ReplaceError::Runs(_))));
    }
}
