//! A disk of a few megabytes that a story fills and empties: a tmpfs of its own, unmounted at the end.
//!
//! Mounting wants root. Where it is not permitted the story says so loudly and checks nothing; the smaller tests
//! of a scripted full disk still run there.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

/// One mebibyte.
pub const MIB: u64 = 1024 * 1024;
/// Written at once while it is filled.
static BLOCK: [u8; 64 * 1024] = [0x5a; 64 * 1024];

/// A small file system.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts one of so many mebibytes; `None`, with a line on standard error, where that is not permitted.
    pub fn mount(story: &str, mib: u64) -> Result<Option<Self>> {
        let folder = tempfile::Builder::new().prefix("fleet-disk-").tempdir()?;
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700"), "fleet-tests"])
            .arg(folder.path())
            .output();
        match output {
            Ok(output) if output.status.success() => Ok(Some(Self { folder })),
            other => {
                eprintln!("NOT CHECKED: {story}; mounting a tmpfs is not permitted here: {other:?}");
                Ok(None)
            }
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Bytes that are free.
    pub fn free(&self) -> Result<u64> {
        let found = rustix::fs::statvfs(self.path())?;
        Ok(found.f_bavail * found.f_frsize)
    }

    /// Fills it until at most `left` bytes are free; what was filled before stays filled.
    pub fn fill(&self, left: u64) -> Result<()> {
        let mut filler = File::options().create(true).append(true).open(self.filler())?;
        loop {
            let free = self.free()?;
            if free <= left {
                break;
            }
            let size = usize::try_from(free - left).unwrap_or(usize::MAX).min(BLOCK.len());
            match filler.write(&BLOCK[..size]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => bail!("the disk cannot be filled: {error}"),
            }
        }
        let free = self.free()?;
        ensure!(free <= left, "{free} bytes are free after filling");
        Ok(())
    }

    /// Frees what was filled.
    pub fn clear(&self) -> Result<()> {
        std::fs::remove_file(self.filler()).context("the disk was not filled")
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: of a story that failed something may still run on it.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.path().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_full_takes_nothing_and_what_was_cleared_takes_it_again() {
        let Some(disk) = SmallDisk::mount("a small disk", 2).unwrap() else { return };
        let file = disk.path().join("file");
        disk.fill(MIB).unwrap();
        assert!(disk.free().unwrap() > MIB / 2);
        std::fs::write(&file, BLOCK).unwrap();
        disk.fill(0).unwrap();
        let error = std::fs::write(disk.path().join("other"), BLOCK).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        disk.clear().unwrap();
        std::fs::write(&file, BLOCK).unwrap();
        let path = disk.path().to_owned();
        drop(disk);
        assert!(!path.exists(), "unmounted and gone");
    }
}
