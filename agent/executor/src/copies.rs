//! Encrypted copies of backups on their way off the node: which wait, and the one that is under way.
//!
//! The list lies on the disk, so that copies outlive restarts and days without a controller; a piece at a time is under
//! way, and the controller says where to go on, so that a link may break anywhere (docs/adr/0034). What the controller has
//! whole is removed here. It must never send a file that is no encrypted one. Filled and steered by the dispatcher, drained by a
//! pump of the loop.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleet_types::digest::Digest;
use fleet_types::report::StepReport;
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::durable::{read_if_there, write_atomically};
use crate::host::{FileError, FileKind, FileProblem, Files, Host, ReadFile};

/// The list, in the executor's state folder.
const LIST: &str = "copies.json";
/// A piece: a link of one megabit needs a second for it, and a control message waits no longer behind it.
const PIECE_BYTES: usize = 128 * 1024;
/// Copies of one backup that wait at most; beyond, the oldest goes. Each takes the room of an archive.
const MAX_OF_ONE: usize = 3;
/// Copies that wait at most, of all backups: more than a node declares.
const MAX_WAITING: usize = 64;
/// Older than this a copy is not sent any more: its archive has gone by then, and newer ones have come.
const TOO_OLD: Duration = Duration::from_hours(24 * 30);
/// After "not now": a controller that is short of space, or does not have the report yet.
const PAUSE: Duration = Duration::from_mins(1);
/// After a plain no, such as a quota that is used up.
const LONG_PAUSE: Duration = Duration::from_hours(1);
/// A copy that did not arrive whole so often is given up: the file itself is damaged.
const MAX_STARTS: u32 = 3;
/// How every encrypted file begins.
const BEGINNING: &[u8] = b"age-encryption.org/v1\n";

/// A copy that the controller does not have whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingCopy {
    /// The backup.
    pub backup: String,
    /// When its archive was made.
    pub made: Timestamp,
    /// Digest of the archive.
    pub archive: Digest,
    /// Where the copy lies.
    pub path: PathBuf,
    /// Its digest.
    pub sha256: Digest,
    /// Its bytes.
    pub size: u64,
}

/// A piece of a copy on its way to the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyPiece {
    /// When the archive was made.
    pub made: Timestamp,
    /// Digest of the archive.
    pub archive: Digest,
    /// Digest of the whole copy.
    pub sha256: Digest,
    /// Where the piece begins.
    pub offset: u64,
    /// The piece; empty asks where to go on.
    pub data: Vec<u8>,
}

/// What became of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyAnswer {
    /// Digest of the whole copy.
    pub sha256: Digest,
    /// Stored up to here.
    pub offset: u64,
    /// Whole, checked and kept.
    pub kept: bool,
    /// Why it was not taken; none when it was.
    pub error: Option<String>,
    /// The controller said no, and will say so again for a while.
    pub refused: bool,
}

/// The copies that steps have made.
pub fn copies_of(steps: &[StepReport]) -> Vec<WaitingCopy> {
    let artifacts = steps.iter().flat_map(|step| &step.body.artifacts);
    let of = |artifact: &fleet_types::report::Artifact| {
        let copy = artifact.copy.as_ref()?;
        Some(WaitingCopy {
            backup: artifact.name.clone(),
            made: artifact.made,
            archive: artifact.sha256,
            path: PathBuf::from(&copy.path),
            sha256: copy.sha256,
            size: copy.size,
        })
    };
    artifacts.filter_map(of).collect()
}

/// All copies that wait.
pub struct CopyHub {
    host: Arc<dyn Host>,
    list: PathBuf,
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    linked: bool,
    waiting: VecDeque<WaitingCopy>,
    /// Up to where the controller has the first; none until it has said so.
    at: Option<u64>,
    /// A piece of the first is with the core.
    is_under_way: bool,
    /// The first, open, and where its next byte is from.
    open: Option<(Box<dyn ReadFile>, u64)>,
    /// How often what was sent of the first came to nothing.
    starts: u32,
    not_before: Option<Instant>,
}

