//! Files of a Linux machine below a root folder, by `openat2`.
//!
//! Every path is resolved by the kernel with `RESOLVE_IN_ROOT` and without magic links, so neither `..` nor a
//! link leads out of the root. What changes something resolves with `RESOLVE_NO_SYMLINKS` as well. It must
//! never join a declared path to the root and hand the text to the system.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use fleet_types::time::Timestamp;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::files::{Dress, Entry, FileError, FileKind, FileProblem, Files, ReadFile, Space, Stat, WriteFile};

/// `openat2` may ask to be called again when something was renamed meanwhile; so often and no more.
const RENAME_RETRIES: u32 = 16;
/// A folder with more members than this is a mistake or an attack; a mail spool has fewer.
const MAX_MEMBERS: usize = 1_000_000;
/// Largest list of attributes and largest value: the limits of Linux (xattr(7)).
const MAX_ATTRIBUTE_BYTES: usize = 64 * 1024;

/// Files below a folder.
#[derive(Debug)]
pub struct LinuxFiles {
    root: PathBuf,
    root_fd: OwnedFd,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    Follow,
    Refuse,
}

impl LinuxFiles {
    /// Opens the root. Its own path may go through links: whoever configured it meant that.
    pub fn open(root: &Path) -> Result<Self, FileError> {
        let wrap = |error: std::io::Error| FileError::of("open root", root, &error);
        let root = std::fs::canonicalize(root).map_err(wrap)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root_fd = rustix::fs::open(&root, flags, Mode::empty()).map_err(|e| wrap(e.into()))?;
        Ok(Self { root, root_fd })
    }

    fn relative<'p>(operation: &'static str, path: &'p Path) -> Result<&'p Path, FileError> {
        let bad = |why: &str| Err(FileError::new(operation, path, FileProblem::Other, why));
        let Ok(relative) = path.strip_prefix("/") else { return bad("a declared path is absolute") };
        if path.components().any(|part| part == Component::ParentDir) {
            return bad("a declared path holds no '..'");
        }
        Ok(if relative.as_os_str().is_empty() { Path::new(".") } else { relative })
    }

    fn resolve(
        &self,
        operation: &'static str,
        path: &Path,
        flags: OFlags,
        links: Links,
    ) -> Result<OwnedFd, FileError> {
        let relative = Self::relative(operation, path)?;
        let mut how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        if links == Links::Refuse {
            how |= ResolveFlags::NO_SYMLINKS;
        }
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.root_fd, relative, flags | OFlags::CLOEXEC, Mode::empty(), how) {
                Err(Errno::AGAIN | Errno::INTR) if tries < RENAME_RETRIES => tries += 1,
                other => return other.map_err(|e| FileError::of(operation, path, &e.into())),
            }
        }
    }

    fn folder(&self, operation: &'static str, path: &Path, links: Links) -> Result<OwnedFd, FileError> {
        self.resolve(operation, path, OFlags::PATH | OFlags::DIRECTORY, links)
    }

    /// The folder of a path, opened, and the last part.
    fn parent<'p>(
        &self,
        operation: &'static str,
        path: &'p Path,
        links: Links,
    ) -> Result<(OwnedFd, &'p OsStr), FileError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(FileError::new(operation, path, FileProblem::WrongKind, "this is the root itself"));
        };
        Ok((self.folder(operation, parent, links)?, name))
    }

    /// Opens the last part without following it.
    fn at(
        operation: &'static str,
        path: &Path,
        parent: &OwnedFd,
        name: &OsStr,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd, FileError> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, mode).map_err(|e| FileError::of(operation, path, &e.into()))
    }
}

fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    use rustix::fs::FileType as T;
    let kind = match T::from_raw_mode(stat.st_mode) {
        T::RegularFile => FileKind::Regular,
        T::Directory => FileKind::Directory,
        T::Symlink => FileKind::Link,
        _ => FileKind::Special,
    };
    // Field types differ between architectures; the values fit on all of them.
    #[allow(clippy::unnecessary_cast, clippy::cast_possible_wrap, clippy::cast_lossless)]
    let (seconds, nanoseconds) = (stat.st_mtime as i64, stat.st_mtime_nsec as i64);
    Stat {
        kind,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified_seconds: seconds,
        allocated: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
        #[allow(clippy::unnecessary_cast, clippy::cast_lossless)] // its type differs between architectures
        names: stat.st_nlink as u64,
        modified: Timestamp::clamped(seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000)),
        device: stat.st_dev,
        inode: stat.st_ino,
    }
}

