//! The configuration file as the executor trusts it: a plain file that its owner alone may change.
//!
//! Whoever may write it, or the folder that it lies in, is the owner of the node's policy. So it belongs to root or to
//! the agent's own account, and nobody else may write it. Read by the same handle that was looked at.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use fleet_types::time::Timestamp;
use rustix::fs::OFlags;
use rustix::process::geteuid;

use super::problem::ConfigError;
use super::raw::MAX_FILE_BYTES;

/// Write bits of group and others.
const OTHERS_WRITE: u32 = 0o022;
/// In such a folder nobody may replace another one's file.
const STICKY: u32 = 0o1000;
/// Times of files are those of the kernel's last tick, and compared in whole seconds here: of a file as old as this
/// another write would show.
const SETTLED_MS: i64 = 2000;

/// The opened file.
#[derive(Debug)]
pub struct OwnersFile {
    path: PathBuf,
    file: File,
    stamp: Stamp,
}

/// Tells one content of the file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Would another write show?
    pub const fn is_settled(&self, now: Timestamp) -> bool {
        now.as_millis() - self.changed.0 * 1000 > SETTLED_MS
    }
}

impl OwnersFile {
    /// Opens the file and looks whose it is.
    pub fn open(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let unsafe_file = |why: String| Err(ConfigError::Unsafe { path: path.to_owned(), why });
        // Not blocking, so that a pipe in its place holds nobody.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        let opened = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path);
        let file = match opened {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return unsafe_file("is a symbolic link: put the file itself in its place".to_owned());
            }
            opened => opened.map_err(failed)?,
        };
        let about = file.metadata().map_err(failed)?;
        if !about.is_file() {
            return unsafe_file("is no file".to_owned());
        }
        if let Some(why) = writers(&about) {
            return unsafe_file(why);
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let about_folder = std::fs::metadata(folder).map_err(failed)?;
        if let Some(why) = writers(&about_folder).filter(|_| about_folder.mode() & STICKY == 0) {
            return Err(ConfigError::Unsafe { path: folder.to_owned(), why });
        }
        let stamp = Stamp {
            device: about.dev(),
            inode: about.ino(),
            size: about.size(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        };
        Ok(Self { path: path.to_owned(), file, stamp })
    }

    /// Which content it has.
    pub const fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Its text.
    pub fn read(mut self) -> Result<String, ConfigError> {
        let failed = |source| ConfigError::Read { path: self.path.clone(), source };
        if self.stamp.size > MAX_FILE_BYTES {
            let message = format!("it has {} bytes, a megabyte is the most", self.stamp.size);
            return Err(failed(std::io::Error::other(message)));
        }
        let mut text = String::new();
        self.file.read_to_string(&mut text).map_err(failed)?;
        Ok(text)
    }
}

/// Who else may write it, in words; none when nobody may.
fn writers(about: &Metadata) -> Option<String> {
    let own = geteuid().as_raw();
    if about.uid() != 0 && about.uid() != own {
        return Some(format!("belongs to user {}: it holds the node's policy, run chown root", about.uid()));
    }
    let mode = about.mode() & 0o7777;
    (mode & OTHERS_WRITE != 0).then(|| {
        format!("may be written by others (mode {mode:04o}): it holds the node's policy, run chmod go-w")
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    fn refused(path: &Path) -> String {
        OwnersFile::open(path).unwrap_err().to_string()
    }

    #[test]
    fn a_file_that_others_may_change_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        fs::write(&path, "[policy]\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let first = OwnersFile::open(&path).unwrap();
        let stamp = first.stamp();
        assert_eq!(first.read().unwrap(), "[policy]\n");
        for mode in [0o664, 0o646, 0o666] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let said = refused(&path);
            assert!(
                said.contains("agent.toml may be written by others") && said.contains("chmod go-w"),
                "{said}"
            );
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_ne!(OwnersFile::open(&path).unwrap().stamp(), stamp, "a change of its mode shows");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(refused(&path).contains("may be written by others"), "its folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        OwnersFile::open(&path).unwrap();
        let link = folder.path().join("link.toml");
        symlink(&path, &link).unwrap();
        assert!(refused(&link).contains("symbolic link"));
        assert!(refused(folder.path()).contains("is no file"));
        if geteuid().is_root() {
            chown(&path, Some(65534), None).unwrap();
            assert!(refused(&path).contains("belongs to user 65534"));
        }
    }
}
