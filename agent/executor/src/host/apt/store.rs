//! Archives of packages that the node keeps: what a change is carried out from, and what a way back needs.
//!
//! An archive lies beside a note that says what it is and what its digest was when it was kept. One without a note is the
//! rest of an interrupted copy. The store has a quota; what was kept in the last day is never given up for it, since a
//! job may still need it. Called by the backend.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_types::digest::{Digest, Hasher};
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::clock::{Clock, LinuxClock};
use super::super::packages::{Build, Kept, KeptFrom, PackageError, PackageFault, PackageResult};
use super::super::record::write_durably;

/// Room for archives: two sets of the updates of a Debian release point, and a product's package many times over.
const MAX_KEPT_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// What was kept or asked for within this time is not given up: a job with its way back takes hours.
const NEEDED_FOR: Duration = Duration::from_hours(24);
/// Room that stays free on the disk of the executor's state, for journal and reports.
const MIN_FREE_BYTES: u64 = 64 * 1024 * 1024;
/// Longest name of an archive's file, with room for its ending.
const MAX_NAME_BYTES: usize = 200;

/// The note beside an archive.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    build: Build,
    bytes: u64,
    sha256: Digest,
    from: KeptFrom,
    origins: Vec<String>,
    /// When it was kept, or last asked for.
    at: Timestamp,
}

impl Note {
    fn kept(self) -> Kept {
        Kept { build: self.build, bytes: self.bytes, from: self.from, origins: self.origins }
    }
}

/// The store. Callers see to it that one changes it at a time.
pub(super) struct Store {
    folder: PathBuf,
    quota: u64,
}

fn broken(path: &Path, error: &io::Error) -> PackageError {
    let fault = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PackageFault::LittleSpace,
        _ => PackageFault::Other,
    };
    PackageError::new(fault, format!("the store of packages, {}: {error}", path.display()))
}

impl Store {
    /// A store in this folder, which is made when something is kept.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, quota: MAX_KEPT_BYTES }
    }

    /// Where the archive of a build lies, or would.
    pub(super) fn path(&self, build: &Build) -> PackageResult<PathBuf> {
        let name = format!("{}_{}_{}", build.name.replace(':', "%3a"), build.version, build.architecture);
        let name = name.replace(':', "%3a");
        let good = |b: u8| b.is_ascii_alphanumeric() || b"_.+~%-".contains(&b);
        if name.len() > MAX_NAME_BYTES || name.starts_with('.') || !name.bytes().all(good) {
            return Err(PackageError::new(
                PackageFault::NoVersion,
                format!("{build} is no build of a package"),
            ));
        }
        Ok(self.folder.join(format!("{name}.deb")))
    }

    fn note(&self, build: &Build) -> PackageResult<Option<Note>> {
        let path = self.path(build)?.with_extension("json");
        match fs::read(&path) {
            // A note that does not read is the same as none: the archive is kept anew.
            Ok(bytes) => Ok(serde_json::from_slice::<Note>(&bytes).ok().filter(|note| note.build == *build)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(broken(&path, &error)),
        }
    }

    /// The archive of a build, if it is kept. One that is not as it was kept is an error.
    pub(super) fn find(&self, build: &Build) -> PackageResult<Option<Kept>> {
        let Some(note) = self.note(build)? else { return Ok(None) };
        let path = self.path(build)?;
        match digest(&path) {
            Ok(found) if found == (note.bytes, note.sha256) => Ok(Some(note.kept())),
            Ok(_) => {
                let message = format!("the kept archive {} is not as it was kept", path.display());
                Err(PackageError::new(PackageFault::Altered, message))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(broken(&path, &error)),
        }
    }

    /// Notes that a job needs an archive now.
    pub(super) fn touch(&self, build: &Build) -> PackageResult<()> {
        let Some(mut note) = self.note(build)? else { return Ok(()) };
        note.at = LinuxClock.now();
        self.write_note(&note)
    }

    fn write_note(&self, note: &Note) -> PackageResult<()> {
        let path = self.path(&note.build)?.with_extension("json");
        let bytes =
            serde_json::to_vec(note).map_err(|e| PackageError::new(PackageFault::Other, e.to_string()))?;
        write_durably(&path, &bytes).map_err(|e| broken(&path, &e))
    }

    /// Keeps what `write` writes as the archive of this build: whole and durable, or not at all.
    pub(super) fn keep(
        &self,
        build: &Build,
        from: KeptFrom,
        origins: Vec<String>,
        size: u64,
        write: impl FnOnce(&mut File) -> PackageResult<()>,
    ) -> PackageResult<Kept> {
        let path = self.path(build)?;
        fs::create_dir_all(&self.folder).map_err(|e| broken(&self.folder, &e))?;
        self.make_room(size)?;
        let incoming = path.with_extension("incoming");
        let written = (|| {
            let mut file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&incoming)
                .map_err(|e| broken(&incoming, &e))?;
            write(&mut file)?;
            file.sync_all().map_err(|e| broken(&incoming, &e))?;
            let (bytes, sha256) = digest(&incoming).map_err(|e| broken(&incoming, &e))?;
            fs::rename(&incoming, &path).map_err(|e| broken(&path, &e))?;
            let note = Note { build: build.clone(), bytes, sha256, from, origins, at: LinuxClock.now() };
            // The note's own write makes the folder's names durable, this one's too.
            self.write_note(&note)?;
            Ok(note.kept())
        })();
        if written.is_err() {
            // Nothing is kept; what is left of the copy goes as far as it can.
            let _ = fs::remove_file(&incoming);
        }
        written
    }

    /// Gives up the oldest archives until so much more fits into the quota, and looks at the disk.
    fn make_room(&self, more: u64) -> PackageResult<()> {
        let mut notes = self.notes()?;
        notes.sort_by_key(|note| note.at);
        let mut used: u64 = notes.iter().map(|note| note.bytes).sum();
        let now = LinuxClock.now();
        for note in notes {
            if used.saturating_add(more) <= self.quota {
                break;
            }
            if now.since(note.at) < NEEDED_FOR {
                continue;
            }
            let path = self.path(&note.build)?;
            // The note first: an archive without one is not kept.
            for gone in [path.with_extension("json"), path] {
                match fs::remove_file(&gone) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(broken(&gone, &error));
                    }
                    _ => {}
                }
            }
            used = used.saturating_sub(note.bytes);
        }
        if used.saturating_add(more) > self.quota {
            let message = format!(
                "{more} bytes more do not fit into the {} bytes that are kept of packages at most",
                self.quota
            );
            return Err(PackageError::new(PackageFault::LittleSpace, message));
        }
        let free = crate::durable::free_bytes(&self.folder).unwrap_or(0);
        if free < more.saturating_add(MIN_FREE_BYTES) {
            let message = format!("{} has {free} bytes free, {more} more are needed", self.folder.display());
            return Err(PackageError::new(PackageFault::LittleSpace, message));
        }
        Ok(())
    }

    /// All notes; what an interrupted copy left goes.
    fn notes(&self) -> PackageResult<Vec<Note>> {
        let mut notes = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(|e| broken(&self.folder, &e))? {
            let path = entry.map_err(|e| broken(&self.folder, &e))?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => {
                    let bytes = fs::read(&path).map_err(|e| broken(&path, &e))?;
                    notes.extend(serde_json::from_slice::<Note>(&bytes));
                }
                Some("incoming") => fs::remove_file(&path).map_err(|e| broken(&path, &e))?,
                Some("deb") if !path.with_extension("json").exists() => {
                    fs::remove_file(&path).map_err(|e| broken(&path, &e))?;
                }
                _ => {}
            }
        }
        Ok(notes)
    }
}