struct LinuxReadFile {
    file: File,
    path: PathBuf,
}

impl Read for LinuxReadFile {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.file.read(buffer)
    }
}

impl ReadFile for LinuxReadFile {
    fn stat(&self) -> Result<Stat, FileError> {
        rustix::fs::fstat(&self.file)
            .map(|stat| stat_of(&stat))
            .map_err(|e| FileError::of("stat", &self.path, &e.into()))
    }

    fn seek_to(&mut self, offset: u64) -> Result<(), FileError> {
        let moved = self.file.seek(SeekFrom::Start(offset));
        moved.map(drop).map_err(|e| FileError::of("read", &self.path, &e))
    }
}

struct LinuxWriteFile {
    file: File,
    path: PathBuf,
}

impl Write for LinuxWriteFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl WriteFile for LinuxWriteFile {
    fn sync(&mut self) -> Result<(), FileError> {
        self.file.sync_all().map_err(|e| FileError::of("fsync", &self.path, &e))
    }

    fn skip(&mut self, bytes: u64) -> Result<(), FileError> {
        let skipped = i64::try_from(bytes)
            .map_err(std::io::Error::other)
            .and_then(|bytes| self.file.seek(SeekFrom::Current(bytes)))
            // So that it is there also where nothing follows.
            .and_then(|end| self.file.set_len(end));
        skipped.map_err(|e| FileError::of("lengthen", &self.path, &e))
    }

    fn take_after(&mut self, model: &Stat) -> Result<(), FileError> {
        let own = rustix::fs::fstat(&self.file).map_err(|e| FileError::of("stat", &self.path, &e.into()))?;
        if (own.st_uid, own.st_gid) != (model.uid, model.gid) {
            let (owner, group) = (rustix::fs::Uid::from_raw(model.uid), rustix::fs::Gid::from_raw(model.gid));
            match rustix::fs::fchown(&self.file, Some(owner), Some(group)) {
                // Only root gives files away; on a development node all files are of one user anyway.
                Ok(()) | Err(Errno::PERM) => {}
                Err(error) => return Err(FileError::of("chown", &self.path, &error.into())),
            }
        }
        let millis = u64::try_from(model.modified.as_millis()).unwrap_or(0);
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(millis);
        self.file.set_modified(time).map_err(|e| FileError::of("set the time of", &self.path, &e))
    }
}

impl Files for LinuxFiles {
    fn root(&self) -> &Path {
        &self.root
    }

    fn canonical(&self, path: &Path) -> Result<PathBuf, FileError> {
        let fd = self.resolve("resolve", path, OFlags::PATH, Links::Follow)?;
        let real = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
            .map_err(|e| FileError::of("resolve", path, &e))?;
        let inside = real
            .strip_prefix(&self.root)
            .map_err(|_| FileError::new("resolve", path, FileProblem::Link, "it lies outside of the root"))?;
        Ok(Path::new("/").join(inside))
    }

    fn stat(&self, path: &Path) -> Result<Stat, FileError> {
        let wrap = |e: Errno| FileError::of("stat", path, &e.into());
        if path == Path::new("/") {
            return rustix::fs::fstat(&self.root_fd).map(|stat| stat_of(&stat)).map_err(wrap);
        }
        let (parent, name) = self.parent("stat", path, Links::Follow)?;
        rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map(|s| stat_of(&s)).map_err(wrap)
    }

    fn open(&self, path: &Path) -> Result<Box<dyn ReadFile>, FileError> {
        let (parent, name) = self.parent("open", path, Links::Follow)?;
        // Without NONBLOCK a pipe put in a file's place would hold us for ever.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = Self::at("open", path, &parent, name, flags, Mode::empty())?;
        let file = LinuxReadFile { file: File::from(fd), path: path.to_owned() };
        if file.stat()?.kind != FileKind::Regular {
            return Err(FileError::new("open", path, FileProblem::WrongKind, "it is no regular file"));
        }
        Ok(Box::new(file))
    }