impl CopyHub {
    /// Takes up what waited in an earlier life. A list that cannot be read is told and begun anew: the copies stay where
    /// they lie, and the next backup makes one again.
    pub fn open(directory: &Path, host: Arc<dyn Host>) -> Arc<Self> {
        let list = directory.join(LIST);
        let waiting = match read_if_there(&list) {
            Ok(bytes) => bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose(),
            Err(error) => Err(serde_json::Error::io(error)),
        };
        let waiting = waiting.unwrap_or_else(|error| {
            tracing::error!(%error, list = %list.display(), "the list of copies on their way cannot be read");
            None
        });
        let state = State { waiting: waiting.unwrap_or_default(), ..State::default() };
        Arc::new(Self { host, list, state: Mutex::new(state), news: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds copies; what waits already is not added again. What is too much goes, the oldest first.
    pub fn add(&self, copies: Vec<WaitingCopy>) -> io::Result<()> {
        if copies.is_empty() {
            return Ok(());
        }
        let mut state = self.state();
        for copy in copies {
            if !state.waiting.iter().any(|one| one.sha256 == copy.sha256) {
                state.waiting.push_back(copy);
            }
        }
        let now = self.host.clock().now();
        loop {
            let waiting = &state.waiting;
            let too_many = |copy: &WaitingCopy| {
                waiting.iter().filter(|one| one.backup == copy.backup && one.made > copy.made).count()
                    >= MAX_OF_ONE
            };
            let over = waiting.iter().position(|copy| now.since(copy.made) > TOO_OLD || too_many(copy));
            let Some(place) = over.or((waiting.len() > MAX_WAITING).then_some(0)) else { break };
            self.give_up(&mut state, place, "newer ones wait behind it, or it is too old");
        }
        self.write(&state)?;
        drop(state);
        self.news.notify_one();
        Ok(())
    }

    /// A link is up: the controller is asked anew where to go on.
    pub fn link_up(&self) {
        let mut state = self.state();
        state.linked = true;
        state.begin_anew(None);
        drop(state);
        self.news.notify_one();
    }

    /// The link is gone: nothing is sent.
    pub fn link_down(&self) {
        let mut state = self.state();
        state.linked = false;
        state.begin_anew(None);
    }

    /// What became of the piece that was under way.
    pub fn answered(&self, answer: &CopyAnswer) {
        let mut state = self.state();
        let of_first = state.waiting.front().is_some_and(|first| first.sha256 == answer.sha256);
        // Of a piece of before the link.
        if !state.is_under_way || !of_first {
            return;
        }
        state.is_under_way = false;
        if let Some(why) = &answer.error {
            let pause = if answer.refused { LONG_PAUSE } else { PAUSE };
            tracing::warn!(why, "a copy of a backup is not taken; it waits");
            state.waiting.rotate_left(1);
            state.begin_anew(Some(pause));
        } else if answer.kept {
            self.remove(&mut state, 0);
            if let Err(error) = self.write(&state) {
                tracing::warn!(%error, "the list of copies cannot be written; the controller is asked again");
            }
        } else {
            let size = state.waiting.front().map_or(0, |first| first.size);
            // Nothing came of what was sent: it was whole, and was not what it should be.
            let sent = state.open.as_ref().map_or(0, |(_, place)| *place);
            let is_lost = |at: u64| at == size || (sent > at && answer.offset <= at);
            state.starts += u32::from(state.at.is_some_and(is_lost));
            state.at = Some(answer.offset.min(size));
            if state.starts >= MAX_STARTS {
                self.give_up(&mut state, 0, "it does not arrive as it was made");
                let _ = self.write(&state);
            }
        }
        drop(state);
        self.news.notify_one();
    }

    /// The next piece, when there is one to send.
    pub async fn next_piece(&self) -> CopyPiece {
        loop {
            // Registered before looking, so that news between look and wait are not missed.
            let news = self.news.notified();
            let (piece, look_at) = self.take_piece();
            match (piece, look_at) {
                (Some(piece), _) => return piece,
                (None, Some(at)) => tokio::select! {
                    () = news => {}
                    () = sleep_until(at) => {}
                },
                (None, None) => news.await,
            }
        }
    }

    /// A piece, or when to look again.
    fn take_piece(&self) -> (Option<CopyPiece>, Option<Instant>) {
        let mut state = self.state();
        loop {
            if !state.linked || state.is_under_way || state.waiting.is_empty() {
                return (None, None);
            }
            if let Some(at) = state.not_before.filter(|at| Instant::now() < *at) {
                return (None, Some(at));
            }
            match self.piece(&mut state) {
                Ok(piece) => {
                    state.is_under_way = true;
                    return (Some(piece), None);
                }
                Err(error) => self.give_up(&mut state, 0, &error.to_string()),
            }
        }
    }

    fn piece(&self, state: &mut State) -> Result<CopyPiece, FileError> {
        let Some(copy) = state.waiting.front().cloned() else {
            return Err(FileError::new("read", Path::new(""), FileProblem::NotFound, "nothing waits"));
        };
        let (offset, data) = match state.at {
            None => (0, Vec::new()),
            Some(at) => (at, Self::read(self.host.files(), state, &copy, at)?),
        };
        Ok(CopyPiece { made: copy.made, archive: copy.archive, sha256: copy.sha256, offset, data })
    }

    fn read(files: &dyn Files, state: &mut State, copy: &WaitingCopy, at: u64) -> Result<Vec<u8>, FileError> {
        let (mut file, place) = match state.open.take() {
            Some(open) => open,
            None => (open(files, copy)?, u64::MAX),
        };
        if place != at {
            file.seek_to(at)?;
        }
        let mut data = Vec::with_capacity(PIECE_BYTES);
        let read = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut data);
        read.map_err(|error| FileError::of("read", &copy.path, &error))?;
        state.open = Some((file, at + data.len() as u64));
        Ok(data)
    }

    fn give_up(&self, state: &mut State, place: usize, why: &str) {
        if let Some(copy) = state.waiting.get(place) {
            tracing::error!(path = %copy.path.display(), why, "a copy of a backup is given up: its archive is on this node alone");
        }
        self.remove(state, place);
    }

    /// Takes one off the list, with its file.
    fn remove(&self, state: &mut State, place: usize) {
        let Some(copy) = state.waiting.remove(place) else { return };
        if place == 0 {
            state.begin_anew(None);
        }
        match self.host.files().remove_file(&copy.path) {
            Err(error) if error.problem != FileProblem::NotFound => {
                tracing::warn!(%error, "a copy that was sent cannot be removed");
            }
            _ => {}
        }
    }

    fn write(&self, state: &State) -> io::Result<()> {
        write_atomically(&self.list, &serde_json::to_vec(&state.waiting)?)
    }
}

impl State {
    fn begin_anew(&mut self, pause: Option<Duration>) {
        self.at = None;
        self.is_under_way = false;
        self.open = None;
        self.starts = 0;
        self.not_before = pause.map(|pause| Instant::now() + pause);
    }
}

/// Opens a copy. Whoever may write in its folder could have put another file, or a link to one, in its place: what is
/// not encrypted never leaves the node.
fn open(files: &dyn Files, copy: &WaitingCopy) -> Result<Box<dyn ReadFile>, FileError> {
    let mut file = files.open(&copy.path)?;
    let stat = file.stat()?;
    let mut beginning = vec![0; BEGINNING.len()];
    let read = file.read_exact(&mut beginning);
    let is_it =
        stat.kind == FileKind::Regular && stat.size == copy.size && read.is_ok() && beginning == BEGINNING;
    if is_it {
        return Ok(file);
    }
    Err(FileError::new(
        "send",
        &copy.path,
        FileProblem::WrongKind,
        "it is not the encrypted file that was made",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scripted::ScriptedHost;

    struct Node {
        folder: tempfile::TempDir,
        host: Arc<ScriptedHost>,
        hub: Arc<CopyHub>,
    }

    impl Node {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("root");
            std::fs::create_dir_all(root.join("b")).unwrap();
            std::fs::create_dir(folder.path().join("state")).unwrap();
            let host = Arc::new(ScriptedHost::new(&root, &folder.path().join("notes")).unwrap());
            let hub = CopyHub::open(&folder.path().join("state"), host.clone());
            Self { folder, host, hub }
        }

        fn restart(&mut self) {
            self.hub = CopyHub::open(&self.folder.path().join("state"), self.host.clone());
        }

        fn file(&self, name: &str) -> PathBuf {
            self.folder.path().join("root/b").join(name)
        }

        fn copy(&self, name: &str, bytes: &[u8], minutes: i64) -> WaitingCopy {
            std::fs::write(self.file(name), bytes).unwrap();
            WaitingCopy {
                backup: "config".to_owned(),
                made: Timestamp::clamped(self.host.script().now.as_millis() + minutes * 60_000),
                archive: Digest::of(name.as_bytes()),
                path: PathBuf::from("/b").join(name),
                sha256: Digest::of(bytes),
                size: bytes.len() as u64,
            }
        }
    }

    fn content(length: usize) -> Vec<u8> {
        let mut bytes = BEGINNING.to_vec();
        bytes.extend((0..length).map(|at| (at / 251).to_le_bytes()[0]));
        bytes
    }

    fn taken(piece: &CopyPiece, offset: u64, kept: bool) -> CopyAnswer {
        CopyAnswer { sha256: piece.sha256, offset, kept, error: None, refused: false }
    }

    /// A controller that takes what fits; gives what it has.
    fn drain(hub: &CopyHub, mut has: Vec<u8>, stop_at: usize) -> Vec<u8> {
        while let (Some(piece), _) = hub.take_piece() {
            if piece.offset == has.len() as u64 {
                has.extend(&piece.data);
            }
            let kept = Digest::of(&has) == piece.sha256;
            hub.answered(&taken(&piece, has.len() as u64, kept));
            if has.len() >= stop_at {
                break;
            }
        }
        has
    }

    #[test]
    fn a_copy_goes_on_where_it_stood_after_links_and_lives() {
        let mut node = Node::new();
        let bytes = content(5 * PIECE_BYTES);
        node.hub.add(vec![node.copy("a.age", &bytes, 0)]).unwrap();
        assert!(node.hub.take_piece().0.is_none(), "no link");
        node.hub.link_up();
        let has = drain(&node.hub, Vec::new(), 2 * PIECE_BYTES);
        // The link breaks while a piece is under way, and its answer comes late.
        let (lost, _) = node.hub.take_piece();
        node.hub.link_down();
        node.hub.answered(&taken(&lost.unwrap(), 3 * PIECE_BYTES as u64, false));
        node.restart();
        node.hub.link_up();
        let first = node.hub.take_piece().0.unwrap();
        assert_eq!((first.offset, first.data.len()), (0, 0), "it asks first");
        node.hub.answered(&taken(&first, has.len() as u64, false));
        assert!(drain(&node.hub, has, usize::MAX) == bytes);
        assert!(!node.file("a.age").exists(), "the controller has it");
        node.restart();
        node.hub.link_up();
        assert!(node.hub.take_piece().0.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_waits_and_others_go_first() {
        let node = Node::new();
        let (one, two) = (content(10), content(20));
        node.hub.add(vec![node.copy("a.age", &one, 0), node.copy("b.age", &two, 1)]).unwrap();
        node.hub.link_up();
        let began = Instant::now();
        let piece = node.hub.next_piece().await;
        let no = CopyAnswer { error: Some("disk is short".into()), ..taken(&piece, 0, false) };
        node.hub.answered(&no);
        let piece = node.hub.next_piece().await;
        assert_eq!((began.elapsed(), piece.sha256), (PAUSE, Digest::of(&two)));
        node.hub.answered(&CopyAnswer {
            refused: true,
            error: Some("quota".into()),
            ..taken(&piece, 0, false)
        });
        let piece = node.hub.next_piece().await;
        assert_eq!((began.elapsed(), piece.offset), (PAUSE + LONG_PAUSE, 0));
        assert_eq!(drain(&node.hub, Vec::new(), 1).len(), 0, "the answer is awaited");
    }

    #[test]
    fn only_the_newest_of_a_backup_wait_and_none_for_ever() {
        let node = Node::new();
        let copies: Vec<_> = (0..6)
            .map(|n| node.copy(&format!("{n}.age"), &content(usize::try_from(n).unwrap()), n))
            .collect();
        for copy in &copies {
            node.hub.add(vec![copy.clone(), copy.clone()]).unwrap();
        }
        let there: Vec<bool> = (0..6).map(|n| node.file(&format!("{n}.age")).exists()).collect();
        assert_eq!(there, [false, false, false, true, true, true]);
        let old = WaitingCopy { backup: "other".into(), ..node.copy("old.age", &content(9), -60 * 24 * 31) };
        node.hub.add(vec![old]).unwrap();
        assert!(!node.file("old.age").exists());
    }

    #[test]
    fn what_was_put_in_its_place_never_leaves_the_node() {
        let node = Node::new();
        let bytes = content(100);
        let copy = node.copy("a.age", &bytes, 0);
        let secret = vec![b'x'; bytes.len()];
        for put in ["file", "link", "other length"] {
            std::fs::write(node.file("secret"), &secret).unwrap();
            let path = node.file("a.age");
            let _ = std::fs::remove_file(&path);
            match put {
                "file" => std::fs::write(&path, &secret).unwrap(),
                "link" => std::os::unix::fs::symlink("secret", &path).unwrap(),
                _ => std::fs::write(&path, content(7)).unwrap(),
            }
            node.hub.add(vec![copy.clone()]).unwrap();
            node.hub.link_up();
            let query = node.hub.take_piece().0.unwrap();
            node.hub.answered(&taken(&query, 0, false));
            assert!(node.hub.take_piece().0.is_none(), "{put}");
        }
        // One that is damaged on the node's own disk is not sent for ever.
        let mut damaged = bytes;
        damaged[50] ^= 1;
        std::fs::write(node.file("a.age"), &damaged).unwrap();
        node.hub.add(vec![copy]).unwrap();
        let mut pieces = 0;
        while let (Some(piece), _) = node.hub.take_piece() {
            pieces += 1;
            node.hub.answered(&taken(&piece, 0, false));
        }
        assert_eq!(pieces, 1 + MAX_STARTS, "asked once, then sent in vain");
    }
}
