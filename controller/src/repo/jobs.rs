//! A job's life in the store: its offer and its end, each with everything that belongs into the same commit.
//!
//! A changing job holds its pair, and a place of its site and of the fleet where those are limited (`hold/…`), from the
//! commit of its offer to the commit of its end, over all runs. A job that got lost keeps its holds and its inbox
//! entry: nobody knows what its node is doing, and the node is told to stop, until it answers or an operator releases
//! it.
//! Decides nothing; called by the runner, and by the services that take reports and that end or release nodes.

use std::collections::BTreeSet;

use fleet_rollout::{Answer, Look, Place};
use fleet_store::{Batch, Key, WriteId};
use fleet_types::authority::Authority;
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, JobId, Name, NodeId, RunId, Stage};
use fleet_types::job::{JobState, Outcome};
use fleet_types::run::Verdict;
use fleet_types::time::Timestamp;
use fleet_types::view::Health;
use serde::{Deserialize, Serialize};

use super::codec::{Mark, record};
use super::holds::{self, HoldRecord};
use super::keys::{Made, make};
use super::reader::{BatchExt as _, Repo, Stored};
use super::reports::StoredReport;
use crate::error::Result;

/// A job: what the controller knows durably.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: NodeId,
    /// Its name when the run was made.
    pub node_name: Name,
    /// Place in the request's node list.
    pub index: u32,
    /// The pair it belonged to when the run was made.
    pub pair: Option<String>,
    /// Its site when the run was made.
    pub site: String,
    /// The number of its ring, from 0.
    #[serde(default, skip_serializing_if = "is_first")]
    pub ring: u32,
    /// The stage that it has reached.
    #[serde(default, skip_serializing_if = "Stage::is_first")]
    pub stage: Stage,
    /// The attempt.
    pub attempt: Attempt,
    /// `queued`, `offered` or ended; what lies between is on the node.
    pub state: JobState,
    /// What was taken for it with its offer, over all runs. None where it only reads; older records have a pair
    /// that is not named here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
    /// When it was offered.
    pub offered: Option<Timestamp>,
    /// When it ended here.
    pub ended: Option<Timestamp>,
    /// Milliseconds on the node.
    pub took_ms: Option<u64>,
    /// One line of what came out.
    pub summary: String,
    /// Of a plan, the digest of what the node would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Digest>,
    /// The report.
    pub report: Option<StoredReport>,
    /// A report that came too late.
    pub late_report: Option<StoredReport>,
    /// Health that the report found, where it looked.
    pub health: Option<Health>,
    /// The newest stage in which the node looks at the gates of its ring, once it has succeeded; `stage` and `attempt`
    /// stay those of its own end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gates: Option<GatesRecord>,
}
record!(JobRecord, "job", 1);

/// A node's look at the gates of its ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatesRecord {
    /// The stage of the job.
    pub stage: Stage,
    /// The attempt.
    pub attempt: Attempt,
    /// For which judging of the ring.
    pub judging: u32,
    /// When it was asked.
    pub asked: Timestamp,
    /// What it said; none until it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<GatesAnswer>,
}

/// What a node said of the gates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatesAnswer {
    /// In one word.
    pub verdict: Verdict,
    /// Which gate, and what it saw or lacks.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub because: String,
    /// The report that says so.
    pub report: StoredReport,
}

impl GatesRecord {
    /// For the engine.
    pub fn look(&self) -> Look {
        let answer =
            |answer: &GatesAnswer| Answer { verdict: answer.verdict, because: answer.because.clone() };
        Look { judging: self.judging, answer: self.answer.as_ref().map(answer) }
    }
}

impl JobRecord {
    /// The node is asked for the gates of its ring, as a further stage of the job. Attempts are numbered through.
    pub fn ask(&self, judging: u32, now: Timestamp) -> GatesRecord {
        let (stage, attempt) =
            self.gates.as_ref().map_or((self.stage, self.attempt), |gates| (gates.stage, gates.attempt));
        GatesRecord {
            // A node refuses a stage that it carried out: nobody is asked 65,535 times.
            stage: Stage(stage.0.saturating_add(1)),
            attempt: Attempt(attempt.0.saturating_add(1)),
            judging,
            asked: now,
            answer: None,
        }
    }

    /// The question for the gates that the node has not answered.
    pub fn open_gates(&self) -> Option<&GatesRecord> {
        self.gates.as_ref().filter(|gates| gates.answer.is_none())
    }

    /// Its name.
    pub const fn id(&self) -> JobId {
        JobId { run: self.run, node: self.node, stage: self.stage }
    }

    /// What it may hold. Jobs that were offered by earlier releases do not name their pair among what was taken.
    pub fn may_hold(&self) -> Vec<Place> {
        if self.places.is_empty() {
            self.pair.clone().map(Place::pair).into_iter().collect()
        } else {
            self.places.clone()
        }
    }
}

/// Is it the first ring, which is not written?
#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
const fn is_first(ring: &u32) -> bool {
    *ring == 0
}

/// An entry of a node's inbox: the node should be working on this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxRecord {
    /// The stage of the job.
    #[serde(default, skip_serializing_if = "Stage::is_first")]
    pub stage: Stage,
    /// The attempt.
    pub attempt: Attempt,
    /// Why it may run.
    #[serde(flatten)]
    pub authority: Authority,
    /// Place in the request's node list.
    pub node_index: u32,
    /// Path of the node in that list.
    pub node_path: Vec<Digest>,
}
record!(InboxRecord, "inbox", 1);

/// Prefix of all jobs, run by run.
pub const ALL: &str = "job/";

/// Prefix of the jobs of a run.
pub fn of_run(run: RunId) -> String {
    format!("{ALL}{run}/")
}

