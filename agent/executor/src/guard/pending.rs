//! The folder of one guarded change.
//!
//! | file | says |
//! |---|---|
//! | `order.json` | what is to be put back; while it is there the change is armed |
//! | `deadline.json` | until when, on boot time |
//! | `decision` | `confirmed` or `undoing`: made once, by a link to a file that is there since the arming, so that a full disk stops neither |
//! | `console.json` | what a person wants who decides at the node itself |
//! | `restarted.json` | in which boot putting back had the machine restarted |
//! | `result.json` | what putting back came to |
//! | `lock` | held by the guard's process for as long as it lives |
//! | `working` | held by the executor while it makes the change |
//!
//! A decision is never changed: what was confirmed is not undone, and what the guard has begun to undo is not confirmed
//! (security-and-delivery §2.10). Called by the keeper and by the guard.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_types::id::{Attempt, RunId};
use fleet_types::report::StepReport;
use fleet_types::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::order::GuardOrder;
use crate::durable;
use crate::host::Clock;

/// Room on a full disk for putting back: records of the programs that it starts, notes of tasks, and the result.
const ROOM: usize = 1024 * 1024;
/// After a restart of the machine the agent comes up within this time: a firewall with many interfaces waits two minutes for
/// its network (`systemd-networkd-wait-online(8)`), and its own services come before it.
const START_ALLOWANCE: Duration = Duration::from_mins(5);

/// Until when a change may stand unconfirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The boot that it counts in. In another one it is over.
    pub boot_id: String,
    /// Milliseconds since that boot.
    pub ms: u64,
    /// It was made in the boot after the restart that its step asked for: in one after that it is over.
    #[serde(default)]
    pub anew: bool,
}

impl Deadline {
    /// At this time of the present boot.
    pub fn at(boot_id: String, since_boot: Duration) -> Self {
        Self { boot_id, ms: u64::try_from(since_boot.as_millis()).unwrap_or(u64::MAX), anew: false }
    }

    /// How long there is still; none when it is over.
    pub fn left(&self, boot_id: &str, since_boot: Duration) -> Option<Duration> {
        let left = Duration::from_millis(self.ms).checked_sub(since_boot)?;
        (self.boot_id == boot_id && !left.is_zero()).then_some(left)
    }
}

/// What a person said at the node's console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Console {
    /// What is to become of the change.
    pub wants: Decision,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

impl fmt::Display for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at the console by {}, {}: {}", self.by, self.at, self.reason)
    }
}

/// What becomes of the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It stays.
    Confirmed,
    /// The guard puts it back.
    Undoing,
}

impl Decision {
    const fn word(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Undoing => "undoing",
        }
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    folder: PathBuf,
}

impl Pending {
    /// The folder at this path.
    pub const fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder of a step's change, below the folder of all. A job's attempt carries a step out once at a time.
    pub fn of(all: &Path, run: RunId, attempt: Attempt, step: &str) -> Self {
        Self::at(all.join(format!("{run}.{}.{step}", attempt.0)))
    }

    /// All that lie in a folder, in the order of their names.
    pub fn all(folder: &Path) -> Vec<Self> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut all: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        all.sort_unstable();
        all.into_iter().map(Self::at).collect()
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The run and the attempt in its name.
    pub fn job(&self) -> Option<(RunId, Attempt)> {
        let name = self.folder.file_name()?.to_str()?;
        let (run, rest) = name.split_once('.')?;
        let attempt = rest.split('.').next()?.parse().ok()?;
        Some((run.parse().ok()?, Attempt(attempt)))
    }

    /// Writes all that a guard needs; the order comes last, and with it the change is armed.
    pub fn arm(&self, order: &GuardOrder, deadline: &Deadline) -> io::Result<()> {
        // What an arming left that did not come to its end.
        self.remove()?;
        durable::make_private_directory(&self.folder)?;
        for decision in [Decision::Confirmed, Decision::Undoing] {
            durable::write_atomically(&self.prepared(decision), decision.word().as_bytes())?;
        }
        durable::write_atomically(&self.file("room"), &vec![b' '; ROOM])?;
        for lock in ["lock", "working"] {
            // Made here alone: a look at a lock must not bring a folder back that is being removed.
            File::create(self.file(lock))?;
        }
        self.write("deadline.json", deadline)?;
        self.write("order.json", order)?;
        // Its own entry, too.
        self.folder.parent().map_or(Ok(()), durable::sync_directory)
    }

    /// The order; none where nothing is armed.
    pub fn order(&self) -> io::Result<Option<GuardOrder>> {
        self.read("order.json")
    }

    /// Is a change armed here, whatever has become of it?
    pub fn is_armed(&self) -> bool {
        self.file("order.json").exists()
    }

    /// Until when. One that cannot be read is over: the guard's word is to put back.
    pub fn deadline(&self) -> Option<Deadline> {
        self.read("deadline.json").ok().flatten()
    }

    /// Sets another deadline; the guard looks several times a second.
    pub fn set_deadline(&self, deadline: &Deadline) -> io::Result<()> {
        self.write("deadline.json", deadline)
    }

    /// How long a change may still stand unconfirmed; none when that is over. After the restart that its step asked for that
    /// is counted anew, once, from the first look in the new boot (security-and-delivery §2.10).
    pub fn left(&self, order: &GuardOrder, clock: &dyn Clock) -> Option<Duration> {
        let deadline = self.deadline()?;
        let (boot_id, now) = (clock.boot_id(), clock.since_boot());
        if deadline.boot_id == boot_id || deadline.anew || !order.restarts {
            return deadline.left(&boot_id, now);
        }
        let left = Duration::from_millis(order.window_ms) + START_ALLOWANCE;
        let anew = Deadline { anew: true, ..Deadline::at(boot_id, now + left) };
        // What cannot be counted is over.
        self.set_deadline(&anew).is_ok().then_some(left)
    }

