//! Encrypted copies of backups, beside the store: one file each, below its node.
//!
//! A copy arrives in pieces that are appended, under a name of its own; it gets its final name when it is whole and has the
//! digest that the node's signed report names. Nothing is written when space is short or the node's quota is used up.
//! Knows no records: whose copies are taken is `service/copies.rs`'s to say. Nobody here can read what is in them.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fleet_types::digest::{Digest, Hasher};
use fleet_types::id::NodeId;
use fleet_types::time::Timestamp;

use crate::error::{ControllerError, Kind, Result};

/// Locks that all nodes share: the pieces of one node are written one after the other.
const LOCKS: usize = 64;
/// Read at once while a copy is checked.
const BUFFER_BYTES: usize = 256 * 1024;
/// A part that nobody has added to for so long will not become whole: the node has given it up.
const PART_LIFE: Duration = Duration::from_hours(24 * 31);
/// Ends the names of copies that are not whole.
const PART: &str = ".part";
/// Ends the names of those that are.
const WHOLE: &str = ".age";

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Stored up to here.
    At(u64),
    /// Whole, checked, durable.
    Whole,
}

/// A piece of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Digest of the whole copy.
    pub sha256: Digest,
    /// Bytes of the whole copy.
    pub size: u64,
    /// Where the piece begins.
    pub offset: u64,
    /// The piece; empty asks how far it is.
    pub data: Vec<u8>,
}

/// All copies.
#[derive(Clone)]
pub struct CopyFiles(Arc<Inner>);

struct Inner {
    root: PathBuf,
    floor_bytes: u64,
    quota_bytes: u64,
    locks: [Mutex<()>; LOCKS],
    hasher: RandomState,
}

impl CopyFiles {
    /// Below `root`, which is made when it is needed; nothing is written with less than `floor_bytes` free, nor beyond
    /// `quota_bytes` of one node.
    pub fn new(root: PathBuf, floor_bytes: u64, quota_bytes: u64) -> Self {
        let locks = std::array::from_fn(|_| Mutex::new(()));
        Self(Arc::new(Inner { root, floor_bytes, quota_bytes, locks, hasher: RandomState::new() }))
    }

    /// Takes a piece. One that was stored before, or that lies beyond what is stored, changes nothing: the caller sends
    /// from the returned offset. It runs to its end also when the caller goes away.
    pub async fn append(&self, node: NodeId, piece: Piece) -> Result<Progress> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let index = usize::try_from(inner.hasher.hash_one(node) % LOCKS as u64).unwrap_or(0);
            // The lock protects lengths between look and write; a panic in between left them as they were.
            let _turn = inner.locks[index].lock().unwrap_or_else(PoisonError::into_inner);
            inner.append(node, &piece)
        })
        .await
    }

    /// Up to `limit` bytes from an offset; empty at the end. None where there is no such copy.
    pub async fn read(
        &self,
        node: NodeId,
        sha256: Digest,
        offset: u64,
        limit: u64,
    ) -> Result<Option<Vec<u8>>> {
        let path = self.0.path(node, sha256, WHOLE);
        blocking(move || {
            let mut file = match File::open(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                other => other.map_err(failed)?,
            };
            // A file's places are signed numbers.
            if i64::try_from(offset).is_err() {
                return Ok(Some(Vec::new()));
            }
            file.seek(SeekFrom::Start(offset)).map_err(failed)?;
            let mut data = Vec::new();
            file.take(limit).read_to_end(&mut data).map_err(failed)?;
            Ok(Some(data))
        })
        .await
    }

    /// Takes a copy away; none is as good.
    pub async fn remove(&self, node: NodeId, sha256: Digest) -> Result<()> {
        let path = self.0.path(node, sha256, WHOLE);
        blocking(move || match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        })
        .await
    }

    /// Takes away parts that nobody adds to any more.
    pub async fn sweep(&self, now: Timestamp) -> Result<()> {
        let root = self.0.root.clone();
        let now = UNIX_EPOCH + Duration::from_millis(u64::try_from(now.as_millis()).unwrap_or(0));
        blocking(move || {
            let Ok(nodes) = fs::read_dir(root) else { return Ok(()) };
            for node in nodes {
                for entry in fs::read_dir(node.map_err(failed)?.path()).map_err(failed)? {
                    let path = entry.map_err(failed)?.path();
                    let is_part = path.to_string_lossy().ends_with(PART);
                    let written = fs::metadata(&path).and_then(|about| about.modified()).map_err(failed)?;
                    let age = now.duration_since(written).unwrap_or_default();
                    if is_part && age > PART_LIFE {
                        fs::remove_file(path).map_err(failed)?;
                    }
                }
            }
            Ok(())
        })
        .await
    }
}

impl Inner {
    fn path(&self, node: NodeId, sha256: Digest, end: &str) -> PathBuf {
        self.root.join(node.to_string()).join(format!("{sha256}{end}"))
    }

