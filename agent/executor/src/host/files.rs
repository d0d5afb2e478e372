//! Files below the root of the node: the trait, its types, and what is built on it.
//!
//! Paths are absolute as declared; on a development node they are taken inside its private root. Links are
//! followed within the root only and never at the last part of a path; what changes something follows none
//! at all, so that a swapped folder is an error instead of a write elsewhere. A caller that wants to work
//! below a link asks [`Files::canonical`] first.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What went wrong, as far as callers tell cases apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileProblem {
    /// Nothing is there.
    NotFound,
    /// Something is there already.
    Exists,
    /// Not allowed.
    Denied,
    /// The path goes through a link, or out of the root.
    Link,
    /// The disk or the quota is full.
    Full,
    /// Not a regular file, or not a folder.
    WrongKind,
    /// Larger than the caller takes.
    TooLarge,
    /// A folder that is not empty.
    NotEmpty,
    /// Anything else.
    Other,
}

/// A file operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} {}: {why}", path.display())]
pub struct FileError {
    /// What was tried: `open`, `rename` …
    pub operation: &'static str,
    /// On which declared path.
    pub path: PathBuf,
    /// Kind of the failure.
    pub problem: FileProblem,
    /// The system's words.
    pub why: String,
}

impl FileError {
    /// Wraps an error of the system.
    pub fn of(operation: &'static str, path: &Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        // openat2 answers ELOOP for a link where none may be and EXDEV for a way out of the root.
        let is_loop = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
        let problem = match error.kind() {
            _ if is_loop => FileProblem::Link,
            K::NotFound => FileProblem::NotFound,
            K::AlreadyExists => FileProblem::Exists,
            K::PermissionDenied => FileProblem::Denied,
            K::StorageFull | K::QuotaExceeded => FileProblem::Full,
            K::NotADirectory | K::IsADirectory => FileProblem::WrongKind,
            K::DirectoryNotEmpty => FileProblem::NotEmpty,
            K::CrossesDevices => FileProblem::Link,
            _ => FileProblem::Other,
        };
        let why = match problem {
            FileProblem::Link => "the path goes through a link or out of the root".to_owned(),
            _ => error.to_string(),
        };
        Self { operation, path: path.to_owned(), problem, why }
    }

    /// Made by hand.
    pub fn new(operation: &'static str, path: &Path, problem: FileProblem, why: impl Into<String>) -> Self {
        Self { operation, path: path.to_owned(), problem, why: why.into() }
    }
}

/// Kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A folder.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, pipe or socket.
    Special,
}

/// From here on it counts whether a file has holes.
const LARGE_BYTES: u64 = 1024 * 1024;

/// What is known about a file without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Its kind; a link is a link.
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub modified: Timestamp,
    /// The same in seconds since 1970, also where no [`Timestamp`] can be: before 2000 and after 2099.
    pub modified_seconds: i64,
    /// Bytes on the disk: fewer than `size` where a file has holes.
    pub allocated: u64,
    /// Names that it has; a file with several is a hard link of itself.
    pub names: u64,
    /// The file system it lies on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

impl Stat {
    /// Bytes on the disk, of a large file that has fewer than its length. Small ones may lie within their file system's
    /// own records, and save nobody anything.
    pub fn sparse(&self) -> Option<u64> {
        let is_large = self.kind == FileKind::Regular && self.size >= LARGE_BYTES;
        (is_large && self.allocated < self.size).then_some(self.allocated)
    }
}

/// What a file or folder has beside its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dress {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Last change of the content, in seconds since 1970.
    pub modified_seconds: i64,
    /// Extended attributes.
    pub attributes: Vec<(String, Vec<u8>)>,
}

/// A member of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its declared path.
    pub path: PathBuf,
    /// What it is.
    pub stat: Stat,
}

/// Room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All bytes.
    pub total: u64,
    /// Bytes that an ordinary user may still write.
    pub available: u64,
    /// Bytes in use.
    pub used: u64,
}

impl Space {
    /// Used share in percent, as `df` computes it: reserved blocks count as used.
    #[allow(clippy::cast_precision_loss)] // a percentage needs no more than 52 bits
    pub fn used_percent(&self) -> f64 {
        let reachable = self.used + self.available;
        if reachable == 0 { 0.0 } else { self.used as f64 * 100.0 / reachable as f64 }
    }
}

/// An open file that is read.
pub trait ReadFile: Read + Send {
    /// What the open file is now: not what its path may mean by now.
    fn stat(&self) -> Result<Stat, FileError>;

