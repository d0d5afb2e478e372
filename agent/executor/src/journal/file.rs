//! The journal's file: opening with repair, appending with fsync, compaction at start.
//!
//! One executor at a time holds the file's lock. An entry that `append` returned for is on the disk. After a
//! failed append nothing more is written, because what the disk holds is not known then. Called by the
//! dispatcher and runs through [`Journal`], whose lock is held for one write only and never across an await.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleet_types::time::Timestamp;

use super::entry::Entry;
use super::frame::{self, Ending};
use super::table::JobTable;
use crate::crash::{Crash, CrashPoint};
use crate::durable::{self, Reserve};

/// A journal of this size is compacted at start: about ten thousand entries, read in well under a second.
const COMPACT_FROM_BYTES: u64 = 4 * 1024 * 1024;

/// The journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("journal {path}: {what} failed")]
    Io {
        /// The file.
        path: String,
        /// What was done.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another executor holds it.
    #[error("journal {0} is held by another executor; stop that one first")]
    Held(String),
    /// An earlier write failed, or a test ended this executor.
    #[error("the journal is closed since an earlier write failed; restart the executor")]
    Closed,
    /// An entry over the limit of one frame.
    #[error("an entry of {0} bytes is over the limit of one frame")]
    TooLarge(usize),
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    reserve: Reserve,
    crash: Crash,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// None once closed.
    file: Option<Held>,
    /// Length of the good part.
    length: u64,
    sequence: u64,
}

/// The file that is appended to, and the lock that lives as long.
#[derive(Debug)]
struct Held {
    file: File,
    _lock: File,
}

/// What opening gave.
#[derive(Debug)]
pub struct Opened {
    /// The journal, ready for more.
    pub journal: Journal,
    /// What it knows.
    pub table: JobTable,
    /// What was damaged, in words; the executor makes no new changes then.
    pub damage: Option<String>,
}

