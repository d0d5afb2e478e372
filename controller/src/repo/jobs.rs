//! A job's life in the store: its offer and its end, each with everything that belongs into the same commit.
//!
//! A changing job of a pair holds it (`hold/pair/…`) from the commit of its offer to the commit of its end, over
//! all runs. A job that got lost keeps its hold and its inbox entry: nobody knows what its node is doing, and
//! the node is told to stop, until it answers or an operator releases it.
//! Decides nothing; called by the runner, and by the services that take reports and that end or release nodes.

use std::collections::BTreeMap;

use fleet_rollout::Holder;
use fleet_store::Batch;
use fleet_types::id::{NodeId, RunId};
use fleet_types::job::{JobState, Outcome};
use fleet_types::time::Timestamp;

use super::keys;
use super::reader::{BatchExt as _, Repo, Stored};
use super::records::{HoldRecord, InboxRecord, JobRecord};
use crate::error::Result;

impl HoldRecord {
    /// The hold for a job that was offered.
    pub fn of(job: &JobRecord) -> Self {
        Self {
            run: job.run,
            node: job.node,
            node_name: job.node_name.clone(),
            attempt: job.attempt,
            since: job.offered.unwrap_or_else(|| Timestamp::clamped(0)),
        }
    }

    fn is_of(&self, job: &JobRecord) -> bool {
        self.run == job.run && self.node == job.node
    }

    /// As the engine knows it.
    pub fn holder(&self) -> Holder {
        Holder { run: self.run, node: self.node, name: self.node_name.to_string(), attempt: self.attempt }
    }
}

/// Writes an offer: the job as `offered`, its place in the node's inbox, and the hold of its pair when the run
/// changes nodes. The commit fails when the pair is held.
pub fn offer(
    batch: Batch,
    known: &Stored<JobRecord>,
    offered: &JobRecord,
    entry: &InboxRecord,
    changes: bool,
) -> Result<Batch> {
    let (run, node) = (offered.run, offered.node);
    let mut batch = batch
        .replace_record(keys::job(run, node)?, known.write_id, offered)?
        .put_record(keys::inbox_entry(node, run)?, entry)?;
    if let Some(pair) = offered.pair.as_deref().filter(|_| changes) {
        batch = batch.create_record(keys::pair_hold(pair)?, &HoldRecord::of(offered))?;
    }
    Ok(batch)
}

/// Writes an end and takes away what the job had; nothing of a lost one.
pub async fn end(repo: &Repo, batch: Batch, known: &Stored<JobRecord>, ended: &JobRecord) -> Result<Batch> {
    let batch = batch.replace_record(keys::job(ended.run, ended.node)?, known.write_id, ended)?;
    let lost = ended.state.outcome() == Some(Outcome::Lost);
    if lost || known.record.state == JobState::Queued {
        return Ok(batch);
    }
    settle(repo, batch, ended).await
}

/// The node has answered for this job for good: it is told no more, and the pair is free.
pub async fn settle(repo: &Repo, batch: Batch, job: &JobRecord) -> Result<Batch> {
    let batch = batch.delete(keys::inbox_entry(job.node, job.run)?);
    let Some(pair) = &job.pair else { return Ok(batch) };
    let key = keys::pair_hold(pair)?;
    match repo.get::<HoldRecord>(&key).await? {
        Some(hold) if hold.record.is_of(job) => Ok(batch.if_write_id(key.clone(), hold.write_id).delete(key)),
        _ => Ok(batch),
    }
}

/// Frees the pairs that are held for jobs of a node that have ended without its answer: an operator says that it
/// does nothing any more. Gives the runs of those jobs, for the notifier.
pub async fn free_pairs_of(repo: &Repo, mut batch: Batch, node: NodeId) -> Result<(Batch, Vec<RunId>)> {
    let mut runs = Vec::new();
    for (key, hold) in repo.all::<HoldRecord>(keys::PAIR_HOLDS).await? {
        let run = hold.record.run;
        if hold.record.node != node {
            continue;
        }
        let job = repo.get::<JobRecord>(&keys::job(run, node)?).await?;
        if job.is_none_or(|job| job.record.state.outcome().is_some()) {
            batch = batch.remove(key, hold.write_id).delete(keys::inbox_entry(node, run)?);
            runs.push(run);
        }
    }
    Ok((batch, runs))
}

/// All pairs that are held, and for whose job.
pub async fn pair_holds(repo: &Repo) -> Result<BTreeMap<String, Holder>> {
    let stored = repo.all::<HoldRecord>(keys::PAIR_HOLDS).await?;
    let named = stored.into_iter().filter_map(|(key, hold)| {
        Some((keys::pair_in(&key, keys::PAIR_HOLDS)?.to_owned(), hold.record.holder()))
    });
    Ok(named.collect())
}

/// Who holds a pair.
pub async fn pair_hold(repo: &Repo, pair: &str) -> Result<Option<Holder>> {
    Ok(repo.get::<HoldRecord>(&keys::pair_hold(pair)?).await?.map(|hold| hold.record.holder()))
}
