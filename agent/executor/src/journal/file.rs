//! The journal's file: opening with repair, appending with fsync, compaction when it has grown.
//!
//! One executor at a time holds the file's lock. An entry that `append` returned for is on the disk. After a
//! failed append nothing more is written, because what the disk holds is not known then. Called by the
//! dispatcher and runs through [`Journal`], whose lock is held for one write only and never across an await.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleet_types::time::Timestamp;

use super::contents::{Contents, rewrite};
use super::entry::Entry;
use super::frame::{self, Ending};
use super::numbers::Numbers;
use super::table::JobTable;
use super::versions;
use crate::damage;
use crate::durable::{self, Reserve};
use crate::retention::COMPACT_FROM_BYTES;

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
    /// An earlier write failed.
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
    #[cfg(any(test, feature = "crash-points"))]
    pub(crate) crash: crate::crash::Crash,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// None once closed.
    file: Option<Held>,
    /// Length of the good part.
    length: u64,
    sequence: u64,
    numbers: Numbers,
    /// Length after the last compaction.
    compacted: u64,
}

/// The file that is appended to, and the lock that lives as long.
#[derive(Debug)]
struct Held {
    file: File,
    lock: JournalLock,
}

impl Held {
    /// Is the file that is held still the one of this name?
    fn is_at(&self, path: &Path) -> bool {
        let (held, named) = (self.file.metadata(), fs::metadata(path));
        matches!((held, named), (Ok(held), Ok(named)) if (held.dev(), held.ino()) == (named.dev(), named.ino()))
    }
}

/// Held by whoever may change the executor's state: one executor, or a command that must not meet one.
#[derive(Debug)]
pub struct JournalLock {
    _file: File,
}

