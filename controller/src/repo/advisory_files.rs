//! Imported advisories, in files beside the store: one a source, by the digest of what it holds; and the one import that is
//! on its way.
//!
//! They do not fit into the store, whose objects end at 896 KiB: that of Debian has 400 MiB. A file is whole and durable before
//! a record names it, and goes after none does. Knows no records. Blocking: called on threads for that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use fleet_advisories::import::{AdvisorySet, Limits};
use fleet_types::digest::Digest;

use crate::error::{ControllerError, Kind, Result};

/// Ends the names of sources.
const WHOLE: &str = ".json.gz";
/// What is on its way.
const SPOOL: &str = "import.part";
/// A source is written under this name until it is whole.
const PART: &str = "source.part";

/// Where they lie.
#[derive(Clone)]
pub struct AdvisoryFiles {
    root: PathBuf,
    floor_bytes: u64,
}

/// The files of an import as they arrive, one behind the other in one file.
pub struct Spool {
    path: PathBuf,
    file: File,
    floor_bytes: u64,
    most_bytes: u64,
    most_files: usize,
    entries: Vec<(String, u64)>,
    bytes: u64,
}

impl AdvisoryFiles {
    /// Below `root`, which is made when it is needed; nothing is written with less than `floor_bytes` free.
    pub const fn new(root: PathBuf, floor_bytes: u64) -> Self {
        Self { root, floor_bytes }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(format!("{digest}{WHOLE}"))
    }

    /// Begins an import; the rest of one that was cut off goes.
    pub fn spool(&self) -> Result<Spool> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(failed)?;
        let path = self.root.join(SPOOL);
        let limits = Limits::default();
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(true).read(true).write(true).mode(0o600).open(&path);
        Ok(Spool {
            path,
            file: file.map_err(failed)?,
            floor_bytes: self.floor_bytes,
            most_bytes: limits.total_bytes as u64,
            most_files: limits.files,
            entries: Vec::new(),
            bytes: 0,
        })
    }

    /// Writes a source, whole and durable.
    pub fn keep(&self, set: &AdvisorySet) -> Result<Digest> {
        has_room(&self.root, self.floor_bytes)?;
        let part = self.root.join(PART);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(true).write(true).mode(0o600).open(&part).map_err(failed)?;
        let mut packed = GzEncoder::new(file, Compression::fast());
        let json = serde_json::to_vec(set).map_err(ControllerError::internal)?;
        packed.write_all(&json).map_err(failed)?;
        packed.finish().and_then(|file| file.sync_all()).map_err(failed)?;
        let digest = Digest::of(&json);
        fs::rename(&part, self.path(&digest)).map_err(failed)?;
        File::open(&self.root).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(digest)
    }

    /// Reads a source; one that is not as it was written is an error.
    pub fn load(&self, digest: &Digest) -> Result<AdvisorySet> {
        let path = self.path(digest);
        let mut json = Vec::new();
        File::open(&path).and_then(|file| GzDecoder::new(file).read_to_end(&mut json)).map_err(failed)?;
        if Digest::of(&json) != *digest {
            return Err(failed(io::Error::other(format!("{} is damaged", path.display()))));
        }
        serde_json::from_slice(&json).map_err(ControllerError::internal)
    }

    /// Takes away what no record names.
    pub fn keep_only(&self, digests: &[Digest]) -> Result<()> {
        let kept: Vec<PathBuf> = digests.iter().map(|digest| self.path(digest)).collect();
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed)?,
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let is_source = path.to_string_lossy().ends_with(WHOLE);
            if is_source && !kept.contains(&path) {
                fs::remove_file(path).map_err(failed)?;
            }
        }
        Ok(())
    }
}

impl Spool {
    /// Takes a piece; with `begins` it is the first of a file of this name.
    pub fn take(&mut self, name: &str, begins: bool, data: &[u8]) -> Result<()> {
        self.bytes += data.len() as u64;
        if self.bytes > self.most_bytes {
            return Err(ControllerError::invalid(
                "advisories",
                format!("the import has more than {} bytes", self.most_bytes),
            ));
        }
        if begins {
            if self.entries.len() >= self.most_files {
                let why = format!("the import has more than {} files", self.most_files);
                return Err(ControllerError::invalid("advisories", why));
            }
            has_room(&self.path, self.floor_bytes)?;
            self.entries.push((name.to_owned(), 0));
        }
        let Some((_, length)) = self.entries.last_mut() else {
            return Err(ControllerError::invalid("advisories", "the first piece begins no file"));
        };
        *length += data.len() as u64;
        self.file.write_all(data).map_err(failed)
    }

    /// Hands each file to `read`, one after the other.
    pub fn each(&mut self, mut read: impl FnMut(&str, &[u8])) -> Result<()> {
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        for (name, length) in &self.entries {
            let mut bytes = Vec::new();
            (&mut self.file).take(*length).read_to_end(&mut bytes).map_err(failed)?;
            read(name, &bytes);
        }
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // One that stays is overwritten by the next import.
        let _ = fs::remove_file(&self.path);
    }
}

fn has_room(path: &Path, floor_bytes: u64) -> Result<()> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    if fleet_store::free_bytes(folder).map_err(failed)? < floor_bytes {
        let text = "the controller's disk is short of space and takes no advisories for now";
        return Err(ControllerError::new(Kind::Exhausted, "advisories-full", text)
            .fix("free space on the controller's disk, then import again"));
    }
    Ok(())
}

fn failed(error: io::Error) -> ControllerError {
    let why = format!("advisories cannot be kept or read: {error}");
    ControllerError {
        source: Some(Box::new(error)),
        ..ControllerError::new(Kind::Unavailable, "advisories-failed", why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_they_came_and_sources_as_they_were_kept() {
        let folder = tempfile::tempdir().unwrap();
        let files = AdvisoryFiles::new(folder.path().join("advisories"), 0);
        let mut spool = files.spool().unwrap();
        assert!(spool.take("a", false, b"x").is_err(), "no file has begun");
        for (name, begins, data) in
            [("a", true, "one"), ("a", false, " two"), ("b", true, ""), ("c", true, "3")]
        {
            spool.take(name, begins, data.as_bytes()).unwrap();
        }
        let mut seen = Vec::new();
        spool.each(|name, bytes| seen.push(format!("{name}={}", String::from_utf8_lossy(bytes)))).unwrap();
        assert_eq!(seen, ["a=one two", "b=", "c=3"]);
        let set = AdvisorySet::default();
        let digest = files.keep(&set).unwrap();
        assert_eq!(files.load(&digest).unwrap(), set);
        drop(spool);
        let names = || fs::read_dir(folder.path().join("advisories")).unwrap().count();
        assert_eq!(names(), 1);
        fs::write(files.path(&digest), b"damage").unwrap();
        assert!(files.load(&digest).is_err());
        files.keep_only(&[]).unwrap();
        assert_eq!(names(), 0);
    }
}
