//! One pass over one run: bring the engine up to date, save what it wants, then say so.
//!
//! Save before you send: offers are committed with their inbox entries and one audit leaf for the wave, then
//! delivered. A conflict means that somebody else wrote a job or the run in between: the run is read anew.

use std::collections::BTreeSet;

use fleet_rollout::{Applied, Event, Holds, Moment, PAGE, Place, RingEvent, RingStep, Wanted};
use fleet_store::MAX_BATCH_OPERATIONS;
use fleet_types::id::NodeId;
use fleet_types::job::{JobState, Outcome};
use fleet_types::merkle;
use fleet_types::request::node_leaf;
use fleet_types::run::{RingState, RunState};
use tokio::time::Instant;

use super::active::Active;
use super::cancel_retries::CancelRetries;
use super::{deliver, gates};
use crate::context::{Context, Memory, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::fleet::sessions::ToNode;
use crate::rebuild;
use crate::repo::audited::AuditEntry;
use crate::repo::holds::{self, HoldRecord};
use crate::repo::jobs::{self, JobRecord};
use crate::repo::reader::Stored;
use crate::repo::runs::{self, RunRecord};
use crate::settings::Settings;

/// A page of offers fits one commit: of each the job, its inbox entry, and the holds of pair, site and fleet; beside
/// them the leaf of the wave.
const _: () = assert!(5 * PAGE < MAX_BATCH_OPERATIONS);

/// Brings the engine up to date with jobs and nodes that changed, and reads the holds that may have gone with them.
pub async fn refresh(
    storage: &Storage,
    memory: &Memory,
    active: &Active,
    holds: &mut Holds,
    changed_jobs: &BTreeSet<NodeId>,
    changed_nodes: &BTreeSet<NodeId>,
) -> Result<()> {
    let run = active.run().record.run;
    let mut places = BTreeSet::new();
    for node in changed_jobs {
        let Some(known) = active.job(*node) else { continue };
        let Some(stored) = storage.repo.get::<JobRecord>(&jobs::key(run, *node)?).await? else {
            return Err(ControllerError::internal(format!("the job of {node} in run {run} is gone")));
        };
        if stored.write_id != known.write_id {
            active.open.write().put_job(stored.record.clone(), stored.write_id);
        }
        apply_job(storage, memory, active, &stored.record)?;
        places.extend(stored.record.may_hold());
    }
    for node in changed_nodes.iter().copied() {
        let Some(known) = active.job(node) else { continue };
        let event = Event::presence(node, rebuild::presence(memory, node));
        apply(storage, active, &event)?;
        places.extend(known.record.may_hold());
    }
    for place in places {
        if holds.get(&place).is_some() {
            let stored = holds::hold(&storage.repo, &place).await?;
            holds.set(&place, stored);
            tell_hold(storage, active, holds, &place)?;
        }
    }
    Ok(())
}

/// Tells the engine of a run who holds a place.
pub fn tell_hold(storage: &Storage, active: &Active, holds: &Holds, place: &Place) -> Result<()> {
    apply(storage, active, &Event::Held { place: place.clone(), holder: holds.get(place).cloned() })
}

fn apply_job(storage: &Storage, memory: &Memory, active: &Active, job: &JobRecord) -> Result<()> {
    if let JobState::Ended { outcome, .. } = &job.state {
        apply(storage, active, &Event::ended(job.node, job.attempt, *outcome))?;
        let look = job.gates.as_ref().map(|gates| Event::Looked { node: job.node, look: gates.look() });
        return look.map_or(Ok(()), |look| apply(storage, active, &look));
    }
    match rebuild::said(storage, memory, job) {
        Some((at, event)) => apply_at(active, at, &event),
        None => Ok(()),
    }
}

pub(super) fn apply(storage: &Storage, active: &Active, event: &Event) -> Result<()> {
    apply_at(active, storage.clock.moment(), event)
}

fn apply_at(active: &Active, at: Moment, event: &Event) -> Result<()> {
    match active.open.write().apply(at, event) {
        Ok(Applied::Changed | Applied::Repeated | Applied::Late) => Ok(()),
        // What is stored and what the engine holds have parted: the run is read anew, as after a conflict.
        Err(error) => Err(ControllerError::new(Kind::Conflict, "engine", format!("{event}: {error}"))),
    }
}

/// Saves and says everything that is wanted now. True when the run has ended.
pub async fn settle(
    context: &Context,
    active: &Active,
    holds: &mut Holds,
    cancel_retries: &mut CancelRetries,
) -> Result<bool> {
    loop {
        let now = context.storage.clock.moment();
        let wanted = active.open.read().rollout().wanted(now);
        if !wanted.end.is_empty() {
            save_ends(&context.storage, &context.memory, active, &wanted).await?;
            continue;
        }
        if let Some(step) = &wanted.ring {
            save_ring(&context.storage, active, now, step).await?;
            continue;
        }
        if !wanted.ask.is_empty() {
            gates::save_asks(context, active, &wanted.ask).await?;
            continue;
        }
        if !wanted.offer.is_empty() {
            save_offers(context, active, holds, &wanted).await?;
            continue;
        }
        ask_to_stop(&context.memory, &context.settings, active, &wanted.cancel, cancel_retries);
        break;
    }
    save_phase(&context.storage, active).await
}

async fn save_ends(storage: &Storage, memory: &Memory, active: &Active, wanted: &Wanted) -> Result<()> {
    let RunRecord { run, authority, .. } = active.run().record;
    let now = storage.clock.now();
    let mut batch = storage.audited.batch().using_reserve();
    let (mut leaves, mut written) = (Vec::new(), Vec::new());
    for end in &wanted.end {
        let Some(known) = active.job(end.node) else { continue };
        let record = JobRecord {
            state: JobState::ended(end.outcome, end.reason.clone()),
            attempt: end.attempt,
            ended: Some(now),
            summary: end.reason.chars().take(200).collect(),
            ..known.record.clone()
        };
        batch = jobs::end(&storage.repo, batch, &known, &record).await?;
        leaves.push(
            AuditEntry::new(storage.audited.actor(), "job.end", format!("run/{run}"))
                .job(record.id(), end.attempt)
                .subject(authority.digest())
                .outcome(end.outcome)
                .because(end.reason.chars().take(200).collect::<String>()),
        );
        written.push(record);
    }
    let write_id = storage.audited.commit(batch, leaves).await?;
    for record in written {
        if let JobState::Ended { outcome, reason, .. } = &record.state {
            apply(storage, active, &Event::ended(record.node, record.attempt, *outcome))?;
            if *outcome == Outcome::Lost {
                // Its inbox entry stays, so that it is told to stop whenever it comes back; should it be there
                // and only deaf, it is told now.
                let stop = ToNode::Cancel { run, attempt: record.attempt, reason: reason.clone() };
                memory.sessions.send(record.node, stop);
            }
        }
        memory.sessions.clear_live(record.node, run);
        active.open.write().put_job(record, write_id);
    }
    Ok(())
}

/// Writes how far a ring has come, and tells the engine of the same moment: what passes meanwhile is not lost to a soak.
async fn save_ring(storage: &Storage, active: &Active, now: Moment, step: &RingStep) -> Result<()> {
    let Stored { mut record, write_id } = active.run();
    let (run, subject) = (record.run, record.authority.digest());
    let rings = record.rollout.as_mut().map(|rollout| &mut rollout.rings);
    let ring = rings
        .and_then(|rings| rings.get_mut(step.ring))
        .ok_or_else(|| rebuild::contradiction("a ring moves that its record does not have"))?;
    ring.note(&step.progress);
    // What passes in between in one pass, or is a mark of time, is no news to whoever reads the log.
    let news = match step.progress.state {
        RingState::Open | RingState::Soaking | RingState::Done | RingState::Halted => {
            (step.event != RingEvent::SoakNoted).then(|| match ring.because.as_str() {
                "" => format!("{}: {}", ring.name, ring.state),
                because => format!("{}: {}: {because}", ring.name, ring.state),
            })
        }
        RingState::AwaitingApproval if ring.verdict.is_some() => Some(format!("{}: gates pass", ring.name)),
        RingState::Pending | RingState::Judging | RingState::AwaitingApproval => None,
    };
    let leaf = |news: String| {
        AuditEntry::new(storage.audited.actor(), "rollout.ring", format!("run/{run}"))
            .subject(subject)
            .because(news.chars().take(200).collect::<String>())
    };
    let batch = runs::save(storage.audited.batch().using_reserve(), write_id, &record)?;
    let write_id = storage.audited.commit(batch, news.map(leaf).into_iter().collect()).await?;
    apply_at(active, now, &Event::Ring { ring: step.ring, what: step.event.clone() })?;
    active.open.write().run = Stored { record, write_id };
    Ok(())
}

async fn save_offers(context: &Context, active: &Active, holds: &mut Holds, wanted: &Wanted) -> Result<()> {
    let stored = active.run();
    let RunRecord { run, authority, .. } = stored.record;
    let now = context.storage.clock.now();
    // Only while the run is as it was read: no wave may start after a cancel was confirmed.
    let mut batch = context.storage.audited.batch().if_write_id(runs::key(run)?, stored.write_id);
    let (mut written, mut entries) = (Vec::new(), Vec::new());
    for offer in &wanted.offer {
        let Some(known) = active.job(offer.node) else { continue };
        let record = JobRecord {
            state: JobState::Offered,
            attempt: offer.attempt,
            places: offer.places.clone(),
            offered: Some(now),
            ..known.record.clone()
        };
        let entry = active.inbox(&record)?;
        batch = jobs::offer(batch, &known, &record, &entry)?;
        entries.push((offer.node, entry));
        written.push(record);
    }
    let mut leaves: Vec<_> = written.iter().map(|record| record.node).collect();
    leaves.sort_unstable();
    let root = merkle::root(&leaves.iter().map(|node| node_leaf(*node)).collect::<Vec<_>>());
    let leaf = AuditEntry::new(context.storage.audited.actor(), "run.wave", format!("run/{run}"))
        .subject(authority.digest())
        .nodes(root)
        .because(format!("{} nodes", written.len()));
    let write_id = context.storage.audited.commit(batch, vec![leaf]).await?;
    for record in written {
        apply(&context.storage, active, &Event::offered(record.node, record.attempt))?;
        for place in &record.places {
            holds.set(place, Some(HoldRecord::of(&record).holder()));
            tell_hold(&context.storage, active, holds, place)?;
        }
        active.open.write().put_job(record, write_id);
    }
    deliver::offers(&context.memory, &context.identities, run, entries);
    Ok(())
}

/// Tells the nodes that should stop and are connected: at once, and again after as long as an offer waits for its
/// answer. That the run is halting is stored already; who is not connected, or has no room for the word now, is
/// told by its session, which looks into the inbox. Stopping is idempotent on the node.
fn ask_to_stop(
    memory: &Memory,
    settings: &Settings,
    active: &Active,
    nodes: &[NodeId],
    cancel_retries: &mut CancelRetries,
) {
    let RunRecord { run, stopped_because: reason, .. } = active.run().record;
    let now = Instant::now();
    for node in cancel_retries.due(nodes, now, settings.offer) {
        let Some(job) = active.job(node) else { continue };
        let stop = ToNode::Cancel { run, attempt: job.record.attempt, reason: reason.clone() };
        memory.sessions.send(node, stop);
        cancel_retries.told(node, now);
    }
}

/// Writes the run's record when its phase changed. True when it has ended.
async fn save_phase(storage: &Storage, active: &Active) -> Result<bool> {
    let now = storage.clock.now();
    let Stored { record: before, write_id } = active.run();
    let summary = active.open.read().rollout().summary(now);
    let state = summary.state;
    if state == before.state {
        return Ok(state.is_terminal());
    }
    let run = before.run;
    let ended = state.is_terminal();
    let record = RunRecord { state, tally: summary.tally, ended: ended.then_some(now), ..before.clone() };
    let batch = runs::save(storage.audited.batch().using_reserve(), write_id, &record)?;
    let mut leaves = Vec::new();
    // Waiting comes and goes with nodes; the log keeps the phases that mean something.
    if ended || before.state == RunState::Planned {
        let action = if ended { "run.end" } else { "run.begin" };
        leaves.push(
            AuditEntry::new(storage.audited.actor(), action, format!("run/{run}"))
                .subject(record.authority.digest())
                .because(state.as_str()),
        );
    }
    let write_id = storage.audited.commit(batch, leaves).await?;
    active.open.write().run = Stored { record, write_id };
    Ok(ended)
}