impl JournalLock {
    /// Takes the lock of this state directory.
    pub fn hold(directory: &Path) -> Result<Self, JournalError> {
        let path = directory.join("journal.lock");
        let shown = path.display().to_string();
        let failed = |source| JournalError::Io { path: shown.clone(), what: "locking", source };
        let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = options.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(JournalError::Held(shown)),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

/// What opening gave.
#[derive(Debug)]
pub struct Opened {
    /// The journal, ready for more.
    pub journal: Journal,
    /// What it knows.
    pub table: JobTable,
    /// What is damaged, missing or not understood, in words; the executor makes no new changes then.
    pub damage: Option<String>,
}

impl Journal {
    /// Opens or makes the journal in `directory`, cuts a torn tail, sets damage aside, compacts when large.
    pub fn open(directory: &Path, reserve: Reserve, now: Timestamp) -> Result<Opened, JournalError> {
        let path = directory.join("journal");
        let lock = JournalLock::hold(directory)?;
        let failed = |what| {
            let path = path.display().to_string();
            move |source| JournalError::Io { path, what, source }
        };
        let bytes = durable::read_if_there(&path).map_err(failed("reading"))?.unwrap_or_default();
        let mut numbers = Numbers::open(directory).map_err(failed("reading its numbers"))?;
        let mut contents = Contents::read(&bytes);
        let mut sequence = contents.last;
        let mut length = bytes.len() as u64;
        let mut compacted = 0;
        let mut marked = damage::marked(directory).map_err(failed("reading the mark of damage"))?;
        // Of a file that was cut within its first frame too.
        let is_new = sequence == 0;
        let found = contents.damage.take().or_else(|| {
            let is_older = !is_new && sequence < numbers.reached();
            is_older.then(|| {
                format!(
                    "the journal ends at entry {sequence}, but entry {} was written: an older one is in its place",
                    numbers.reached()
                )
            })
        });
        if found.is_some() || is_new {
            // The lost part had numbers that the controller may know: go on above them all.
            sequence = sequence.max(numbers.until());
        }
        if let Some(found) = &found {
            let aside = directory.join("journal.damaged");
            durable::write_atomically(&aside, &bytes).map_err(failed("setting damage aside"))?;
            marked = Some(damage::mark(directory, found).map_err(failed("marking the damage"))?);
        }
        if found.is_some() || is_new || length >= COMPACT_FROM_BYTES {
            if found.is_none() {
                contents.compact(now);
            }
            length =
                rewrite(&path, &contents.kept, &mut sequence, &mut numbers).map_err(failed("rewriting"))?;
            compacted = length;
        } else if let Ending::Torn { keep } = contents.ending {
            length = keep as u64;
            cut(&path, keep).map_err(failed("cutting the torn tail"))?;
        }
        let table = contents.table();
        let newer = contents.newer.map(|newer| {
            format!("the journal has entries of a newer agent ({newer}): install that one again")
        });
        let file = append_to(&path).map_err(failed("opening"))?;
        let file = Some(Held { file, lock });
        let inner = Mutex::new(Inner { file, length, sequence, numbers, compacted });
        let journal = Self {
            path,
            reserve,
            #[cfg(any(test, feature = "crash-points"))]
            crash: crate::crash::Crash::Never,
            inner,
        };
        Ok(Opened { journal, table, damage: marked.or(newer) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> JournalError {
        let path = self.path.display().to_string();
        move |source| JournalError::Io { path, what, source }
    }

    /// Writes one entry and waits until the disk has it; gives its number.
    pub fn append(&self, entry: &Entry) -> Result<u64, JournalError> {
        let payload = versions::write(entry);
        if payload.len() > frame::MAX_PAYLOAD_BYTES {
            return Err(JournalError::TooLarge(payload.len()));
        }
        let mut guard = self.inner();
        let inner = &mut *guard;
        let (sequence, length) = (inner.sequence + 1, inner.length);
        let bytes = frame::encode(sequence, &payload);
        let Some(Held { file, .. }) = inner.file.as_ref() else { return Err(JournalError::Closed) };
        let (reached, numbers) = (inner.sequence, &mut inner.numbers);
        let written = self.reserve.with_room(|| {
            numbers.note(reached, sequence)?;
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
                Err(self.failed("writing")(source))
            }
        }
    }

    /// Compacts the journal when it has grown, while the executor runs. A failure leaves it as it was.
    pub fn compact_if_grown(&self, now: Timestamp) -> Result<(), JournalError> {
        let mut guard = self.inner();
        let inner = &mut *guard;
        let has_grown = inner.length >= COMPACT_FROM_BYTES.max(inner.compacted * 2);
        if !has_grown || inner.file.is_none() {
            return Ok(());
        }
        let bytes = fs::read(&self.path).map_err(self.failed("reading"))?;
        let mut contents = Contents::read(&bytes);
        if contents.ending != Ending::Clean || contents.damage.is_some() {
            let source = io::Error::other("it is damaged; the next start sets that aside");
            return Err(self.failed("compacting")(source));
        }
        contents.compact(now);
        // Closed while it is replaced: what is appended to a file without a name is on no disk after a restart.
        let Some(held) = inner.file.take() else { return Err(JournalError::Closed) };
        let (sequence, numbers) = (&mut inner.sequence, &mut inner.numbers);
        let rewritten = self.reserve.with_room(|| rewrite(&self.path, &contents.kept, sequence, numbers));
        let length = match rewritten {
            Ok(length) => length,
            Err(source) => {
                inner.file = held.is_at(&self.path).then_some(held);
                return Err(self.failed("compacting")(source));
            }
        };
        let Held { lock, .. } = held;
        let file = append_to(&self.path).map_err(self.failed("opening"))?;
        inner.file = Some(Held { file, lock });
        inner.length = length;
        inner.compacted = length;
        Ok(())
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
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).open(path)
}

fn cut(path: &Path, keep: usize) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(keep as u64)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use fleet_types::id::{Attempt, RunId};

    use super::*;
    use crate::retention::REMEMBERED;

    fn now() -> Timestamp {
        Timestamp::clamped(1_790_000_000_000)
    }

    fn tombstone(number: u64) -> Entry {
        let reason = format!("reason {number}");
        Entry::Tombstone { run: RunId::from_number(number), attempt: Attempt(1), reason, at: now() }
    }

    fn open(directory: &Path, at: Timestamp) -> Opened {
        Journal::open(directory, Reserve::keep(directory), at).unwrap()
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
        let two = whole.len() - frame::encode(4, &versions::write(&tombstone(3))).len();
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
        damage::accept(directory.path()).unwrap();
        assert_eq!(open(directory.path(), now()).damage, None);
    }

    #[test]
    fn a_file_that_lost_its_name_is_not_appended_to() {
        let directory = tempfile::tempdir().unwrap();
        let opened = open(directory.path(), now());
        let path = directory.path().join("journal");
        let is_at = || opened.journal.inner().file.as_ref().unwrap().is_at(&path);
        assert!(is_at());
        fs::write(directory.path().join("next"), "x").unwrap();
        fs::rename(directory.path().join("next"), &path).unwrap();
        assert!(!is_at());
        fs::remove_file(&path).unwrap();
        assert!(!is_at());
    }

    #[test]
    fn one_executor_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path(), now());
        let second = Journal::open(directory.path(), Reserve::keep(directory.path()), now());
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
                at: if number < 6 { now() } else { now().plus(REMEMBERED) },
            };
            opened.journal.append(&entry).unwrap();
        }
        drop(opened);
        let opened = open(directory.path(), now().plus(REMEMBERED * 2));
        assert_eq!((opened.table.iter().count(), opened.journal.sequence()), (1, 9));
    }

