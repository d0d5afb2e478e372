//! Files that survive a crash: written whole and atomically, and the reserve that keeps room for reports.
//!
//! It must never leave half a file under a final name, nor return before the disk has the bytes. Called by
//! the journal, the small state, the document store and the report store.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::retention::{Bounds, RESERVE_AGAIN_FROM_BYTES};

/// Room kept for reports and journal entries on a full disk (security-and-delivery §2.5).
pub const RESERVE_BYTES: u64 = 8 * 1024 * 1024;

/// Makes a directory that root alone may enter, with its parents.
pub fn make_private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes the directory's entries durable.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Replaces `path` by a file with these bytes, mode 0600: temporary file, fsync, rename, fsync directory.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other("the path has no directory"))?;
    let name = path.file_name().and_then(|n| n.to_str()).ok_or_else(|| io::Error::other("no file name"))?;
    let temporary = directory.join(format!(".{name}.new"));
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_directory(directory)
    })();
    if written.is_err() {
        // A half-written temporary file only takes room; that it may be gone already is no error.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Reads a file if it is there.
pub fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Free bytes of the disk that `path` lies on; none when that cannot be read.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Removes the oldest files of `directory` beyond `bounds`; those that are `needed` are kept and not counted.
pub fn keep_newest(directory: &Path, bounds: Bounds, needed: impl Fn(&str) -> bool) -> io::Result<()> {
    let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(&needed) {
            let about = entry.metadata()?;
            files.push((about.modified()?, about.len(), entry.path()));
        }
    }
    files.sort_unstable();
    let mut kept = 0;
    for (count, (_, length, path)) in files.iter().rev().enumerate() {
        kept += length;
        if count >= bounds.files || kept > bounds.bytes {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// A file of real blocks that is given up when the disk is full.
#[derive(Debug, Clone)]
pub struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// Lays the reserve down in `directory`; where there is no room for it now, it is made when there is.
    pub fn keep(directory: &Path) -> Self {
        let reserve = Self { path: directory.join("reserve") };
        if let Err(error) = reserve.fill() {
            tracing::warn!(%error, "the disk has no room for the reserve that keeps reports writable");
            let _ = fs::remove_file(&reserve.path);
        }
        reserve
    }

    fn fill(&self) -> io::Result<()> {
        if fs::metadata(&self.path).is_ok_and(|m| m.len() == RESERVE_BYTES) {
            return Ok(());
        }
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.path)?;
        // Written, not only allocated in name: sparse blocks would reserve nothing.
        let block = vec![0x5a_u8; 64 * 1024];
        for _ in 0..RESERVE_BYTES / block.len() as u64 {
            file.write_all(&block)?;
        }
        file.sync_all()
    }

    /// Makes the reserve again once the disk has room for more than that.
    pub fn make_again(&self) {
        let disk = self.path.parent().and_then(free_bytes);
        let has_room = disk.is_some_and(|free| free >= RESERVE_AGAIN_FROM_BYTES);
        if !self.is_held() && has_room {
            match self.fill() {
                Ok(()) => tracing::info!("there is room again: the reserve for reports is made anew"),
                Err(error) => {
                    tracing::warn!(%error, "the reserve for reports cannot be made anew");
                    let _ = fs::remove_file(&self.path);
                }
            }
        }
    }

    /// Is the reserve there?
    pub fn is_held(&self) -> bool {
        self.path.exists()
    }

    /// Does `work`; when the disk is full, gives the reserve up and does it once more.
    pub fn with_room<T>(&self, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match work() {
            Err(error) if is_full(&error) && self.is_held() => {
                tracing::warn!("the disk is full: the reserve is given up so that reports can be written");
                fs::remove_file(&self.path)?;
                work()
            }
            other => other,
        }
    }
}

/// No room or over quota.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_full_disk_costs_the_reserve_once() {
        let directory = tempfile::tempdir().unwrap();
        let reserve = Reserve::keep(directory.path());
        assert_eq!(fs::metadata(directory.path().join("reserve")).unwrap().len(), RESERVE_BYTES);
        let calls = Cell::new(0);
        let work = || {
            calls.set(calls.get() + 1);
            if reserve.is_held() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(7) }
        };
        assert_eq!(reserve.with_room(work).unwrap(), 7);
        assert_eq!(calls.get(), 2);
        let full = || -> io::Result<()> { Err(io::ErrorKind::StorageFull.into()) };
        assert!(reserve.with_room(full).is_err());
        assert!(!reserve.is_held());
        reserve.make_again();
        assert_eq!(fs::metadata(directory.path().join("reserve")).unwrap().len(), RESERVE_BYTES);
    }

    #[test]
    fn the_newest_files_are_kept_within_both_bounds() {
        let directory = tempfile::tempdir().unwrap();
        let left = |bounds| {
            for (number, name) in ["needed", "a", "b", "c", "d"].iter().enumerate() {
                let path = directory.path().join(name);
                fs::write(&path, [0; 100]).unwrap();
                let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number as u64);
                File::options().append(true).open(&path).unwrap().set_modified(at).unwrap();
            }
            keep_newest(directory.path(), bounds, |name| name == "needed").unwrap();
            let mut names: Vec<_> =
                fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(left(Bounds { files: 2, bytes: 1000 }), ["c", "d", "needed"]);
        assert_eq!(left(Bounds { files: 9, bytes: 350 }), ["b", "c", "d", "needed"]);
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(read_if_there(&path).unwrap().unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(read_if_there(&directory.path().join("none")).unwrap(), None);
    }
}
