//! A job's life in the store: its offer and its end, each with everything that belongs into the same commit.
//!
//! A changing job holds its pair, and a place of its site and of the fleet where those are limited (`hold/…`), from the
//! commit of its offer to the commit of its end, over all runs. A job that got lost keeps its holds and its inbox
//! entry: nobody knows what its node is doing, and the node is told to stop, until it answers or an operator releases
//! it.
//! Decides nothing; called by the runner, and by the services that take reports and that end or release nodes.

use std::collections::{BTreeMap, BTreeSet};

use fleet_rollout::{Holder, Place};
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

impl JobRecord {
    /// What it may hold. Jobs that were offered by earlier releases do not name their pair among what was taken.
    pub fn may_hold(&self) -> Vec<Place> {
        if self.places.is_empty() {
            self.pair.clone().map(Place::pair).into_iter().collect()
        } else {
            self.places.clone()
        }
    }
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
        .replace_record(keys::job(run, node)?, known.write_id, offered)?
        .put_record(keys::inbox_entry(node, run)?, entry)?;
    let hold = HoldRecord::of(offered);
    offered.places.iter().try_fold(batch, |batch, place| batch.create_record(keys::hold(place)?, &hold))
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

/// The node has answered for this job for good: it is told no more, and what it held is free. What was taken counts,
/// whatever pair and site its node has by now.
pub async fn settle(repo: &Repo, batch: Batch, job: &JobRecord) -> Result<Batch> {
    let mut batch = batch.delete(keys::inbox_entry(job.node, job.run)?);
    for place in job.may_hold() {
        let key = keys::hold(&place)?;
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
    for (key, hold) in repo.all::<HoldRecord>(keys::HOLDS).await? {
        let run = hold.record.run;
        if hold.record.node != node {
            continue;
        }
        let job = repo.get::<JobRecord>(&keys::job(run, node)?).await?;
        if job.is_none_or(|job| job.record.state.outcome().is_some()) {
            batch = batch.remove(key, hold.write_id);
            if runs.insert(run) {
                batch = batch.delete(keys::inbox_entry(node, run)?);
            }
        }
    }
    Ok((batch, runs))
}

/// All that is held, and for whose job.
pub async fn holds(repo: &Repo) -> Result<BTreeMap<Place, Holder>> {
    let stored = repo.all::<HoldRecord>(keys::HOLDS).await?;
    let named =
        stored.into_iter().filter_map(|(key, hold)| Some((keys::place_in(&key)?, hold.record.holder())));
    Ok(named.collect())
}

/// Who holds a place.
pub async fn hold(repo: &Repo, place: &Place) -> Result<Option<Holder>> {
    Ok(repo.get::<HoldRecord>(&keys::hold(place)?).await?.map(|hold| hold.record.holder()))
}