    /// Keeps the boot in which putting back has the machine restarted.
    pub fn note_restart(&self, boot_id: &str) -> io::Result<()> {
        self.write("restarted.json", boot_id)
    }

    /// The boot in which putting back had the machine restarted.
    pub fn restarted_from(&self) -> Option<String> {
        self.read("restarted.json").ok().flatten()
    }

    /// Decides, unless it was decided: gives what counts.
    pub fn decide(&self, decision: Decision) -> io::Result<Decision> {
        match fs::hard_link(self.prepared(decision), self.file("decision")) {
            Ok(()) => {
                durable::sync_directory(&self.folder)?;
                Ok(decision)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.decision()?.ok_or_else(|| io::Error::other("the decision is gone again"))
            }
            Err(error) => Err(error),
        }
    }

    /// What was decided.
    pub fn decision(&self) -> io::Result<Option<Decision>> {
        let Some(text) = durable::read_if_there(&self.file("decision"))? else { return Ok(None) };
        let known = [Decision::Confirmed, Decision::Undoing].into_iter();
        let decision = known.into_iter().find(|decision| decision.word().as_bytes() == text);
        decision.map(Some).ok_or_else(|| io::Error::other("the decision says neither of its two words"))
    }

    /// Keeps what a person says before they decide.
    pub fn say(&self, console: &Console) -> io::Result<()> {
        self.write("console.json", console)
    }

    /// What a person has said who wants it to end so.
    pub fn said(&self, decision: Decision) -> Option<Console> {
        self.read::<Console>("console.json").ok().flatten().filter(|said| said.wants == decision)
    }

    /// Gives up the room that was kept for putting back.
    pub fn make_room(&self) -> io::Result<()> {
        match fs::remove_file(self.file("room")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Keeps what putting back came to.
    pub fn write_result(&self, steps: &[StepReport]) -> io::Result<()> {
        self.write("result.json", &steps)
    }

    /// What putting back came to, once it is over.
    pub fn result(&self) -> io::Result<Option<Vec<StepReport>>> {
        self.read("result.json")
    }

    /// Takes the guard's lock; none where another process has it.
    pub fn try_lock(&self) -> io::Result<Option<File>> {
        self.try_lock_of("lock")
    }

    /// Is there a guard?
    pub fn is_watched(&self) -> bool {
        matches!(self.try_lock(), Ok(None))
    }

    /// Says for as long as the file lives that somebody is at the change; none where somebody is already.
    pub fn begin_work(&self) -> io::Result<Option<File>> {
        self.try_lock_of("working")
    }

    /// Is somebody at the change?
    pub fn is_worked_on(&self) -> bool {
        matches!(self.begin_work(), Ok(None))
    }

    fn try_lock_of(&self, name: &str) -> io::Result<Option<File>> {
        let file = OpenOptions::new().write(true).open(self.file(name))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Forgets it all, the order first. A guard that watches ends.
    pub fn remove(&self) -> io::Result<()> {
        for done in [fs::remove_file(self.file("order.json")), fs::remove_dir_all(&self.folder)] {
            match done {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn prepared(&self, decision: Decision) -> PathBuf {
        self.file(&format!("if-{}", decision.word()))
    }

    fn write(&self, name: &str, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
        durable::write_atomically(&self.file(name), &serde_json::to_vec(value)?)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let Some(bytes) = durable::read_if_there(&self.file(name))? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(&bytes)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder as an arming leaves it, less the order.
    fn pending(folder: &Path) -> Pending {
        let pending = Pending::of(folder, RunId::from_number(7), Attempt(1), "load");
        durable::make_private_directory(pending.folder()).unwrap();
        for decision in [Decision::Confirmed, Decision::Undoing] {
            fs::write(pending.prepared(decision), decision.word()).unwrap();
        }
        for lock in ["lock", "working"] {
            File::create(pending.file(lock)).unwrap();
        }
        pending
    }

    #[test]
    fn the_first_decision_counts_and_a_wish_is_told_of_where_it_came_true() {
        let folder = tempfile::tempdir().unwrap();
        let pending = pending(folder.path());
        assert_eq!(pending.job(), Some((RunId::from_number(7), Attempt(1))));
        assert_eq!(pending.decision().unwrap(), None);
        assert_eq!(pending.decide(Decision::Undoing).unwrap(), Decision::Undoing);
        let (by, reason) = ("grace".to_owned(), "too late".to_owned());
        pending.say(&Console { wants: Decision::Confirmed, by, reason, at: Timestamp::clamped(0) }).unwrap();
        assert_eq!(pending.decide(Decision::Confirmed).unwrap(), Decision::Undoing);
        assert_eq!(pending.said(Decision::Undoing), None, "nobody asked for what came");
        assert!(pending.said(Decision::Confirmed).is_some());
    }

    #[test]
    fn a_look_at_a_lock_brings_nothing_back() {
        let folder = tempfile::tempdir().unwrap();
        let pending = pending(folder.path());
        let held = pending.begin_work().unwrap().unwrap();
        assert!(pending.is_worked_on() && !pending.is_watched());
        drop(held);
        assert!(!pending.is_worked_on());
        pending.remove().unwrap();
        assert!(!pending.is_worked_on() && !pending.is_watched() && pending.begin_work().is_err());
        assert_eq!(Pending::all(folder.path()), []);
    }
}
