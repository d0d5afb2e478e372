//! The small things that an executor must never forget: the highest fencing values and bundle version, the
//! chain of its reports, and the key that signs them.
//!
//! Each write is atomic and on the disk before it counts. Nothing in here goes down, but the fence
//! where the root keys ask for it. Owned by the dispatcher.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fleet_types::digest::Digest;
use fleet_types::id::{Generation, LinkEpoch, RunId};
use fleet_types::seal::{SealError, SigningKey};
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::durable;

/// Schema of the file; a later one is refused by name.
const STATE_SCHEMA: &str = "fleet/v1/executor-state";
/// The report key's file.
pub const REPORT_KEY: &str = "report.key";

/// A store's generation rises with every restore; a node that was away for years has missed a few. Whoever holds a
/// controller's identity for a while may raise it link by link, but not beyond what the next honest controller can
/// step over (docs/adr/0014).
const MAX_GENERATION_STEP: u64 = 1000;
/// An epoch is given at every connect, also where its Welcome is lost: two years of one connect a minute.
const MAX_EPOCH_STEP: u64 = 1_000_000;
/// Documents that a node remembers revisions of: far more than anybody applies to one kind of node.
const MAX_REVISIONS: usize = 1_000;
/// Schedules that a node remembers a tick of: far more than anybody has for one kind of node. Of more, the one that has
/// not fired for the longest time is forgotten.
const MAX_TICKS: usize = 1_000;

/// What became of a link's fencing values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fenced {
    /// They are the highest seen.
    Taken,
    /// They are of an older controller or link.
    Lower,
    /// They are out of reach of any honest controller.
    TooFar,
}

/// The state or the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refused.
    #[error("{what} {path} failed")]
    Io {
        /// What was done.
        what: &'static str,
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what this executor wrote.
    #[error("{path} cannot be understood: {why}; restore it from a backup, or enrol this node again")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The report key cannot be made or read.
    #[error("the report key cannot be used")]
    Key(#[source] SealError),
}

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remembered {
    schema: String,
    /// Highest store generation seen.
    pub generation: Generation,
    /// Highest link epoch seen in that generation.
    pub link_epoch: LinkEpoch,
    /// The fence that was given up last: what the journal knows of it is no fence any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    given_up_fence: Option<(Generation, LinkEpoch)>,
    /// Version of the bundle that reset the fence last.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    fence_reset: u64,
    /// Highest version of a trust bundle seen.
    pub bundle_version: u64,
    /// Number of the newest report.
    pub report_sequence: u64,
    /// Its digest; none before the first.
    pub report_previous: Option<Digest>,
    /// Newest revisions that operators signed for this node, by `kind/name`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    revisions: BTreeMap<String, u32>,
    /// Newest ticks that have begun here, by `FILE/ID` of their schedule.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    ticks: BTreeMap<String, UsedTick>,
}

/// A tick and the run that began it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsedTick {
    at: Timestamp,
    run: RunId,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
const fn is_none_yet(version: &u64) -> bool {
    *version == 0
}

/// A revision of a document, as a request names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// `kind/name`.
    pub document: String,
    /// Its number under that name.
    pub number: u32,
}

/// The state and its file.
#[derive(Debug)]
pub struct SmallState {
    path: PathBuf,
    now: Remembered,
}

