//! The files with the output of steps, beside the store: one a step, in the order in which it came.
//!
//! Offsets make resends harmless. A file is written by one at a time, however many streams send; nothing is
//! written when space is short, since output is progress and the store beside it holds results. Knows no jobs:
//! whose output is taken is `service/output.rs`'s to say.

use std::fs::{self, OpenOptions, Permissions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

use fleet_types::id::{Attempt, NodeId, RunId};

use crate::error::{ControllerError, Kind, Result};

/// Kept of one step's output; the node's own limit is the same by default.
pub const MAX_STEP_BYTES: u64 = 2 * 1024 * 1024;
/// Locks that all files share, so that their number is fixed. Two files of one lock wait for each other for one
/// write of 64 KiB; 64 are more than the blocking threads that write at once on a busy controller.
const LOCKS: usize = 64;

/// Which output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputOf {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: NodeId,
    /// The attempt.
    pub attempt: Attempt,
    /// The step's id.
    pub step: String,
}

/// All output files.
#[derive(Clone)]
pub struct OutputFiles(Arc<Inner>);

struct Inner {
    root: PathBuf,
    floor_bytes: u64,
    locks: [Mutex<()>; LOCKS],
    hasher: RandomState,
    /// Was the last write refused for want of space? Told once, not for every node and chunk.
    short: AtomicBool,
    grown: watch::Sender<()>,
}

impl OutputFiles {
    /// Below `root`, which is made when it is needed; nothing is written with less than `floor_bytes` free.
    pub fn new(root: PathBuf, floor_bytes: u64) -> Self {
        Self(Arc::new(Inner {
            root,
            floor_bytes,
            locks: std::array::from_fn(|_| Mutex::new(())),
            hasher: RandomState::new(),
            short: AtomicBool::new(false),
            grown: watch::Sender::default(),
        }))
    }

    /// For those who read on: told whenever output of any step has come.
    pub fn follow(&self) -> watch::Receiver<()> {
        self.0.grown.subscribe()
    }

    /// Appends a chunk; returns up to where the output is stored. A chunk that was stored before, or that lies
    /// beyond what is stored, changes nothing: the caller sends from the returned offset.
    ///
    /// It runs to its end on a thread of its own, also when the caller goes away: no half chunk is followed by
    /// another's.
    ///
    /// Behind a `last` chunk the output has ended: nothing that goes beyond it is taken any more.
    pub async fn append(&self, of: &OutputOf, offset: u64, data: Vec<u8>, last: bool) -> Result<u64> {
        let (inner, path) = (Arc::clone(&self.0), self.file(of)?);
        let stored = blocking(move || inner.append(&path, offset, &data, last)).await?;
        self.0.grown.send_replace(());
        Ok(stored)
    }

    /// Up to `limit` bytes from an offset; empty at the end of what is stored.
    pub async fn read(&self, of: &OutputOf, offset: u64, limit: usize) -> Result<Vec<u8>> {
        let path = self.file(of)?;
        // A file's places are signed numbers; nothing is stored that far.
        if offset > MAX_STEP_BYTES {
            return Ok(Vec::new());
        }
        blocking(move || {
            let mut file = match fs::File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(failed(error)),
            };
            file.seek(SeekFrom::Start(offset)).map_err(failed)?;
            let mut data = Vec::new();
            file.take(limit as u64).read_to_end(&mut data).map_err(failed)?;
            Ok(data)
        })
        .await
    }

    /// Steps of an attempt that have output, in no order.
    pub async fn steps(&self, run: RunId, node: NodeId, attempt: Attempt) -> Result<Vec<String>> {
        let directory = self.directory(run, node, attempt);
        blocking(move || {
            let Ok(entries) = fs::read_dir(directory) else { return Ok(Vec::new()) };
            let mut steps = Vec::new();
            for entry in entries {
                let name = entry.map_err(failed)?.file_name();
                steps.extend(name.to_str().and_then(|name| name.strip_suffix(".log")).map(str::to_owned));
            }
            Ok(steps)
        })
        .await
    }

    /// Takes away all output of a run.
    pub async fn forget(&self, run: RunId) -> Result<()> {
        let directory = self.0.root.join(run.to_string());
        blocking(move || match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        })
        .await
    }

    /// How many runs have output.
    #[cfg(test)]
    pub async fn runs(&self) -> Result<usize> {
        let root = self.0.root.clone();
        blocking(move || Ok(fs::read_dir(root).map_err(failed)?.count())).await
    }

    fn directory(&self, run: RunId, node: NodeId, attempt: Attempt) -> PathBuf {
        self.0.root.join(run.to_string()).join(node.to_string()).join(attempt.0.to_string())
    }

    /// Ids of steps are kebab-case; anything else would be a path of somebody's making.
    fn file(&self, of: &OutputOf) -> Result<PathBuf> {
        let good = (1..=128).contains(&of.step.len())
            && of
                .step
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        if !good {
            return Err(ControllerError::invalid("output.step", "not the id of a step"));
        }
        Ok(self.directory(of.run, of.node, of.attempt).join(format!("{}.log", of.step)))
    }
}

