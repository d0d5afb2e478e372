//! One pass over one run: bring the engine up to date, save what it wants, then say so.
//!
//! Save before you send: offers are committed with their inbox entries and one audit leaf for the wave, then
//! delivered. A conflict means that somebody else wrote a job or the run in between: the run is read anew.

use std::collections::BTreeSet;

use fleet_rollout::{Applied, Event, Wanted};
use fleet_types::id::NodeId;
use fleet_types::job::JobState;
use fleet_types::merkle;
use fleet_types::request::node_leaf;
use fleet_types::run::RunState;
use tokio::time::Instant;

use super::active::Active;
use super::cancel_retries::CancelRetries;
use super::deliver;
use crate::context::Context;
use crate::error::{ControllerError, Kind, Result};
use crate::fleet::sessions::ToNode;
use crate::rebuild;
use crate::repo::audited::AuditEntry;
use crate::repo::keys;
use crate::repo::reader::BatchExt as _;
use crate::repo::records::{JobRecord, RunRecord};

/// Brings the engine up to date with jobs and nodes that changed.
pub async fn refresh(
    context: &Context,
    active: &mut Active,
    changed_jobs: &BTreeSet<NodeId>,
    changed_nodes: &BTreeSet<NodeId>,
) -> Result<()> {
    let run = active.run.record.run;
    for node in changed_jobs {
        let Some(known) = active.jobs.get(node) else { continue };
        let Some(stored) = context.repo.get::<JobRecord>(&keys::job(run, *node)?).await? else {
            return Err(ControllerError::internal(format!("the job of {node} in run {run} is gone")));
        };
        if stored.write_id != known.write_id {
            active.jobs.insert(*node, stored.clone());
        }
        apply_job(context, active, *node, &stored.record)?;
    }
    for node in
        changed_nodes.iter().filter(|node| active.jobs.contains_key(node)).copied().collect::<Vec<_>>()
    {
        let event =
            if rebuild::is_online(context, node) { Event::online(node) } else { Event::offline(node) };
        apply(context, active, &event)?;
    }
    Ok(())
}

fn apply_job(context: &Context, active: &mut Active, node: NodeId, job: &JobRecord) -> Result<()> {
    if let JobState::Ended { outcome, .. } = &job.state {
        return apply(context, active, &Event::ended(node, job.attempt, *outcome));
    }
    if let Some((attempt, state)) = context.sessions.live(node, job.run)
        && let Some(reported) = rebuild::reported(&state)
        && job.state != JobState::Queued
    {
        apply(context, active, &Event::reported(node, attempt, reported))?;
    }
    Ok(())
}

fn apply(context: &Context, active: &mut Active, event: &Event) -> Result<()> {
    let text = event.to_string();
    match active.rollout.apply(context.clock.now(), event) {
        Ok(Applied::Changed | Applied::Repeated | Applied::Late) => Ok(()),
        // What is stored and what the engine holds have parted: the run is read anew, as after a conflict.
        Err(error) => Err(ControllerError::new(Kind::Conflict, "engine", format!("{text}: {error}"))),
    }
}

/// Saves and says everything that is wanted now. True when the run has ended.
pub async fn settle(
    context: &Context,
    active: &mut Active,
    cancel_retries: &mut CancelRetries,
) -> Result<bool> {
    loop {
        let wanted = active.rollout.wanted(context.clock.now());
        if !wanted.end.is_empty() {
            save_ends(context, active, &wanted).await?;
            continue;
        }
        if !wanted.offer.is_empty() {
            save_offers(context, active, &wanted).await?;
            continue;
        }
        ask_to_stop(context, active, &wanted.cancel, cancel_retries).await?;
        break;
    }
    save_phase(context, active).await
}

async fn save_ends(context: &Context, active: &mut Active, wanted: &Wanted) -> Result<()> {
    let run = active.run.record.run;
    let now = context.clock.now();
    let mut batch = context.audited.batch().using_reserve();
    let (mut leaves, mut written) = (Vec::new(), Vec::new());
    for end in &wanted.end {
        let Some(known) = active.jobs.get(&end.node) else { continue };
        let record = JobRecord {
            state: JobState::Ended { outcome: end.outcome, reason: end.reason.clone() },
            attempt: end.attempt,
            ended: Some(now),
            summary: end.reason.chars().take(200).collect(),
            ..known.record.clone()
        };
        batch = batch
            .replace_record(keys::job(run, end.node)?, known.write_id, &record)?
            .delete(keys::inbox_entry(end.node, run)?);
        leaves.push(
            AuditEntry::new(context.audited.actor(), "job.end", format!("run/{run}"))
                .job(fleet_types::id::JobId { run, node: end.node }, end.attempt)
                .subject(active.run.record.request)
                .outcome(end.outcome)
                .because(end.reason.chars().take(200).collect::<String>()),
        );
        written.push(record);
    }
    let write_id = context.audited.commit(batch, leaves).await?;
    for record in written {
        if let JobState::Ended { outcome, .. } = &record.state {
            apply(context, active, &Event::ended(record.node, record.attempt, *outcome))?;
        }
        context.sessions.clear_live(record.node, run);
        active.put_job(record, write_id);
    }
    Ok(())
}