impl SmallState {
    /// Reads the state in `directory`; of a new node it is empty.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let path = directory.join("state.json");
        let malformed = |why| StateError::Malformed { path: path.display().to_string(), why };
        let read = durable::read_if_there(&path).map_err(|source| io_error("reading", &path, source))?;
        let now = match read {
            Some(bytes) => {
                let now: Remembered = serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
                if now.schema != STATE_SCHEMA {
                    return Err(malformed(format!(
                        "its schema is {:?}, known is {STATE_SCHEMA}",
                        now.schema
                    )));
                }
                now
            }
            None => Remembered {
                schema: STATE_SCHEMA.to_owned(),
                generation: Generation(0),
                link_epoch: LinkEpoch(0),
                given_up_fence: None,
                fence_reset: 0,
                bundle_version: 0,
                report_sequence: 0,
                report_previous: None,
                revisions: BTreeMap::new(),
                ticks: BTreeMap::new(),
            },
        };
        Ok(Self { path, now })
    }

    /// The values.
    pub const fn get(&self) -> &Remembered {
        &self.now
    }

    /// The newest revision that was carried out of this document, if it is newer than this one.
    pub fn newer_than(&self, revision: &Revision) -> Option<u32> {
        self.now.revisions.get(&revision.document).copied().filter(|newest| *newest > revision.number)
    }

    /// Remembers revisions that are about to be carried out.
    pub fn raise_revisions(&mut self, revisions: &[Revision]) -> Result<(), StateError> {
        let known = &self.now.revisions;
        let is_news = |one: &&Revision| {
            known.get(&one.document).map_or(known.len() < MAX_REVISIONS, |newest| *newest < one.number)
        };
        let news: Vec<_> = revisions.iter().filter(is_news).cloned().collect();
        if news.is_empty() {
            return Ok(());
        }
        self.write(|now| now.revisions.extend(news.into_iter().map(|one| (one.document, one.number))))
    }

    /// The run that keeps this tick of a schedule from beginning with another one: it began the same tick or a later one.
    pub fn tick_used(&self, schedule: &str, at: Timestamp, run: RunId) -> Option<RunId> {
        self.now.ticks.get(schedule).filter(|used| used.at >= at && used.run != run).map(|used| used.run)
    }

    /// Remembers a tick that is about to begin; an older one changes nothing.
    pub fn use_tick(&mut self, schedule: &str, at: Timestamp, run: RunId) -> Result<(), StateError> {
        if self.now.ticks.get(schedule).is_some_and(|used| used.at >= at) {
            return Ok(());
        }
        self.write(|now| {
            now.ticks.insert(schedule.to_owned(), UsedTick { at, run });
            if now.ticks.len() > MAX_TICKS
                && let Some(oldest) =
                    now.ticks.iter().min_by_key(|(_, used)| used.at).map(|(name, _)| name.clone())
            {
                now.ticks.remove(&oldest);
            }
        })
    }

    /// Takes a link's fencing values if they are not lower than any seen (security-and-delivery §2.4), nor so much
    /// higher that nobody could go on from them.
    pub fn raise_fence(&mut self, generation: Generation, epoch: LinkEpoch) -> Result<Fenced, StateError> {
        let seen = (self.now.generation, self.now.link_epoch);
        if (generation, epoch) < seen {
            return Ok(Fenced::Lower);
        }
        if generation.0 - seen.0.0 > MAX_GENERATION_STEP || epoch.0.saturating_sub(seen.1.0) > MAX_EPOCH_STEP
        {
            return Ok(Fenced::TooFar);
        }
        if (generation, epoch) > seen {
            self.write(|now| {
                now.generation = generation;
                now.link_epoch = epoch;
            })?;
        }
        Ok(Fenced::Taken)
    }

    /// Takes the fence of a journal, which may know more than a state that was lost, but not what was given up since.
    pub fn recall_fence(&mut self, generation: Generation, epoch: LinkEpoch) -> Result<(), StateError> {
        if self.now.given_up_fence.is_none_or(|given_up| (generation, epoch) > given_up) {
            self.raise_fence(generation, epoch)?;
        }
        Ok(())
    }

    /// Begins the fence anew, as the root keys asked in this version of the trust bundle; each once. True when this was
    /// the time.
    pub fn reset_fence(&mut self, version: u64) -> Result<bool, StateError> {
        if version <= self.now.fence_reset {
            return Ok(false);
        }
        self.write(|now| {
            now.given_up_fence = now.given_up_fence.max(Some((now.generation, now.link_epoch)));
            now.generation = Generation(0);
            now.link_epoch = LinkEpoch(0);
            now.fence_reset = version;
        })?;
        Ok(true)
    }

    /// Remembers a bundle's version; lower ones change nothing.
    pub fn raise_bundle(&mut self, version: u64) -> Result<(), StateError> {
        if version > self.now.bundle_version {
            self.write(|now| now.bundle_version = version)?;
        }
        Ok(())
    }

    /// Remembers a report as the newest of the chain; an older one changes nothing.
    pub fn raise_report(&mut self, sequence: u64, digest: Digest) -> Result<(), StateError> {
        if sequence > self.now.report_sequence {
            // Known from here on, whatever the disk says: the journal holds it already, and the next report
            // must not take the same number.
            self.now.report_sequence = sequence;
            self.now.report_previous = Some(digest);
            self.write(|_| {})?;
        }
        Ok(())
    }

    fn write(&mut self, change: impl FnOnce(&mut Remembered)) -> Result<(), StateError> {
        let mut next = self.now.clone();
        change(&mut next);
        // The type has string keys and no failing serialisers.
        let bytes = serde_json::to_vec_pretty(&next).unwrap_or_default();
        durable::write_atomically(&self.path, &bytes).map_err(|e| io_error("writing", &self.path, e))?;
        self.now = next;
        Ok(())
    }
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { what, path: path.display().to_string(), source }
}

/// Reads the node's report key, or makes it at the first start. It never leaves the node
/// (security-and-delivery §1.2); the public half is given to the controller at enrolment.
pub fn report_key(directory: &Path) -> Result<SigningKey, StateError> {
    if let Some(key) = read_report_key(directory)? {
        return Ok(key);
    }
    let path = directory.join(REPORT_KEY);
    let (key, pkcs8) = SigningKey::generate().map_err(StateError::Key)?;
    durable::make_private_directory(directory).map_err(|e| io_error("making", directory, e))?;
    durable::write_atomically(&path, &pkcs8).map_err(|e| io_error("writing", &path, e))?;
    Ok(key)
}

