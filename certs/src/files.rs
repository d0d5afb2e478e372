//! Keys and certificates on disk: atomic replacement with a mode, and careful reading.
//!
//! A file is written beside its place, flushed, renamed, and the directory flushed, so that a crash
//! leaves the old or the new file and never a part (security-and-delivery §1.8). Private files are
//! refused when others may read them. Never follows the wish of a peer: all paths come from our own
//! configuration.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use fleet_types::seal::Secret;

/// Largest file that is read, in bytes: a chain with several authorities during a rotation is under
/// 8 KiB; a file larger than this is not what it was meant to be.
pub const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Mode of private keys.
pub const KEY_MODE: u32 = 0o600;
/// Mode of certificates.
pub const CERT_MODE: u32 = 0o644;

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It does not exist.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Others may read or write it.
    #[error("{} may be used by others than its owner (mode {mode:04o}): run chmod 600 {}", path.display(), path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A directory, pipe or device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Over the limit.
    #[error("{} has {bytes} bytes, at most {MAX_FILE_BYTES} are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Not text.
    #[error("{} is not a text file", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// "read" or "write".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl FileError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// Beginning of the names of temporary files.
const TEMPORARY: &str = ".new-";

/// Removes temporary files that a crash has left in a folder; they may hold keys. Only for a folder
/// with one writer, which is the caller.
pub fn remove_leftovers(folder: &Path) -> Result<(), FileError> {
    let fail = FileError::io("clean up", folder);
    let remove = || -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) && entry.file_type()?.is_file() {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    remove().map_err(fail)
}

/// Replaces a private file (mode 0600).
pub fn write_secret(path: &Path, text: &Secret) -> Result<(), FileError> {
    write_atomic(path, text.expose(), KEY_MODE)
}

/// Replaces a file with the given bytes and mode, or leaves it as it was.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    replace(path, bytes, mode).map_err(FileError::io("write", path))
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    // Created with mode 0600, so that a key is never readable by others, not even for a moment.
    let mut temporary = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder)?;
    temporary.write_all(bytes)?;
    temporary.as_file().set_permissions(Permissions::from_mode(mode))?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|e| e.error)?;
    sync_folder(folder)
}

/// Flushes a directory, so that a rename in it survives a power cut.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Reads a text that is not secret.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    read(path, false)
}

/// Reads a private file; refuses one that others may use.
pub fn read_secret(path: &Path) -> Result<Secret, FileError> {
    read(path, true).map(Secret::new)
}

fn read(path: &Path, private: bool) -> Result<String, FileError> {
    let owned = || path.to_owned();
    // Non-blocking, so that a pipe in the file's place is refused instead of waited for.
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => FileError::Missing { path: owned() },
        _ => FileError::Io { what: "read", path: owned(), source: e },
    })?;
    // On the open file, so that it cannot be exchanged between check and reading.
    let about = file.metadata().map_err(FileError::io("read", path))?;
    if !about.is_file() {
        return Err(FileError::NotAFile { path: owned() });
    }
    let mode = about.mode() & 0o7777;
    if private && mode & 0o077 != 0 {
        return Err(FileError::TooOpen { path: owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(FileError::io("read", path))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::TooLarge { path: owned(), bytes: about.len().max(MAX_FILE_BYTES + 1) });
    }
    String::from_utf8(bytes).map_err(|_| FileError::NotText { path: owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn files_are_replaced_whole_with_their_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write_secret(&path, &Secret::new("one")).unwrap();
        write_secret(&path, &Secret::new("two")).unwrap();
        assert_eq!((read_secret(&path).unwrap().expose(), mode(&path)), (&b"two"[..], 0o600));
        let certificate = folder.path().join("cert.pem");
        write_atomic(&certificate, b"c", CERT_MODE).unwrap();
        assert_eq!((read_text(&certificate).unwrap().as_str(), mode(&certificate)), ("c", 0o644));
        // No temporary file is left, also when the place cannot be written.
        assert!(write_atomic(&folder.path().join("no/such"), b"x", CERT_MODE).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn leftovers_of_a_crash_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".new-abc", "key.pem", "x.new-"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        remove_leftovers(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        assert!(!folder.path().join(".new-abc").exists());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_and_the_remedy_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write_secret(&path, &Secret::new("k")).unwrap();
        for open in [0o640, 0o604, 0o620, 0o601] {
            std::fs::set_permissions(&path, Permissions::from_mode(open)).unwrap();
            let error = read_secret(&path).unwrap_err().to_string();
            assert!(error.contains("key.pem") && error.contains("chmod 600"), "{error}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(read_secret(&path).is_ok());
    }

    #[test]
    fn what_is_no_small_text_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert!(matches!(read_text(&path("none")), Err(FileError::Missing { .. })));
        assert!(matches!(read_text(folder.path()), Err(FileError::NotAFile { .. })));
        std::fs::write(path("large"), vec![b'x'; 64 * 1024 + 1]).unwrap();
        assert!(matches!(read_text(&path("large")), Err(FileError::TooLarge { bytes: 65_537, .. })));
        std::fs::write(path("binary"), [0xff]).unwrap();
        assert!(matches!(read_text(&path("binary")), Err(FileError::NotText { .. })));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(matches!(read_text(&path("pipe")), Err(FileError::NotAFile { .. })));
    }
}
