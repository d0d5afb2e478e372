//! Puts what is saved on its way: assignments as one signed wave, and cancels.
//!
//! Called after the commit, by the runner for connected nodes and by a session for its own inbox at connect.
//! What does not get through is found in the inbox again.

use fleet_types::assignment::{Assignment, WaveProof};
use fleet_types::id::{JobId, LinkEpoch, NodeId, RunId};
use fleet_types::job::JobState;
use fleet_types::run::RunState;

use crate::context::{Context, Identities, Memory, Storage};
use crate::error::Result;
use crate::fleet::sessions::ToNode;
use crate::repo::jobs::{self, InboxRecord, JobRecord};
use crate::repo::runs::{self, RunRecord};

fn assignment(
    identities: &Identities,
    node: NodeId,
    run: RunId,
    epoch: LinkEpoch,
    entry: InboxRecord,
) -> Assignment {
    Assignment {
        job: JobId { run, node, stage: entry.stage },
        attempt: entry.attempt,
        authority: entry.authority,
        node_index: entry.node_index,
        node_path: entry.node_path,
        generation: identities.fleet.generation,
        link_epoch: epoch,
    }
}

/// Sends saved offers to those nodes that are connected, signed as one wave.
pub fn offers(memory: &Memory, identities: &Identities, run: RunId, offers: Vec<(NodeId, InboxRecord)>) {
    let assignments: Vec<Assignment> = offers
        .into_iter()
        .filter_map(|(node, entry)| {
            let epoch = memory.sessions.epoch(node)?;
            Some(assignment(identities, node, run, epoch, entry))
        })
        .collect();
    if assignments.is_empty() {
        return;
    }
    for (assignment, proof) in identities.wave_signer.sign(assignments) {
        let node = assignment.job.node;
        if !memory.sessions.send(node, ToNode::Assign(Box::new((assignment, proof)))) {
            tracing::debug!(%node, %run, "offer not sent now; the session offers it again");
        }
    }
}

/// What a node's inbox holds.
#[derive(Debug, Default)]
pub struct Inbox {
    /// Work, signed for the link. Cancelled work is among it: a node that never saw it answers it by the cancel
    /// that came first, with a report, and only that ends the job (T08).
    pub offers: Vec<(Assignment, WaveProof)>,
    /// Runs to stop, with their attempt and reason.
    pub cancels: Vec<(RunId, fleet_types::id::Attempt, String)>,
}

/// Why a node should stop what stands in its inbox, if it should: its run is ending, the job was given up here, or the node
/// was held before it answered.
pub async fn stop_reason(
    storage: &Storage,
    memory: &Memory,
    node: NodeId,
    run: RunId,
) -> Result<Option<String>> {
    let stored = storage.repo.get::<RunRecord>(&runs::key(run)?).await?;
    let state = stored.as_ref().map(|run| run.record.state);
    if let Some(run) = stored.filter(|run| run.record.state == RunState::Halting) {
        return Ok(Some(run.record.stopped_because));
    }
    let job = storage.repo.get::<JobRecord>(&jobs::key(run, node)?).await?;
    let Some(job) = job.map(|job| job.record) else { return Ok(None) };
    let held = || {
        let known = memory.node_cache.get(node)?;
        Some(format!("the node is {}", known.record.hold()?))
    };
    // A question for the gates is asked as long as somebody waits for the answer.
    if job.open_gates().is_some() {
        let over = state.filter(|state| state.is_terminal()).map(|_| "the run has ended".to_owned());
        return Ok(over.or_else(held));
    }
    Ok(match job.state {
        JobState::Ended { outcome, reason, .. } => Some(format!("{}: {reason}", outcome.as_str())),
        // What a held node has begun goes on; an offer that it never answered must not begin.
        JobState::Offered if memory.sessions.live(node, run).is_none() => held(),
        _ => None,
    })
}

/// Reads a node's inbox and signs its offers for a link.
pub async fn inbox(context: &Context, node: NodeId, epoch: LinkEpoch) -> Result<Inbox> {
    let prefix = jobs::inbox(node);
    let mut inbox = Inbox::default();
    let mut assignments = Vec::new();
    for (key, stored) in context.storage.repo.all::<InboxRecord>(&prefix).await? {
        let Some(run) = runs::run_in(&key, &prefix) else { continue };
        if let Some(reason) = stop_reason(&context.storage, &context.memory, node, run).await? {
            inbox.cancels.push((run, stored.record.attempt, reason));
        }
        assignments.push(assignment(&context.identities, node, run, epoch, stored.record));
    }
    if !assignments.is_empty() {
        inbox.offers = context.identities.wave_signer.sign(assignments);
    }
    Ok(inbox)
}