async fn save_offers(context: &Context, active: &mut Active, wanted: &Wanted) -> Result<()> {
    let run = active.run.record.run;
    let now = context.clock.now();
    // Only while the run is as it was read: no wave may start after a cancel was confirmed.
    let mut batch = context.audited.batch().if_write_id(keys::run(run)?, active.run.write_id);
    let (mut written, mut entries) = (Vec::new(), Vec::new());
    for offer in &wanted.offer {
        let Some(known) = active.jobs.get(&offer.node) else { continue };
        let record = JobRecord {
            state: JobState::Offered,
            attempt: offer.attempt,
            offered: Some(now),
            ..known.record.clone()
        };
        let entry = active.inbox(&record, None)?;
        batch = batch
            .replace_record(keys::job(run, offer.node)?, known.write_id, &record)?
            .put_record(keys::inbox_entry(offer.node, run)?, &entry)?;
        entries.push((offer.node, entry));
        written.push(record);
    }
    let mut leaves: Vec<_> = written.iter().map(|record| record.node).collect();
    leaves.sort_unstable();
    let root = merkle::root(&leaves.iter().map(|node| node_leaf(*node)).collect::<Vec<_>>());
    let leaf = AuditEntry::new(context.audited.actor(), "run.wave", format!("run/{run}"))
        .subject(active.run.record.request)
        .nodes(root)
        .because(format!("{} nodes", written.len()));
    let write_id = context.audited.commit(batch, vec![leaf]).await?;
    for record in written {
        apply(context, active, &Event::offered(record.node, record.attempt))?;
        active.put_job(record, write_id);
    }
    deliver::offers(context, run, entries);
    Ok(())
}

/// Marks the inbox of each node that should stop, once, and tells those that are connected: at once, and again
/// after as long as an offer waits for its answer. Stopping is idempotent on the node.
async fn ask_to_stop(
    context: &Context,
    active: &Active,
    nodes: &[NodeId],
    cancel_retries: &mut CancelRetries,
) -> Result<()> {
    let run = active.run.record.run;
    let reason = &active.run.record.stopped_because;
    let now = Instant::now();
    for node in cancel_retries.due(nodes, now, context.settings.offer) {
        let Some(job) = active.jobs.get(&node) else { continue };
        let key = keys::inbox_entry(node, run)?;
        let marked = context
            .repo
            .get::<crate::repo::records::InboxRecord>(&key)
            .await?
            .is_none_or(|entry| entry.record.cancel.is_some());
        if !marked {
            let entry = active.inbox(&job.record, Some(reason.clone()))?;
            // Only while the job is as it was: its end takes the entry away, and it must stay away.
            let batch = context
                .audited
                .batch()
                .using_reserve()
                .if_write_id(keys::job(run, node)?, job.write_id)
                .put_record(key, &entry)?;
            context.audited.commit(batch, vec![]).await?;
        }
        let message = ToNode::Cancel { run, attempt: job.record.attempt, reason: reason.clone() };
        // Not connected, or no room: the session finds the mark in the inbox.
        context.sessions.send(node, message);
        cancel_retries.told(node, now);
    }
    Ok(())
}

/// Writes the run's record when its phase changed. True when it has ended.
async fn save_phase(context: &Context, active: &mut Active) -> Result<bool> {
    let now = context.clock.now();
    let state = active.rollout.state(now);
    let before = &active.run.record;
    if state == before.state {
        return Ok(state.is_terminal());
    }
    let run = before.run;
    let ended = state.is_terminal();
    let record = RunRecord {
        state,
        tally: active.rollout.summary(now).tally,
        ended: ended.then_some(now),
        ..before.clone()
    };
    let mut batch = context.audited.batch().using_reserve().replace_record(
        keys::run(run)?,
        active.run.write_id,
        &record,
    )?;
    let mut leaves = Vec::new();
    if ended {
        batch = batch.delete(keys::open_run(run)?);
    }
    // Waiting comes and goes with nodes; the log keeps the phases that mean something.
    if ended || before.state == RunState::Planned {
        let action = if ended { "run.end" } else { "run.begin" };
        leaves.push(
            AuditEntry::new(context.audited.actor(), action, format!("run/{run}"))
                .subject(record.request)
                .because(state.as_str()),
        );
    }
    active.run.write_id = context.audited.commit(batch, leaves).await?;
    active.run.record = record;
    Ok(ended)
}