impl Journal {
    /// Opens or makes the journal in `directory`, cuts a torn tail, sets damage aside, compacts when large.
    pub fn open(
        directory: &Path,
        reserve: Reserve,
        crash: Crash,
        now: Timestamp,
    ) -> Result<Opened, JournalError> {
        let path = directory.join("journal");
        let lock = hold_lock(&directory.join("journal.lock"))?;
        let failed = |what| {
            let path = path.display().to_string();
            move |source| JournalError::Io { path, what, source }
        };
        let bytes = durable::read_if_there(&path).map_err(failed("reading"))?.unwrap_or_default();
        let (frames, ending) = frame::read_all(&bytes);
        let mut sequence = frames.last().map_or(0, |f| f.sequence);
        let known = read_marker(directory).map_err(failed("reading the mark of damage"))?;
        let mut damage = known.clone();
        let mut entries: Vec<Entry> = Vec::with_capacity(frames.len());
        for frame in &frames {
            match serde_json::from_slice::<Option<Entry>>(frame.payload) {
                Ok(entry) => entries.extend(entry),
                // Whole, but not ours: of another version, or written by somebody else.
                Err(_) => damage = Some(format!("journal entry {} is not understood", frame.sequence)),
            }
        }
        if let Ending::Damaged { at } = ending {
            damage = Some(format!("the journal is damaged at byte {at} of {}", bytes.len()));
        }
        let mut table = JobTable::default();
        for entry in &entries {
            table.apply(entry);
        }
        let mut length = bytes.len() as u64;
        if damage != known {
            let text = damage.as_deref().unwrap_or_default();
            set_aside(directory, &bytes, text).map_err(failed("setting damage aside"))?;
            // Sequences of the lost part may be known to the controller: go on above them all.
            sequence += bytes.len() as u64;
            length = rewrite(&path, &entries, &mut sequence).map_err(failed("rewriting"))?;
        } else if length >= COMPACT_FROM_BYTES || bytes.len() < frame::MAGIC.len() {
            let kept = compacted(&entries, &table, now);
            length = rewrite(&path, &kept, &mut sequence).map_err(failed("compacting"))?;
            table = JobTable::default();
            for entry in &kept {
                table.apply(entry);
            }
        } else if let Ending::Torn { keep } = ending {
            length = keep as u64;
            cut(&path, keep).map_err(failed("cutting the torn tail"))?;
        }
        let file = OpenOptions::new().append(true).open(&path).map_err(failed("opening"))?;
        let inner = Mutex::new(Inner { file: Some(Held { file, _lock: lock }), length, sequence });
        Ok(Opened { journal: Self { path, reserve, crash, inner }, table, damage })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one entry and waits until the disk has it; gives its number.
    pub fn append(&self, entry: &Entry) -> Result<u64, JournalError> {
        // Entries have string keys and no failing serialisers.
        let payload = serde_json::to_vec(entry).unwrap_or_default();
        if payload.len() > frame::MAX_PAYLOAD_BYTES {
            return Err(JournalError::TooLarge(payload.len()));
        }
        let mut inner = self.inner();
        let (sequence, length) = (inner.sequence + 1, inner.length);
        let bytes = frame::encode(sequence, &payload);
        let Some(Held { file, .. }) = inner.file.as_ref() else { return Err(JournalError::Closed) };
        let written = self.reserve.with_room(|| {
            // A first try on a full disk may have left a part of the frame.
            file.set_len(length)?;
            (&*file).write_all(&bytes)?;
            file.sync_data()
        });
        match written {
            Ok(()) => {
                inner.sequence = sequence;
                inner.length += bytes.len() as u64;
                Ok(sequence)
            }
            Err(source) => {
                inner.file = None;
                Err(JournalError::Io { path: self.path.display().to_string(), what: "writing", source })
            }
        }
    }

    /// Number of the newest entry.
    pub fn sequence(&self) -> u64 {
        self.inner().sequence
    }

    /// Can it be written?
    pub fn is_open(&self) -> bool {
        self.inner().file.is_some()
    }

    /// Closes the file and lets go of its lock; later appends fail.
    pub fn close(&self) {
        self.inner().file = None;
    }

    /// Tells the tests' hook where the executor has come to.
    pub fn reach(&self, point: CrashPoint) -> Result<(), JournalError> {
        if self.crash.reach(point) {
            self.close();
        }
        if self.is_open() { Ok(()) } else { Err(JournalError::Closed) }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

/// Ends safe mode after a person has looked at the journal that was set aside. The executor must not run.
pub fn accept_damage(directory: &Path) -> io::Result<()> {
    match fs::remove_file(directory.join(DAMAGE_MARK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => durable::sync_directory(directory),
    }
}

/// Says that the journal was damaged, until a person removes it: a restart must not forget that.
const DAMAGE_MARK: &str = "journal.damage";

fn read_marker(directory: &Path) -> io::Result<Option<String>> {
    let bytes = durable::read_if_there(&directory.join(DAMAGE_MARK))?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn set_aside(directory: &Path, bytes: &[u8], text: &str) -> io::Result<()> {
    durable::write_atomically(&directory.join("journal.damaged"), bytes)?;
    durable::write_atomically(&directory.join(DAMAGE_MARK), text.as_bytes())
}

fn hold_lock(path: &Path) -> Result<File, JournalError> {
    let shown = path.display().to_string();
    let failed = |source| JournalError::Io { path: shown.clone(), what: "locking", source };
    let lock =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(JournalError::Held(shown)),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn cut(path: &Path, keep: usize) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(keep as u64)?;
    file.sync_all()
}

/// Writes a new file with these entries under new, higher numbers, and puts it in place.
fn rewrite(path: &Path, entries: &[Entry], sequence: &mut u64) -> io::Result<u64> {
    let mut bytes = frame::MAGIC.to_vec();
    // A frame that says nothing but its number: numbers go on even when no entry is kept.
    *sequence += 1;
    bytes.extend(frame::encode(*sequence, b"null"));
    for entry in entries {
        *sequence += 1;
        bytes.extend(frame::encode(*sequence, &serde_json::to_vec(entry)?));
    }
    durable::write_atomically(path, &bytes)?;
    Ok(bytes.len() as u64)
}

/// What a compacted journal keeps: all of what is open or unsent, the ends of what is remembered.
fn compacted(entries: &[Entry], table: &JobTable, now: Timestamp) -> Vec<Entry> {
    let keeps = |entry: &&Entry| {
        let Some(job) = table.get(&entry.job()) else { return false };
        let step = matches!(entry, Entry::StepBegin { .. } | Entry::StepEnd { .. });
        !JobTable::may_forget(job, now) && (job.finished.is_none() || !step)
    };
    entries.iter().filter(keeps).cloned().collect()
}

#[cfg(test)]
mod tests {
    use fleet_types::id::{Attempt, RunId};

    use super::*;

    fn now() -> Timestamp {
        Timestamp::clamped(1_790_000_000_000)
    }

    fn tombstone(number: u64) -> Entry {
        let reason = format!("reason {number}");
        Entry::Tombstone { run: RunId::from_number(number), attempt: Attempt(1), reason, at: now() }
    }

    fn open(directory: &Path, at: Timestamp) -> Opened {
        Journal::open(directory, Reserve::keep(directory), Crash::Never, at).unwrap()
    }

    fn three_entries(directory: &Path) -> Vec<u8> {
        let opened = open(directory, now());
        for number in 1..=3 {
            assert_eq!(opened.journal.append(&tombstone(number)).unwrap(), number + 1);
        }
        drop(opened);
        fs::read(directory.join("journal")).unwrap()
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_byte_of_the_last_frame() {
        let directory = tempfile::tempdir().unwrap();
        let whole = three_entries(directory.path());
        let two = whole.len() - frame::encode(4, &serde_json::to_vec(&tombstone(3)).unwrap()).len();
        for end in two..whole.len() {
            fs::write(directory.path().join("journal"), &whole[..end]).unwrap();
            let opened = open(directory.path(), now());
            assert_eq!(opened.damage, None, "cut at {end}");
            assert_eq!((opened.table.iter().count(), opened.journal.sequence()), (2, 3), "cut at {end}");
            opened.journal.append(&tombstone(9)).unwrap();
            drop(opened);
            let again = open(directory.path(), now());
            assert_eq!((again.table.iter().count(), again.damage), (3, None), "after a cut at {end}");
        }
    }

    #[test]
    fn damage_in_the_middle_is_set_aside_and_not_forgotten_by_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = three_entries(directory.path());
        bytes[frame::MAGIC.len() + 20] ^= 1;
        fs::write(directory.path().join("journal"), &bytes).unwrap();
        for _ in 0..2 {
            let opened = open(directory.path(), now());
            assert!(opened.damage.is_some_and(|text| text.contains("damaged at byte")));
            assert!(opened.journal.sequence() > 3);
        }
        assert_eq!(fs::read(directory.path().join("journal.damaged")).unwrap(), bytes);
        accept_damage(directory.path()).unwrap();
        assert_eq!(open(directory.path(), now()).damage, None);
    }

    #[test]
    fn one_executor_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path(), now());
        let second = Journal::open(directory.path(), Reserve::keep(directory.path()), Crash::Never, now());
        assert!(matches!(second, Err(JournalError::Held(_))));
        first.journal.close();
        assert!(matches!(first.journal.append(&tombstone(1)), Err(JournalError::Closed)));
        open(directory.path(), now());
    }

    #[test]
    fn compaction_forgets_what_is_over_and_keeps_numbers_rising() {
        let directory = tempfile::tempdir().unwrap();
        let opened = open(directory.path(), now());
        let long = "x".repeat(700 * 1024);
        for number in 1..=6 {
            let entry = Entry::Tombstone {
                run: RunId::from_number(number),
                attempt: Attempt(1),
                reason: long.clone(),
                at: if number < 6 { now() } else { now().plus(super::super::REMEMBERED) },
            };
            opened.journal.append(&entry).unwrap();
        }
        drop(opened);
        let opened = open(directory.path(), now().plus(super::super::REMEMBERED * 2));
        assert_eq!((opened.table.iter().count(), opened.journal.sequence()), (1, 9));
    }
}