impl Inner {
    fn append(&self, path: &Path, offset: u64, data: &[u8], last: bool) -> Result<u64> {
        let index = usize::try_from(self.hasher.hash_one(path) % LOCKS as u64).unwrap_or(0);
        // The lock protects the file between length and write; a panic in between left it as it was.
        let _turn = self.locks[index].lock().unwrap_or_else(PoisonError::into_inner);
        let (length, has_ended) = match fs::metadata(path) {
            Ok(metadata) => (metadata.len(), metadata.permissions().readonly()),
            Err(error) if error.kind() == ErrorKind::NotFound => (0, false),
            Err(error) => return Err(failed(error)),
        };
        let end = offset.saturating_add(data.len() as u64);
        if has_ended {
            if end <= length || length >= MAX_STEP_BYTES {
                return Ok(length.max(end));
            }
            let why = "the output of this step has ended";
            return Err(ControllerError::new(Kind::Refused, "output-refused", why));
        }
        // Beyond the limit everything counts as taken, so that the node goes on; else a gap is asked for again.
        if length >= MAX_STEP_BYTES {
            return Ok(end);
        }
        if offset > length {
            return Ok(length);
        }
        let skip = usize::try_from(length - offset).unwrap_or(usize::MAX);
        let room = usize::try_from(MAX_STEP_BYTES - length).unwrap_or(usize::MAX);
        let fresh = data.get(skip..).unwrap_or_default();
        let kept = &fresh[..fresh.len().min(room)];
        if !kept.is_empty() {
            self.check_space()?;
            if let Some(directory) = path.parent() {
                private_directory(directory)?;
            }
            let mut options = OpenOptions::new();
            options.create(true).append(true).mode(0o600);
            options.open(path).map_err(failed)?.write_all(kept).map_err(failed)?;
        }
        // The end stands in the file's mode: it lasts, and costs no file beside it.
        if last && path.exists() {
            fs::set_permissions(path, Permissions::from_mode(0o400)).map_err(failed)?;
        }
        Ok(length.max(end))
    }

    /// One system call a chunk. Those who write at the same time overshoot by a chunk each, a few MiB together.
    fn check_space(&self) -> Result<()> {
        private_directory(&self.root)?;
        let free = fleet_store::free_bytes(&self.root).map_err(failed)?;
        let short = free < self.floor_bytes;
        if short != self.short.swap(short, Ordering::Relaxed) {
            let (root, floor) = (self.root.display(), self.floor_bytes);
            if short {
                tracing::error!(%root, free, floor, "space is short: output of steps is not kept, results are");
            } else {
                tracing::info!(%root, free, "output of steps is kept again");
            }
        }
        if !short {
            return Ok(());
        }
        let text = "the controller's disk is short of space and keeps no output of steps for now";
        Err(ControllerError::new(Kind::Exhausted, "output-full", text)
            .fix("free space on the controller's disk; jobs and their reports go on without output"))
    }
}

/// Output of programs may hold anything: it is for the controller alone.
fn private_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)
}

