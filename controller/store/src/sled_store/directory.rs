//! The files of the store's directory beside sled's own.
//!
//! `store.created` says that this directory holds a store: without it a lost or emptied `db` would look like a new
//! one. `store.unclean` is there from before sled is opened until it was closed well. Only `opening` and `store` use
//! this.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::failure::name_io_error;
use crate::error::StoreError;

/// sled's data file.
pub(crate) const SLED_DATA_FILE: &str = "db";
const CREATED_FILE: &str = "store.created";
const UNCLEAN_FILE: &str = "store.unclean";
/// sled's snapshots begin like this; one that is being written ends like that until it is whole and renamed.
const SNAPSHOT_START: &str = "snap.";
const HALF_SNAPSHOT_END: &str = ".generating";

/// The store's directory.
#[derive(Clone)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
}

impl Directory {
    /// Makes the directory when it is missing, readable by its owner alone.
    pub(crate) fn prepare(path: &Path) -> Result<Self, StoreError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| name_io_error(path, &error))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Whether a store was made here.
    pub(crate) fn is_created(&self) -> bool {
        self.path.join(CREATED_FILE).exists()
    }

    /// Notes that a store was made here, after it is durable.
    pub(crate) fn note_created(&self) -> Result<(), StoreError> {
        self.make_file(CREATED_FILE)
    }

    /// Whether the last process did not close the store.
    pub(crate) fn is_unclean(&self) -> bool {
        self.path.join(UNCLEAN_FILE).exists()
    }

    /// Notes that the store is in use.
    pub(crate) fn note_unclean(&self) -> Result<(), StoreError> {
        self.make_file(UNCLEAN_FILE)
    }

    /// Notes that the store was closed well.
    pub(crate) fn note_clean(&self) -> Result<(), StoreError> {
        let removed = match fs::remove_file(self.path.join(UNCLEAN_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        self.named(removed.and_then(|()| self.sync()))
    }

    /// A handle of sled's data file, to sync it ourselves: sled's flush ends in `sync_file_range`, which flushes
    /// neither metadata nor the drive's cache (security-and-delivery §4.1).
    pub(crate) fn open_data_file(&self) -> Result<File, StoreError> {
        self.named(File::open(self.path.join(SLED_DATA_FILE)))
    }

    /// Whether sled's data file is there.
    pub(crate) fn has_data_file(&self) -> bool {
        self.path.join(SLED_DATA_FILE).exists()
    }

    /// Removes a snapshot that sled began and did not finish, because it was killed or the disk was full: sled 0.34
    /// takes it for the newest whole one at its next start and calls the store damaged. The snapshot before it is
    /// there until the new one is whole. What a running process writes is left alone.
    pub(crate) fn remove_half_snapshots(&self) -> Result<(), StoreError> {
        if !self.has_data_file() {
            return Ok(());
        }
        // The lock that sled takes, too; held until the end of this function. Who holds it is told by sled.
        let data_file = self.open_data_file()?;
        if data_file.try_lock().is_err() {
            return Ok(());
        }
        for entry in self.named(fs::read_dir(&self.path))? {
            let name = self.named(entry)?.file_name();
            let is_half = name
                .to_str()
                .is_some_and(|name| name.starts_with(SNAPSHOT_START) && name.ends_with(HALF_SNAPSHOT_END));
            if is_half {
                tracing::warn!(file = %name.display(), "a snapshot that was not finished is removed");
                self.named(fs::remove_file(self.path.join(name)))?;
            }
        }
        Ok(())
    }

    fn make_file(&self, name: &str) -> Result<(), StoreError> {
        let made = File::create(self.path.join(name)).and_then(|file| file.sync_all());
        self.named(made.and_then(|()| self.sync()))
    }

    /// Makes the names in the directory durable.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn named<T>(&self, result: io::Result<T>) -> Result<T, StoreError> {
        result.map_err(|error| name_io_error(&self.path, &error))
    }
}
