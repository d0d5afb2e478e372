//! Runs, the index by time, and the marks of those that have not ended. Decides nothing; called by the runner and
//! the services.

use fleet_store::{Batch, Key, WriteId};
use fleet_types::authority::Authority;
use fleet_types::digest::Digest;
use fleet_types::id::RunId;
use fleet_types::request::Verb;
use fleet_types::run::{RunState, Tally};
use fleet_types::time::Timestamp;
use fleet_types::view::Skipped;
use serde::{Deserialize, Serialize};

use super::codec::{Mark, record};
use super::keys::{Made, make};
use super::reader::BatchExt as _;
use super::rollouts::RolloutRecord;
use crate::error::Result;

/// A run: plan, phase and counters. Written on phase changes only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its id.
    pub run: RunId,
    /// Why it may run.
    #[serde(flatten)]
    pub authority: Authority,
    /// The tick of a schedule that it carries out; none of an operator's start, and in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<TickRecord>,
    /// Run or plan.
    pub verb: Verb,
    /// Name of the procedure.
    pub procedure: String,
    /// Digest of the procedure.
    pub procedure_digest: Digest,
    /// The procedure's number under its name; none for one made for this run alone, and in older records.
    #[serde(default)]
    pub procedure_revision: Option<u32>,
    /// Digest of the profile.
    pub profile_digest: Digest,
    /// Does it change nodes?
    pub changes: bool,
    /// The longest that a job may take once it has begun, in milliseconds: working time, way back, final entries.
    pub job_limit_ms: u64,
    /// New starts end after so many failures; `None` for no such limit.
    #[serde(default)]
    pub max_failures: Option<u32>,
    /// The selector, for people.
    pub selector: String,
    /// At most so many nodes at once.
    pub max_parallel: u32,
    /// Not before.
    pub not_before: Timestamp,
    /// No first start after this.
    pub not_after: Timestamp,
    /// Merkle root of its nodes.
    pub nodes_root: Digest,
    /// Who started it.
    pub started_by: String,
    /// When.
    pub started: Timestamp,
    /// Why.
    pub reason: String,
    /// Where it stands.
    pub state: RunState,
    /// Nodes that were meant and could get no work when the run was made: the first of them by name.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// How many those are.
    #[serde(default)]
    pub skipped_count: u32,
    /// Why new starts are stopped.
    pub stopped_because: String,
    /// Nodes by outcome; complete when the run has ended.
    pub tally: Tally,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// When the bodies of its reports and the output of its steps were taken away.
    #[serde(default)]
    pub bodies_gone: Option<Timestamp>,
    /// The rollout policy that it follows; none for a plain run of one ring, and in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutRecord>,
    /// Who paused it, and why; empty while it is not paused.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub paused_because: String,
}
record!(RunRecord, "run", 1);

/// Which tick of which schedule a run carries out, and what allows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickRecord {
    /// As people write the schedule: `FILE/ID`.
    pub schedule: String,
    /// The time for which it calls.
    pub at: Timestamp,
    /// Digest of the standing order.
    pub order: Digest,
    /// Digest of the file of schedules.
    pub file: Digest,
}

/// Prefix of all runs, oldest first.
pub const ALL: &str = "run/";

/// A run.
pub fn key(id: RunId) -> Made {
    make(format!("{ALL}{id}"))
}

/// The run at the end of a key, behind a prefix; `None` when the key is of another shape.
pub fn run_in(key: &Key, prefix: &str) -> Option<RunId> {
    std::str::from_utf8(key.as_bytes().strip_prefix(prefix.as_bytes())?).ok()?.parse().ok()
}

/// Prefix of the runs by the controller's time of their start. Their ids hold the operator's time, which may be
/// wrong, and are random within a second. Whoever removes a run removes its entry here.
pub const BY_TIME: &str = "run-by-time/";

/// Index: a run by the time when it was started.
pub fn by_time(started: Timestamp, id: RunId) -> Made {
    make(format!("{BY_TIME}{:014}/{id}", started.as_millis()))
}

/// Says that every run of the store has its entry by time.
pub fn by_time_made() -> Made {
    make("meta/runs-by-time".to_owned())
}

/// The entry by time whose key is `text` behind the prefix, as callers hold the place where a page ended.
pub fn by_time_at(text: &str) -> Option<Key> {
    let (started, id) = text.split_once('/')?;
    let (started, id) = (started.parse().ok()?, id.parse().ok()?);
    by_time(Timestamp::clamped(started), id).ok()
}

/// Run and page mark of an entry by time.
pub fn by_time_in(key: &Key) -> Option<(RunId, String)> {
    let text = std::str::from_utf8(key.as_bytes().strip_prefix(BY_TIME.as_bytes())?).ok()?;
    Some((text.split_once('/')?.1.parse().ok()?, text.to_owned()))
}

/// Prefix of the runs that have not ended: what the runner reads at start.
pub const OPEN: &str = "open-run/";

/// Marks a run that has not ended.
pub fn open(id: RunId) -> Made {
    make(format!("{OPEN}{id}"))
}

/// Writes a new run: it is open, and has its place by time.
pub fn create(batch: Batch, run: &RunRecord) -> Result<Batch> {
    batch
        .create_record(key(run.run)?, run)?
        .create_record(open(run.run)?, &Mark {})?
        .put_record(by_time(run.started, run.run)?, &Mark {})
}

/// Writes what has changed of a run; one that has ended is open no longer.
pub fn save(batch: Batch, seen: WriteId, run: &RunRecord) -> Result<Batch> {
    let batch = batch.replace_record(key(run.run)?, seen, run)?;
    Ok(if run.state.is_terminal() { batch.delete(open(run.run)?) } else { batch })
}

/// Takes a run away. Its jobs and its request are others' and go with it by whoever calls this.
pub fn remove(batch: Batch, run: &RunRecord) -> Result<Batch> {
    Ok(batch.delete(key(run.run)?).delete(by_time(run.started, run.run)?))
}