fn failed(error: io::Error) -> ControllerError {
    ControllerError {
        source: Some(Box::new(error)),
        ..ControllerError::new(Kind::Unavailable, "output-failed", "the output of a step cannot be kept")
    }
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(act).await.map_err(ControllerError::internal)?
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn of(step: &str) -> OutputOf {
        let (run, node) = (RunId::from_number(1), NodeId::from_uuid(uuid::Uuid::from_u128(1)));
        OutputOf { run, node, attempt: Attempt(1), step: step.to_owned() }
    }

    /// What belongs at an offset, so that a chunk in a wrong place shows.
    fn pattern(from: u64, length: usize) -> Vec<u8> {
        (from..).take(length).map(|at| (at / 251 + at % 251).to_le_bytes()[0]).collect()
    }

    #[tokio::test]
    async fn what_programs_said_is_for_the_controller_alone() {
        let folder = tempfile::tempdir().unwrap();
        let files = OutputFiles::new(folder.path().join("output"), 0);
        let of = of("s");
        files.append(&of, 0, b"secret".to_vec(), false).await.unwrap();
        let mut path = files.file(&of).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        while path.pop() && path != folder.path() {
            assert_eq!(mode(&path), 0o700, "{}", path.display());
        }
        assert_eq!(files.read(&of, u64::MAX, 10).await.unwrap(), b"", "beyond all files");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn streams_that_send_one_step_at_once_never_interleave() {
        const CHUNK: usize = 1000;
        const TOTAL: u64 = 400_000;
        let folder = tempfile::tempdir().unwrap();
        let files = OutputFiles::new(folder.path().join("output"), 0);
        let streams: Vec<_> = (0..8)
            .map(|_| {
                let files = files.clone();
                tokio::spawn(async move {
                    let mut at = 0;
                    while at < TOTAL {
                        at = files.append(&of("s"), at, pattern(at, CHUNK), false).await.unwrap();
                    }
                })
            })
            .collect();
        for stream in streams {
            stream.await.unwrap();
        }
        let stored = files.read(&of("s"), 0, usize::MAX).await.unwrap();
        assert_eq!(stored.len() as u64, TOTAL);
        assert!(stored == pattern(0, stored.len()), "every byte is in its place, once");
    }

    #[tokio::test]
    async fn below_the_floor_nothing_is_written_and_the_error_says_later() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("output");
        let short = OutputFiles::new(root.clone(), u64::MAX);
        let error = short.append(&of("s"), 0, vec![1; 10], false).await.unwrap_err();
        assert_eq!((error.kind, error.detail.code.as_str()), (Kind::Exhausted, "output-full"));
        assert!(error.retryable() && !error.detail.fix.is_empty());
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "not even a folder");
        let roomy = OutputFiles::new(root, 0);
        assert_eq!(roomy.append(&of("s"), 0, vec![1; 10], false).await.unwrap(), 10);
    }

    #[tokio::test]
    async fn offsets_of_every_kind_do_no_harm_and_the_limit_holds() {
        let folder = tempfile::tempdir().unwrap();
        let files = OutputFiles::new(folder.path().to_owned(), 0);
        let of = of("s");
        assert_eq!(files.append(&of, 0, pattern(0, 100), false).await.unwrap(), 100);
        assert_eq!(files.append(&of, 50, pattern(50, 100), false).await.unwrap(), 150, "an overlap is cut");
        assert_eq!(
            files.append(&of, 0, pattern(0, 10), false).await.unwrap(),
            150,
            "a repetition changes nothing"
        );
        assert_eq!(files.append(&of, 1_000, vec![9], false).await.unwrap(), 150, "a gap is asked for again");
        assert_eq!(files.append(&of, u64::MAX, vec![9], false).await.unwrap(), 150);
        let mut at = 150;
        while at < MAX_STEP_BYTES {
            at = files.append(&of, at, pattern(at, 60_000), false).await.unwrap();
        }
        assert_eq!(
            files.append(&of, u64::MAX, vec![9; 9], false).await.unwrap(),
            u64::MAX,
            "counts as taken"
        );
        let stored = files.read(&of, 0, usize::MAX).await.unwrap();
        assert_eq!(stored.len() as u64, MAX_STEP_BYTES);
        assert!(stored == pattern(0, stored.len()));
        assert!(files.append(&OutputOf { step: "../up".to_owned(), ..of }, 0, vec![1], false).await.is_err());
    }

    #[tokio::test]
    async fn nothing_is_taken_behind_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let files = OutputFiles::new(folder.path().to_owned(), 0);
        let of = of("s");
        assert_eq!(files.append(&of, 0, pattern(0, 50), false).await.unwrap(), 50);
        assert_eq!(files.append(&of, 50, pattern(50, 50), true).await.unwrap(), 100);
        assert_eq!(files.append(&of, 50, pattern(50, 50), true).await.unwrap(), 100, "sent again");
        let more = files.append(&of, 100, b"forged".to_vec(), false).await.unwrap_err();
        assert_eq!((more.kind, more.detail.code.as_str()), (Kind::Refused, "output-refused"));
        assert!(files.append(&of, 50, pattern(50, 51), false).await.is_err());
        assert!(files.read(&of, 0, usize::MAX).await.unwrap() == pattern(0, 100));
    }
}