    fn append(&self, node: NodeId, piece: &Piece) -> Result<Progress> {
        let (part, whole) = (self.path(node, piece.sha256, PART), self.path(node, piece.sha256, WHOLE));
        if length(&whole)?.is_some() {
            return Ok(Progress::Whole);
        }
        let stored = length(&part)?.unwrap_or(0);
        if piece.offset > stored {
            return Ok(Progress::At(stored));
        }
        let skip = usize::try_from(stored - piece.offset).unwrap_or(usize::MAX);
        let fresh = piece.data.get(skip..).unwrap_or_default();
        if stored + fresh.len() as u64 > piece.size {
            return Err(ControllerError::invalid(
                "copy.data",
                "it goes beyond the size that the report names",
            ));
        }
        if !fresh.is_empty() {
            self.make_room(node, &part, piece.size - stored)?;
            let mut options = OpenOptions::new();
            options.create(true).append(true).mode(0o600);
            let mut file = options.open(&part).map_err(failed)?;
            if let Err(error) = file.write_all(fresh) {
                // What came through of it is no whole piece; the next question says where to go on.
                file.set_len(stored).map_err(failed)?;
                return Err(failed(error));
            }
        }
        let now = stored + fresh.len() as u64;
        if now < piece.size || (now == 0 && fresh.is_empty()) {
            return Ok(Progress::At(now));
        }
        finish(&part, &whole, piece)
    }

    /// Those who write at the same time overshoot by a piece each.
    fn make_room(&self, node: NodeId, part: &Path, needed: u64) -> Result<()> {
        let folder = self.root.join(node.to_string());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let free = fleet_store::free_bytes(&folder).map_err(failed)?;
        if free < self.floor_bytes.saturating_add(needed) {
            let text = "the controller's disk is short of space and takes no copies of backups for now";
            return Err(ControllerError::new(Kind::Exhausted, "copies-full", text)
                .fix("free space on the controller's disk; the copy waits on its node"));
        }
        // Asked once a copy: what follows was promised by then.
        if length(part)?.is_some() {
            return Ok(());
        }
        let mut used = 0u64;
        for entry in fs::read_dir(&folder).map_err(failed)? {
            used += entry.and_then(|entry| entry.metadata()).map_err(failed)?.len();
        }
        if used.saturating_add(needed) > self.quota_bytes {
            let quota = self.quota_bytes;
            let text = format!("copies of this node take {used} bytes of {quota}, this one needs {needed}");
            return Err(ControllerError::new(Kind::Refused, "copy-quota", text)
                .fix("raise copies.quota_per_node, or keep fewer copies in the profile"));
        }
        Ok(())
    }
}

/// A copy that is whole is read again before it gets its name.
fn finish(part: &Path, whole: &Path, piece: &Piece) -> Result<Progress> {
    let mut file = File::open(part).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let (mut hasher, mut chunk) = (Hasher::new(), vec![0; BUFFER_BYTES]);
    loop {
        match file.read(&mut chunk).map_err(failed)? {
            0 => break,
            count => hasher.update(&chunk[..count]),
        }
    }
    if hasher.finish() != piece.sha256 {
        tracing::warn!(copy = %piece.sha256, "a copy of a backup arrived otherwise than it was made; it comes again");
        fs::remove_file(part).map_err(failed)?;
        return Ok(Progress::At(0));
    }
    fs::rename(part, whole).map_err(failed)?;
    let folder = whole.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(Progress::Whole)
}

fn length(path: &Path) -> Result<Option<u64>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(|about| Some(about.len())).map_err(failed),
    }
}