    #[test]
    fn numbers_go_on_above_all_that_were_used_and_none_is_made_up() {
        let directory = tempfile::tempdir().unwrap();
        let whole = three_entries(directory.path());
        let path = directory.path().join("journal");
        // Eighty kilobytes of anything, and nothing at all.
        for journal in [Some(vec![0xa5_u8; 80_000]), None] {
            match &journal {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let opened = open(directory.path(), now());
            assert!(opened.damage.is_some());
            assert!((1002..4000).contains(&opened.journal.sequence()), "{}", opened.journal.sequence());
        }
        // The old journal is put back: it is noticed, and its numbers do not come again.
        fs::write(&path, &whole).unwrap();
        damage::accept(directory.path()).unwrap();
        let opened = open(directory.path(), now());
        assert!(opened.damage.is_some_and(|text| text.contains("an older one is in its place")));
        assert!(opened.journal.sequence() > 2000 && opened.table.iter().count() == 3);
    }

    #[test]
    fn entries_of_a_newer_agent_stay_for_it_and_stop_changes_until_then() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = three_entries(directory.path());
        bytes.extend(frame::encode(5, b"{\"v\":9,\"entry\":\"guard_extended\"}"));
        bytes.extend(frame::encode(6, b"{\"v\":9,\"entry\":\"weather\",\"skip\":true}"));
        fs::write(directory.path().join("journal"), &bytes).unwrap();
        for _ in 0..2 {
            let opened = open(directory.path(), now());
            let damage = opened.damage.unwrap();
            assert!(damage.contains("entry 5: guard_extended, version 9"), "{damage}");
            assert_eq!((opened.journal.sequence(), opened.table.iter().count()), (6, 3));
        }
        assert_eq!(fs::read(directory.path().join("journal")).unwrap(), bytes, "not touched");
        assert_eq!(damage::marked(directory.path()).unwrap(), None, "over with the newer agent's start");
    }

    #[test]
    fn a_running_journal_is_compacted_when_it_has_grown_and_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let opened = open(directory.path(), now());
        let long = "x".repeat(200 * 1024);
        let mut longest = 0;
        for number in 1..=60 {
            let entry = Entry::Tombstone {
                run: RunId::from_number(number),
                attempt: Attempt(1),
                reason: long.clone(),
                at: now(),
            };
            opened.journal.append(&entry).unwrap();
            opened.journal.compact_if_grown(now().plus(REMEMBERED * 2)).unwrap();
            longest = longest.max(fs::metadata(directory.path().join("journal")).unwrap().len());
        }
        assert!(longest < COMPACT_FROM_BYTES + 512 * 1024, "{longest}");
        let last = opened.journal.append(&tombstone(61)).unwrap();
        drop(opened);
        let opened = open(directory.path(), now());
        assert_eq!((opened.damage, opened.journal.sequence()), (None, last));
        assert!(opened.table.iter().any(|((run, _), _)| *run == RunId::from_number(61)));
    }
}