/// Copies a file into the store's.
pub(super) fn copy(from: &mut dyn Read, to: &mut File, what: &Path) -> PackageResult<()> {
    io::copy(from, to).and_then(|_| to.flush()).map_err(|e| broken(what, &e))
}

fn digest(path: &Path) -> io::Result<(u64, Digest)> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut size = 0;
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok((size, hasher.finish())),
            count => {
                hasher.update(&chunk[..count]);
                size += count as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(version: &str) -> Build {
        Build { name: "fw".into(), version: version.into(), architecture: "amd64".into() }
    }

    fn keep(store: &Store, version: &str, bytes: &[u8]) -> PackageResult<Kept> {
        store.keep(&build(version), KeptFrom::Publisher, vec!["Lab".into()], bytes.len() as u64, |file| {
            file.write_all(bytes).unwrap();
            Ok(())
        })
    }

    #[test]
    fn what_is_kept_is_found_and_what_was_altered_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("archives"));
        assert_eq!(store.find(&build("1:1.0")).unwrap(), None);
        let kept = keep(&store, "1:1.0", b"archive").unwrap();
        assert_eq!(store.find(&build("1:1.0")).unwrap(), Some(kept));
        fs::write(store.path(&build("1:1.0")).unwrap(), b"altered").unwrap();
        assert_eq!(store.find(&build("1:1.0")).unwrap_err().fault, PackageFault::Altered);
        assert!(keep(&store, "../../x", b"").is_err(), "a version is never a path");
    }

    #[test]
    fn an_interrupted_copy_is_not_kept_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        let failed = store.keep(&build("1"), KeptFrom::Cache, Vec::new(), 1, |_| {
            Err(PackageError::new(PackageFault::LittleSpace, "full"))
        });
        assert!(failed.is_err() && store.find(&build("1")).unwrap().is_none());
        fs::write(store.path(&build("2")).unwrap(), b"no note").unwrap();
        fs::write(store.path(&build("3")).unwrap().with_extension("incoming"), b"half").unwrap();
        keep(&store, "4", b"x").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the archive and its note");
    }

    #[test]
    fn the_quota_gives_up_the_oldest_and_never_what_a_job_needs() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store { folder: folder.path().to_owned(), quota: 20 };
        keep(&store, "1", b"1234567890").unwrap();
        keep(&store, "2", b"1234567890").unwrap();
        let refused = keep(&store, "3", b"1234567890").unwrap_err();
        assert_eq!(refused.fault, PackageFault::LittleSpace, "both are of today");
        for (version, days) in [("1", 3), ("2", 2)] {
            let mut note = store.note(&build(version)).unwrap().unwrap();
            note.at = LinuxClock.now().minus(Duration::from_hours(24 * days));
            store.write_note(&note).unwrap();
        }
        store.touch(&build("1")).unwrap();
        keep(&store, "3", b"1234567890").unwrap();
        assert!(store.find(&build("1")).unwrap().is_some(), "a job asked for it");
        assert!(store.find(&build("2")).unwrap().is_none());
    }
}
