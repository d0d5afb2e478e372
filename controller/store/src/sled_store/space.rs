//! How much room the file system has.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// Free bytes for unprivileged users on the file system of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The floors below which the store does not write, judged once for each group: one system call of about a
/// microsecond beside syncs of a hundred and more.
pub(crate) struct SpaceFloor {
    pub(crate) path: PathBuf,
    pub(crate) floor_bytes: u64,
    pub(crate) reserve_floor_bytes: u64,
}

impl SpaceFloor {
    /// Refuses when `free` is below the floor that counts for the batch.
    pub(crate) fn check(&self, free_bytes: u64, from_reserve: bool) -> Result<(), StoreError> {
        let floor_bytes = if from_reserve { self.reserve_floor_bytes } else { self.floor_bytes };
        if free_bytes >= floor_bytes {
            return Ok(());
        }
        Err(StoreError::Full { path: self.path.clone(), free_bytes, floor_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_for_those_who_may_use_it() {
        let floor = SpaceFloor { path: "/store".into(), floor_bytes: 100, reserve_floor_bytes: 10 };
        assert_eq!(floor.check(100, false), Ok(()));
        let refused = StoreError::Full { path: "/store".into(), free_bytes: 99, floor_bytes: 100 };
        assert_eq!(floor.check(99, false), Err(refused));
        assert_eq!(floor.check(99, true), Ok(()));
        assert!(floor.check(9, true).is_err());
    }

    #[test]
    fn free_space_is_read_and_a_missing_path_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_bytes(dir.path()).unwrap() > 0);
        assert!(free_bytes(&dir.path().join("none")).is_err());
    }
}