    fn attributes(&self, path: &Path) -> Result<Vec<(String, Vec<u8>)>, FileError> {
        let wrap = |e: Errno| FileError::of("read the attributes of", path, &e.into());
        let (parent, name) = self.parent("read the attributes of", path, Links::Follow)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = Self::at("read the attributes of", path, &parent, name, flags, Mode::empty())?;
        let mut names = vec![0; MAX_ATTRIBUTE_BYTES];
        let length = match rustix::fs::flistxattr(&file, &mut names[..]) {
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            other => other.map_err(wrap)?,
        };
        let mut attributes = Vec::new();
        for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; MAX_ATTRIBUTE_BYTES];
            match rustix::fs::fgetxattr(&file, name, &mut value[..]) {
                Ok(length) => {
                    value.truncate(length);
                    attributes.push((String::from_utf8_lossy(name).into_owned(), value));
                }
                // It went meanwhile.
                Err(Errno::NODATA) => {}
                Err(error) => return Err(wrap(error)),
            }
        }
        Ok(attributes)
    }

    fn read_link(&self, path: &Path) -> Result<PathBuf, FileError> {
        let (parent, name) = self.parent("read link", path, Links::Follow)?;
        let target = rustix::fs::readlinkat(&parent, name, Vec::new())
            .map_err(|e| FileError::of("read link", path, &e.into()))?;
        Ok(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>, FileError> {
        let wrap = |e: Errno| FileError::of("list", path, &e.into());
        let folder = self.resolve("list", path, OFlags::RDONLY | OFlags::DIRECTORY, Links::Refuse)?;
        let mut entries = Vec::new();
        for member in rustix::fs::Dir::read_from(&folder).map_err(wrap)? {
            let member = member.map_err(wrap)?;
            let name = OsStr::from_bytes(member.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if entries.len() == MAX_MEMBERS {
                let why = format!("it has over {MAX_MEMBERS} members");
                return Err(FileError::new("list", path, FileProblem::TooLarge, why));
            }
            match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => entries.push(Entry { path: path.join(name), stat: stat_of(&stat) }),
                // It went between being listed and being looked at.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(FileError::of("stat", &path.join(name), &error.into())),
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    fn space(&self, path: &Path) -> Result<Space, FileError> {
        let fd = self.resolve("ask for the room at", path, OFlags::PATH, Links::Follow)?;
        let stat =
            rustix::fs::fstatvfs(&fd).map_err(|e| FileError::of("ask for the room at", path, &e.into()))?;
        let size = stat.f_frsize;
        Ok(Space {
            total: stat.f_blocks.saturating_mul(size),
            available: stat.f_bavail.saturating_mul(size),
            used: stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(size),
        })
    }

    fn create(&self, path: &Path, mode: u32) -> Result<Box<dyn WriteFile>, FileError> {
        let (parent, name) = self.parent("create", path, Links::Refuse)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let fd = Self::at("create", path, &parent, name, flags, Mode::from_raw_mode(mode & 0o700))?;
        // The process's umask has no say in what is declared.
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode & 0o7777))
            .map_err(|e| FileError::of("chmod", path, &e.into()))?;
        Ok(Box::new(LinuxWriteFile { file: File::from(fd), path: path.to_owned() }))
    }

    fn write_setting(&self, path: &Path, value: &[u8]) -> Result<(), FileError> {
        let wrap = |e: std::io::Error| FileError::of("set", path, &e);
        let (parent, name) = self.parent("set", path, Links::Refuse)?;
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut file = File::from(Self::at("set", path, &parent, name, flags, Mode::empty())?);
        if !file.metadata().map_err(wrap)?.is_file() {
            return Err(FileError::new("set", path, FileProblem::WrongKind, "it is no regular file"));
        }
        match file.write(value).map_err(wrap)? {
            written if written == value.len() => Ok(()),
            written => {
                let why = format!("the kernel took {written} of {} bytes", value.len());
                Err(FileError::new("set", path, FileProblem::Other, why))
            }
        }
    }

    fn make_directories(&self, path: &Path, mode: u32) -> Result<(), FileError> {
        let mut missing = Vec::new();
        let mut at = path;
        loop {
            match self.folder("make folder", at, Links::Refuse) {
                Ok(_) => break,
                Err(error) if error.problem == FileProblem::NotFound => {
                    missing.push(at);
                    at = at.parent().unwrap_or(Path::new("/"));
                }
                Err(error) => return Err(error),
            }
        }
        for folder in missing.into_iter().rev() {
            let (parent, name) = self.parent("make folder", folder, Links::Refuse)?;
            match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode & 0o7777)) {
                Ok(()) => self.sync_directory(folder.parent().unwrap_or(Path::new("/")))?,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(FileError::of("make folder", folder, &error.into())),
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        let (from_parent, from_name) = self.parent("rename", from, Links::Refuse)?;
        let (to_parent, to_name) = self.parent("rename to", to, Links::Refuse)?;
        rustix::fs::renameat(&from_parent, from_name, &to_parent, to_name)
            .map_err(|e| FileError::of("rename", from, &e.into()))
    }

    fn dress(&self, path: &Path, dress: &Dress) -> Result<(), FileError> {
        let wrap = |e: Errno| FileError::of("set owner and permissions of", path, &e.into());
        let (parent, name) = self.parent("set owner and permissions of", path, Links::Refuse)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = Self::at("set owner and permissions of", path, &parent, name, flags, Mode::empty())?;
        let (owner, group) = (rustix::fs::Uid::from_raw(dress.uid), rustix::fs::Gid::from_raw(dress.gid));
        match rustix::fs::fchown(&file, Some(owner), Some(group)) {
            // Only root gives files away; on a development node all files are of one user anyway.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(wrap(error)),
        }
        for (name, value) in &dress.attributes {
            rustix::fs::fsetxattr(&file, name.as_str(), value, rustix::fs::XattrFlags::empty())
                .map_err(wrap)?;
        }
        // After the owner, whose change takes bits away.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(dress.mode & 0o7777)).map_err(wrap)?;
        let time = rustix::fs::Timespec { tv_sec: dress.modified_seconds, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(&file, &times).map_err(wrap)?;
        rustix::fs::fsync(&file).map_err(wrap)
    }

    fn remove_file(&self, path: &Path) -> Result<(), FileError> {
        let (parent, name) = self.parent("remove", path, Links::Refuse)?;
        rustix::fs::unlinkat(&parent, name, AtFlags::empty())
            .map_err(|e| FileError::of("remove", path, &e.into()))
    }

    fn remove_directory(&self, path: &Path) -> Result<(), FileError> {
        let (parent, name) = self.parent("remove folder", path, Links::Refuse)?;
        rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)
            .map_err(|e| FileError::of("remove folder", path, &e.into()))
    }

    fn sync_directory(&self, path: &Path) -> Result<(), FileError> {
        let folder = self.resolve("fsync", path, OFlags::RDONLY | OFlags::DIRECTORY, Links::Refuse)?;
        rustix::fs::fsync(&folder).map_err(|e| FileError::of("fsync", path, &e.into()))
    }

    fn open_for_writing(&self) -> Result<BTreeSet<(u64, u64)>, FileError> {
        super::open_files::open_for_writing()
    }
}

/// Device and number of an open file, as [`Stat`] has them.
pub(crate) fn identity(metadata: &std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_and_times_before_2000_are_read_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "x").unwrap();
        let files = LinuxFiles::open(folder.path()).unwrap();
        assert_eq!(files.attributes(Path::new("/x")).unwrap(), []);
        rustix::fs::setxattr(&path, "user.fleet", b"a\nb", rustix::fs::XattrFlags::empty()).unwrap();
        let read = files.attributes(Path::new("/x")).unwrap();
        assert_eq!(read, [("user.fleet".to_owned(), b"a\nb".to_vec())]);
        let file = File::options().append(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH - std::time::Duration::from_mins(1)).unwrap();
        assert_eq!(files.stat(Path::new("/x")).unwrap().modified_seconds, -60);
    }
}