/// Reads the node's report key, if there is one.
pub fn read_report_key(directory: &Path) -> Result<Option<SigningKey>, StateError> {
    let path = directory.join(REPORT_KEY);
    let pkcs8 = durable::read_if_there(&path).map_err(|e| io_error("reading", &path, e))?;
    pkcs8.map(|pkcs8| SigningKey::from_pkcs8(&pkcs8).map_err(StateError::Key)).transpose()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn fencing_values_survive_and_never_go_down() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = SmallState::open(directory.path()).unwrap();
        assert_eq!(state.raise_fence(Generation(2), LinkEpoch(5)).unwrap(), Fenced::Taken);
        let mut state = SmallState::open(directory.path()).unwrap();
        for (generation, epoch, verdict) in [
            (1, 99, Fenced::Lower),
            (2, 4, Fenced::Lower),
            (2, 5, Fenced::Taken),
            (3, 1, Fenced::Taken),
            (2, 9, Fenced::Lower),
            (3 + MAX_GENERATION_STEP, 1, Fenced::Taken),
        ] {
            assert_eq!(state.raise_fence(Generation(generation), LinkEpoch(epoch)).unwrap(), verdict);
        }
        state.raise_bundle(7).unwrap();
        state.raise_bundle(3).unwrap();
        state.raise_report(2, Digest::of(b"two")).unwrap();
        state.raise_report(1, Digest::of(b"one")).unwrap();
        let state = SmallState::open(directory.path()).unwrap();
        assert_eq!((state.get().bundle_version, state.get().report_previous), (7, Some(Digest::of(b"two"))));
    }

    #[test]
    fn a_tick_is_one_run_and_the_oldest_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = SmallState::open(directory.path()).unwrap();
        let (at, run) = (|ms: i64| Timestamp::clamped(1_800_000_000_000 + ms), RunId::from_number);
        state.use_tick("edge/daily", at(20), run(2)).unwrap();
        state.use_tick("edge/daily", at(10), run(3)).unwrap();
        let mut state = SmallState::open(directory.path()).unwrap();
        for (time, number, by) in
            [(20, 2, None), (20, 3, Some(2)), (10, 3, Some(2)), (10, 2, None), (21, 3, None)]
        {
            assert_eq!(state.tick_used("edge/daily", at(time), run(number)), by.map(run), "{time} {number}");
        }
        assert_eq!(state.tick_used("edge/weekly", at(20), run(3)), None);
        let many = (0..MAX_TICKS).map(|n| (format!("edge/s{n}"), UsedTick { at: at(30), run: run(9) }));
        state.now.ticks.extend(many.skip(1));
        state.use_tick("edge/s0", at(31), run(9)).unwrap();
        assert_eq!(state.now.ticks.len(), MAX_TICKS);
        assert_eq!(state.tick_used("edge/daily", at(10), run(3)), None, "the oldest went");
    }

    #[test]
    fn the_report_key_is_made_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let first = report_key(directory.path()).unwrap().public();
        assert_eq!(report_key(directory.path()).unwrap().public(), first);
        let mode = std::fs::metadata(directory.path().join("report.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(directory.path().join("state.json"), "{\"schema\":\"fleet/v9\"}").unwrap();
        assert!(SmallState::open(directory.path()).is_err());
    }

    #[test]
    fn a_fence_is_reset_once_and_the_journal_does_not_bring_back_what_was_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = SmallState::open(directory.path()).unwrap();
        state.raise_fence(Generation(900), LinkEpoch(7)).unwrap();
        assert!(state.reset_fence(4).unwrap());
        assert_eq!(state.raise_fence(Generation(1), LinkEpoch(3)).unwrap(), Fenced::Taken);
        let mut state = SmallState::open(directory.path()).unwrap();
        assert!(!state.reset_fence(4).unwrap(), "each reset counts once");
        state.recall_fence(Generation(900), LinkEpoch(7)).unwrap();
        assert_eq!((state.get().generation, state.get().link_epoch), (Generation(1), LinkEpoch(3)));
        // What the journal has learned since is above it, and a later reset gives that up too.
        state.recall_fence(Generation(901), LinkEpoch(1)).unwrap();
        assert_eq!(state.get().generation, Generation(901));
        assert!(state.reset_fence(5).unwrap());
        state.recall_fence(Generation(901), LinkEpoch(1)).unwrap();
        assert_eq!(state.get().generation, Generation(0));
    }

    #[test]
    fn a_fence_that_nobody_could_step_over_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = SmallState::open(directory.path()).unwrap();
        state.raise_fence(Generation(2), LinkEpoch(5)).unwrap();
        for (generation, epoch) in [(u64::MAX, 6), (2 + MAX_GENERATION_STEP + 1, 6), (2, u64::MAX)] {
            let verdict = state.raise_fence(Generation(generation), LinkEpoch(epoch)).unwrap();
            assert_eq!(verdict, Fenced::TooFar, "{generation} {epoch}");
        }
        assert_eq!((state.get().generation, state.get().link_epoch), (Generation(2), LinkEpoch(5)));
    }
}
