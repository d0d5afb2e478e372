//! How many groups are durable, noted outside sled.
//!
//! sled answers damage in its log by going back to the state before it, without a word: a truncated or damaged file
//! opens and lacks its last commits (security-and-delivery §4.4). So every group carries its number, in sled under a
//! key of its own, and after the group is durable in the file `store.mark`. A store that opens with a lower number
//! than the mark has lost commits that were acknowledged, and is refused.
//!
//! The mark is not synced with each group, which would double the cost of a commit: a kill of the process cannot take
//! it back, and a loss of power leaves at worst an older mark, which refuses nothing that is right. It is synced when
//! the store is closed. A store with content and without the file is refused, too: it is a copy of parts. An empty file
//! made by hand accepts that commits are lost.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MARK_FILE: &str = "store.mark";
const MARK_BYTES: usize = 8 + 4;

/// Is the file missing?
pub(crate) fn is_missing(directory: &Path) -> bool {
    !directory.join(MARK_FILE).exists()
}

/// The open mark file.
pub(crate) struct GroupMark {
    file: File,
}

impl GroupMark {
    /// Opens the file, or makes it.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        Ok(Self { file: options.open(directory.join(MARK_FILE))? })
    }

    /// The number of the last group that was durable; 0 when there is none or when power was lost while it was
    /// written, which its checksum shows.
    pub(crate) fn read(&self) -> io::Result<u64> {
        let mut bytes = [0; MARK_BYTES];
        match self.file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            other => other?,
        }
        let number: [u8; 8] = std::array::from_fn(|at| bytes[at]);
        let is_whole = bytes[8..] == crc32c::crc32c(&number).to_be_bytes();
        if !is_whole {
            tracing::warn!(
                "the mark of the last durable group cannot be read; lost commits would not be noticed"
            );
        }
        Ok(if is_whole { u64::from_be_bytes(number) } else { 0 })
    }

    /// Notes that a group is durable.
    pub(crate) fn write(&self, group: u64) -> io::Result<()> {
        let number = group.to_be_bytes();
        let mut bytes = [0; MARK_BYTES];
        bytes[..8].copy_from_slice(&number);
        bytes[8..].copy_from_slice(&crc32c::crc32c(&number).to_be_bytes());
        self.file.write_all_at(&bytes, 0)
    }

    /// Makes the mark itself durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_kept_and_a_torn_one_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(GroupMark::open(dir.path()).unwrap().read().unwrap(), 0);
        GroupMark::open(dir.path()).unwrap().write(1 << 40).unwrap();
        let mark = GroupMark::open(dir.path()).unwrap();
        assert_eq!(mark.read().unwrap(), 1 << 40);
        mark.file.write_all_at(&[9], 3).unwrap();
        assert_eq!(mark.read().unwrap(), 0);
    }
}