    /// Reads on from there.
    fn seek_to(&mut self, offset: u64) -> Result<(), FileError>;
}

/// A new file that is written.
pub trait WriteFile: Write + Send {
    /// Makes what was written durable.
    fn sync(&mut self) -> Result<(), FileError>;

    /// Leaves a hole of so many bytes, which read as zeros and take no room. The file is so much longer.
    fn skip(&mut self, bytes: u64) -> Result<(), FileError>;

    /// Gives it the owner (where this process may) and the time of another file.
    fn take_after(&mut self, model: &Stat) -> Result<(), FileError>;
}

/// Files below the root.
pub trait Files: Send + Sync {
    /// Where the root lies on this machine; `/` on a real node. For messages and for starting programs.
    fn root(&self) -> &Path;

    /// The path with all links of its folders resolved, still as a declared path (inside the root).
    fn canonical(&self, path: &Path) -> Result<PathBuf, FileError>;

    /// What is there. The last part is not followed.
    fn stat(&self, path: &Path) -> Result<Stat, FileError>;

    /// Opens a regular file for reading. The last part may not be a link: ask [`Files::canonical`].
    fn open(&self, path: &Path) -> Result<Box<dyn ReadFile>, FileError>;

    /// Extended attributes of a file or folder by name: capabilities, access lists, labels. Empty where the file system
    /// has none. The last part is not followed.
    fn attributes(&self, path: &Path) -> Result<Vec<(String, Vec<u8>)>, FileError>;

    /// Where a link points, not followed.
    fn read_link(&self, path: &Path) -> Result<PathBuf, FileError>;

    /// Members of a folder, sorted by name. No link in the path is followed.
    fn list(&self, path: &Path) -> Result<Vec<Entry>, FileError>;

    /// Room on the file system that a path lies on.
    fn space(&self, path: &Path) -> Result<Space, FileError>;

    /// Makes a new file; something there already is an error. No link in the path is followed.
    fn create(&self, path: &Path, mode: u32) -> Result<Box<dyn WriteFile>, FileError>;

    /// Writes a file of the kernel that is there, such as a setting below `/proc/sys`, in one piece: it takes the whole
    /// or refuses it. No link in the path is followed.
    fn write_setting(&self, path: &Path, value: &[u8]) -> Result<(), FileError>;

    /// Makes a folder and those above it. No link in the path is followed.
    fn make_directories(&self, path: &Path, mode: u32) -> Result<(), FileError>;

    /// Puts a file in another's place. No link in the paths is followed.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError>;

    /// Gives a file or folder an owner (where this process may), permissions, a time, and attributes beside those it has. No link
    /// in the path is followed, at its last part neither.
    fn dress(&self, path: &Path, dress: &Dress) -> Result<(), FileError>;

    /// Removes a file or link, never a folder. No link in the path is followed.
    fn remove_file(&self, path: &Path) -> Result<(), FileError>;

    /// Removes an empty folder. No link in the path is followed.
    fn remove_directory(&self, path: &Path) -> Result<(), FileError>;

    /// Makes the members of a folder durable.
    fn sync_directory(&self, path: &Path) -> Result<(), FileError>;

    /// Device and number of every file that some process holds open for writing.
    fn open_for_writing(&self) -> Result<BTreeSet<(u64, u64)>, FileError>;
}

/// Reads a whole file of at most `limit` bytes. A link as the last part is followed within the root, for
/// configuration that is linked into place.
pub fn read_all(files: &dyn Files, path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let real = files.canonical(path)?;
    let file = files.open(&real)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| FileError::of("read", path, &e))?;
    if bytes.len() as u64 > limit {
        let why = format!("it is larger than {limit} bytes");
        return Err(FileError::new("read", path, FileProblem::TooLarge, why));
    }
    Ok(bytes)
}

/// Writes a file so that either the old or the whole new content is there after a crash: temporary name,
/// fsync, rename, fsync of the folder.
pub fn write_atomic(files: &dyn Files, path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let temporary = temporary_beside(path);
    match files.remove_file(&temporary) {
        Err(error) if error.problem != FileProblem::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let mut file = files.create(&temporary, mode)?;
        file.write_all(bytes).map_err(|e| FileError::of("write", &temporary, &e))?;
        file.sync()?;
        files.rename(&temporary, path)?;
        files.sync_directory(parent)
    })();
    if written.is_err() {
        // The write failed already; what remains of it is taken away as far as possible.
        let _ = files.remove_file(&temporary);
    }
    written
}

/// The hidden name beside `path` under which its next content is written.
pub(crate) fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".fleet-tmp");
    path.with_file_name(name)
}