/// The run of a job's key.
pub fn run_of(key: &Key) -> Option<RunId> {
    let text = std::str::from_utf8(key.as_bytes().strip_prefix(ALL.as_bytes())?).ok()?;
    text.split_once('/')?.0.parse().ok()
}

/// A place behind all jobs of a run.
pub fn behind_run(run: RunId) -> Made {
    make(format!("{ALL}{run}0"))
}

/// A job.
pub fn key(run: RunId, node: NodeId) -> Made {
    make(format!("{}{node}", of_run(run)))
}

/// Prefix of a node's jobs by time of their run.
pub fn of_node(node: NodeId) -> String {
    format!("node-job/{node}/")
}

/// Index: a node's part in a run.
pub fn node_index(node: NodeId, run: RunId) -> Made {
    make(format!("{}{run}", of_node(node)))
}

/// Prefix of what all nodes should be working on.
pub const INBOXES: &str = "inbox/";

/// Prefix of what a node should be working on.
pub fn inbox(node: NodeId) -> String {
    format!("{INBOXES}{node}/")
}

/// Node and run of an entry below [`INBOXES`].
pub fn inbox_entry_in(key: &Key) -> Option<(NodeId, RunId)> {
    let text = std::str::from_utf8(key.as_bytes().strip_prefix(INBOXES.as_bytes())?).ok()?;
    let (node, run) = text.split_once('/')?;
    Some((node.parse().ok()?, run.parse().ok()?))
}

/// One entry of a node's inbox.
pub fn inbox_entry(node: NodeId, run: RunId) -> Made {
    make(format!("{}{run}", inbox(node)))
}

/// Writes a job with its place among those of its node.
pub fn add(batch: Batch, job: &JobRecord) -> Result<Batch> {
    batch.put_record(key(job.run, job.node)?, job)?.put_record(node_index(job.node, job.run)?, &Mark {})
}

/// Writes an offer: the job as `offered`, its place in the node's inbox, and the holds of what is taken for it. The
/// commit fails when one of them is held already.
pub fn offer(
    batch: Batch,
    known: &Stored<JobRecord>,
    offered: &JobRecord,
    entry: &InboxRecord,
) -> Result<Batch> {
    let (run, node) = (offered.run, offered.node);
    let batch = batch
        .replace_record(key(run, node)?, known.write_id, offered)?
        .put_record(inbox_entry(node, run)?, entry)?;
    let hold = HoldRecord::of(offered);
    offered.places.iter().try_fold(batch, |batch, place| batch.create_record(holds::key(place)?, &hold))
}

/// Writes that a node is asked for the gates of its ring: the job with the question, and its place in the node's inbox.
pub fn ask(batch: Batch, known: &Stored<JobRecord>, asked: &JobRecord, entry: &InboxRecord) -> Result<Batch> {
    let (run, node) = (asked.run, asked.node);
    batch.replace_record(key(run, node)?, known.write_id, asked)?.put_record(inbox_entry(node, run)?, entry)
}

/// Writes a node's answer for the gates: it is asked no more.
pub fn answer(batch: Batch, seen: WriteId, answered: &JobRecord) -> Result<Batch> {
    let (run, node) = (answered.run, answered.node);
    Ok(batch.replace_record(key(run, node)?, seen, answered)?.delete(inbox_entry(node, run)?))
}

/// Writes an end and takes away what the job had; nothing of a lost one.
pub async fn end(repo: &Repo, batch: Batch, known: &Stored<JobRecord>, ended: &JobRecord) -> Result<Batch> {
    let batch = batch.replace_record(key(ended.run, ended.node)?, known.write_id, ended)?;
    let lost = ended.state.outcome() == Some(Outcome::Lost);
    if lost || known.record.state == JobState::Queued {
        return Ok(batch);
    }
    settle(repo, batch, ended).await
}

/// Notes a report that came when the job had ended here: the node has answered, and what the job had is taken away.
pub async fn note_late(repo: &Repo, batch: Batch, seen: WriteId, job: &JobRecord) -> Result<Batch> {
    settle(repo, batch.replace_record(key(job.run, job.node)?, seen, job)?, job).await
}

/// Takes a job away. What its node answered, or will answer, is asked before.
pub fn remove(batch: Batch, job: &JobRecord) -> Result<Batch> {
    Ok(batch.delete(key(job.run, job.node)?).delete(node_index(job.node, job.run)?))
}

/// The node has answered for this job for good: it is told no more, and what it held is free. What was taken counts,
/// whatever pair and site its node has by now.
pub async fn settle(repo: &Repo, batch: Batch, job: &JobRecord) -> Result<Batch> {
    let mut batch = batch.delete(inbox_entry(job.node, job.run)?);
    for place in job.may_hold() {
        let key = holds::key(&place)?;
        match repo.get::<HoldRecord>(&key).await? {
            Some(hold) if hold.record.is_of(job) => batch = batch.remove(key, hold.write_id),
            _ => {}
        }
    }
    Ok(batch)
}

/// Frees what is held for jobs of a node that have ended without its answer: an operator says that it does nothing
/// any more. Gives the runs of those jobs, for the notifier.
pub async fn free_holds_of(repo: &Repo, mut batch: Batch, node: NodeId) -> Result<(Batch, BTreeSet<RunId>)> {
    let mut runs = BTreeSet::new();
    for (held, hold) in repo.all::<HoldRecord>(holds::ALL).await? {
        let run = hold.record.run;
        if hold.record.node != node {
            continue;
        }
        let job = repo.get::<JobRecord>(&key(run, node)?).await?;
        if job.is_none_or(|job| job.record.state.outcome().is_some()) {
            batch = batch.remove(held, hold.write_id);
            if runs.insert(run) {
                batch = batch.delete(inbox_entry(node, run)?);
            }
        }
    }
    Ok((batch, runs))
}
