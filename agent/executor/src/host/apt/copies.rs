//! Contents of configuration files, set aside before packages change and put back by the way back.
//!
//! Each lies under its digest, so that the same content is kept once. What nobody asked for in a month goes: no job lasts
//! that long. Called by the backend.

use std::fs;
use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_types::digest::Digest;

use super::super::clock::{Clock, LinuxClock};
use super::super::files::{FileError, FileKind, FileProblem, Files, Stat, read_all, temporary_beside};
use super::super::packages::{PackageError, PackageFault, PackageResult, SetAside};
use super::super::record::write_durably;

/// Largest configuration file; the largest that packages of Debian ship have less than one megabyte.
const MAX_CONFIG_BYTES: u64 = 16 * 1024 * 1024;
/// The longest a rollout lasts (security-and-delivery §1.15).
const KEPT_FOR: Duration = Duration::from_hours(35 * 24);

/// The contents.
pub(super) struct Copies {
    folder: PathBuf,
}

fn of_file(error: &FileError) -> PackageError {
    let fault =
        if error.problem == FileProblem::Full { PackageFault::LittleSpace } else { PackageFault::Other };
    PackageError::new(fault, error.to_string())
}

fn of_io(path: &Path, error: &io::Error) -> PackageError {
    of_file(&FileError::of("keep", path, error))
}

impl Copies {
    /// Contents in this folder, which is made when one is kept.
    pub(super) const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Sets the content of a file aside; durable when it returns.
    pub(super) fn set_aside(&self, files: &dyn Files, path: &Path) -> PackageResult<Option<SetAside>> {
        let stat = match files.stat(path) {
            Ok(stat) => stat,
            Err(error) if error.problem == FileProblem::NotFound => return Ok(None),
            Err(error) => return Err(of_file(&error)),
        };
        if stat.kind != FileKind::Regular {
            let message = format!("{} is no regular file, and could not be put back", path.display());
            return Err(PackageError::new(PackageFault::Other, message));
        }
        let bytes = read_all(files, path, MAX_CONFIG_BYTES).map_err(|e| of_file(&e))?;
        let sha256 = Digest::of(&bytes);
        fs::create_dir_all(&self.folder).map_err(|e| of_io(&self.folder, &e))?;
        self.forget_old();
        // Written anew where it is there already: its age counts from now.
        write_durably(&self.path(sha256), &bytes).map_err(|e| of_io(&self.folder, &e))?;
        let Stat { mode, uid, gid, modified, .. } = stat;
        Ok(Some(SetAside { sha256, mode, uid, gid, modified }))
    }

    /// Puts a content back, with owner, bits and time; whole or not at all.
    pub(super) fn put_back(&self, files: &dyn Files, path: &Path, content: &SetAside) -> PackageResult<()> {
        let kept = self.path(content.sha256);
        let bytes = fs::read(&kept).map_err(|e| of_io(&kept, &e))?;
        if Digest::of(&bytes) != content.sha256 {
            let message = format!("what was set aside of {} is not as it was kept", path.display());
            return Err(PackageError::new(PackageFault::Altered, message));
        }
        let written = (|| {
            let real = match files.canonical(path) {
                Err(error) if error.problem == FileProblem::NotFound => {
                    let parent = path.parent().unwrap_or(Path::new("/"));
                    files.make_directories(parent, 0o755)?;
                    files.canonical(parent)?.join(path.file_name().unwrap_or_default())
                }
                other => other?,
            };
            let temporary = temporary_beside(&real);
            match files.remove_file(&temporary) {
                Err(error) if error.problem != FileProblem::NotFound => return Err(error),
                _ => {}
            }
            let mut file = files.create(&temporary, content.mode)?;
            file.write_all(&bytes).map_err(|e| FileError::of("write", &temporary, &e))?;
            file.take_after(&model(content, bytes.len()))?;
            file.sync()?;
            files.rename(&temporary, &real)?;
            files.sync_directory(real.parent().unwrap_or(Path::new("/")))
        })();
        written.map_err(|e| of_file(&e))
    }

    fn path(&self, sha256: Digest) -> PathBuf {
        self.folder.join(sha256.to_string().replace(':', "-"))
    }

    /// What is left of jobs long over. One that cannot be removed now is removed another time.
    fn forget_old(&self) {
        let before = LinuxClock.now().minus(KEPT_FOR).as_millis();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let modified = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            let since = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            if since.is_some_and(|since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX) < before) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The file as it was, as far as a file takes after another.
fn model(content: &SetAside, size: usize) -> Stat {
    Stat {
        kind: FileKind::Regular,
        size: size as u64,
        mode: content.mode,
        uid: content.uid,
        gid: content.gid,
        modified: content.modified,
        modified_seconds: content.modified.as_millis() / 1000,
        allocated: 0,
        names: 1,
        device: 0,
        inode: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::host::linux_files::LinuxFiles;

    #[test]
    fn a_file_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        let at = root.join("etc/fw.conf");
        fs::write(&at, "mine").unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(0o640)).unwrap();
        let files = LinuxFiles::open(&root).unwrap();
        let copies = Copies::new(folder.path().join("state/files"));
        let path = Path::new("/etc/fw.conf");
        let before = files.stat(path).unwrap();
        let content = copies.set_aside(&files, path).unwrap().unwrap();
        assert_eq!(copies.set_aside(&files, Path::new("/etc/none")).unwrap(), None);
        assert!(copies.set_aside(&files, Path::new("/etc")).is_err());
        fs::remove_dir_all(root.join("etc")).unwrap();
        copies.put_back(&files, path, &content).unwrap();
        copies.put_back(&files, path, &content).unwrap();
        let after = files.stat(path).unwrap();
        assert_eq!(fs::read(&at).unwrap(), b"mine");
        assert_eq!((after.mode, after.modified), (before.mode, before.modified));
        fs::write(copies.path(content.sha256), "other").unwrap();
        assert_eq!(copies.put_back(&files, path, &content).unwrap_err().fault, PackageFault::Altered);
    }
}