fn failed(error: io::Error) -> ControllerError {
    ControllerError {
        source: Some(Box::new(error)),
        ..ControllerError::new(
            Kind::Unavailable,
            "copies-failed",
            "a copy of a backup cannot be kept or read",
        )
    }
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(act).await.map_err(ControllerError::internal)?
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn node(n: u128) -> NodeId {
        NodeId::from_uuid(uuid::Uuid::from_u128(n))
    }

    fn piece(copy: &[u8], offset: usize, length: usize) -> Piece {
        let data = copy[offset.min(copy.len())..(offset + length).min(copy.len())].to_vec();
        Piece { sha256: Digest::of(copy), size: copy.len() as u64, offset: offset as u64, data }
    }

    #[tokio::test]
    async fn pieces_of_any_kind_become_the_copy_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let files = CopyFiles::new(folder.path().join("copies"), 0, u64::MAX);
        let copy: Vec<u8> = (0..1000u32).flat_map(u32::to_le_bytes).collect();
        let at = async |offset, length| files.append(node(1), piece(&copy, offset, length)).await.unwrap();
        assert_eq!(at(0, 0).await, Progress::At(0));
        assert_eq!(at(0, 1000).await, Progress::At(1000));
        assert_eq!(at(500, 1000).await, Progress::At(1500), "an overlap is cut");
        assert_eq!(at(0, 100).await, Progress::At(1500), "a repetition changes nothing");
        assert_eq!(at(3000, 100).await, Progress::At(1500), "a gap is asked for again");
        // Another node with the same copy has its own.
        let other = files.append(node(2), piece(&copy, 0, 10)).await.unwrap();
        assert_eq!(other, Progress::At(10));
        let sha256 = Digest::of(&copy);
        assert_eq!(files.read(node(1), sha256, 0, 10).await.unwrap(), None, "it is not whole");
        // A controller that was killed knows as much.
        let files = CopyFiles::new(folder.path().join("copies"), 0, u64::MAX);
        let rest = files.append(node(1), piece(&copy, 1500, 4000)).await.unwrap();
        assert_eq!(rest, Progress::Whole);
        assert_eq!(files.append(node(1), piece(&copy, 0, 0)).await.unwrap(), Progress::Whole);
        assert!(files.read(node(1), sha256, 0, 9999).await.unwrap().unwrap() == copy);
        assert_eq!(files.read(node(1), sha256, u64::MAX, 9).await.unwrap().unwrap(), b"");
        let path = files.0.path(node(1), sha256, WHOLE);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        files.remove(node(1), sha256).await.unwrap();
        files.remove(node(1), sha256).await.unwrap();
        assert_eq!(files.read(node(1), sha256, 0, 10).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_not_what_the_report_names_is_never_kept() {
        let folder = tempfile::tempdir().unwrap();
        let files = CopyFiles::new(folder.path().join("copies"), 0, u64::MAX);
        let copy = vec![b'x'; 100];
        let forged = Piece { data: vec![b'y'; 100], ..piece(&copy, 0, 0) };
        assert_eq!(files.append(node(1), forged).await.unwrap(), Progress::At(0), "it begins anew");
        let long = Piece { data: vec![b'x'; 101], ..piece(&copy, 0, 0) };
        assert_eq!(files.append(node(1), long).await.unwrap_err().kind, Kind::Invalid);
        assert_eq!(files.append(node(1), piece(&copy, 0, 100)).await.unwrap(), Progress::Whole);
    }

    #[tokio::test]
    async fn quota_and_floor_hold_back_what_is_too_much() {
        let folder = tempfile::tempdir().unwrap();
        let copy = |n: u8| vec![n; 100];
        let files = CopyFiles::new(folder.path().join("copies"), 0, 250);
        for n in [1, 2] {
            assert_eq!(files.append(node(1), piece(&copy(n), 0, 100)).await.unwrap(), Progress::Whole);
        }
        let over = files.append(node(1), piece(&copy(3), 0, 10)).await.unwrap_err();
        assert_eq!((over.kind, over.detail.code.as_str()), (Kind::Refused, "copy-quota"));
        // Another node has its own, and one that goes makes room.
        assert_eq!(files.append(node(2), piece(&copy(3), 0, 100)).await.unwrap(), Progress::Whole);
        files.remove(node(1), Digest::of(&copy(1))).await.unwrap();
        assert_eq!(files.append(node(1), piece(&copy(3), 0, 100)).await.unwrap(), Progress::Whole);
        let short = CopyFiles::new(folder.path().join("short"), u64::MAX, u64::MAX);
        let error = short.append(node(1), piece(&copy(1), 0, 10)).await.unwrap_err();
        assert_eq!((error.kind, error.retryable()), (Kind::Exhausted, true));
        assert!(!folder.path().join("short").join(node(1).to_string()).join("x").exists());
    }

    #[tokio::test]
    async fn parts_that_nobody_adds_to_go_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let files = CopyFiles::new(folder.path().join("copies"), 0, u64::MAX);
        let copy = |n: u8| vec![n; 100];
        for n in [1, 2] {
            files.append(node(1), piece(&copy(n), 0, 10)).await.unwrap();
        }
        files.append(node(1), piece(&copy(3), 0, 100)).await.unwrap();
        let now = UNIX_EPOCH + Duration::from_hours(24 * 365 * 50);
        for (n, end, age) in [(1, PART, PART_LIFE), (2, PART, Duration::ZERO), (3, WHOLE, PART_LIFE)] {
            let path = files.0.path(node(1), Digest::of(&copy(n)), end);
            let file = File::options().append(true).open(path).unwrap();
            file.set_modified(now - age - Duration::from_mins(1)).unwrap();
        }
        files.sweep(Timestamp::clamped(1000 * 3600 * 24 * 365 * 50)).await.unwrap();
        let at = async |n: u8| files.append(node(1), piece(&copy(n), 0, 0)).await.unwrap();
        assert_eq!(
            (at(1).await, at(2).await, at(3).await),
            (Progress::At(0), Progress::At(10), Progress::Whole)
        );
    }
}
