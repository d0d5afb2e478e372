//! A run for a tick: which nodes it means now, which of them a blackout holds, and further rounds for those that were not reached.
//!
//! The tick's record and the lane are written in the commit that makes the run. Called by a turn.

use fleet_schedule::{Fire, Free, LateTick, Round, Skip, late_round};
use fleet_types::id::{NodeId, RunId};
use fleet_types::job::Outcome;
use fleet_types::run::RunState;
use fleet_types::time::Timestamp;
use fleet_types::view::NotFired;

use super::turn::Look;
use crate::error::{Kind, Result};
use crate::repo::audited::AuditEntry;
use crate::repo::jobs::{self, JobRecord};
use crate::repo::runs::{self, RunRecord};
use crate::repo::ticks::{self, DecidedTick, Fired};
use crate::service::ticks::{Firing, fire as make_run};

/// Nodes that may start, and until when.
struct Allowed {
    nodes: Vec<NodeId>,
    until: Timestamp,
    /// The blackout that holds others.
    held_by: Option<String>,
}

/// Leaves out the nodes that a blackout holds, and ends the others' time where one begins. What only reads goes on.
fn allowed(look: &Look<'_>, nodes: &[NodeId], not_before: Timestamp, not_after: Timestamp) -> Allowed {
    let mut allowed = Allowed { nodes: vec![], until: not_after, held_by: None };
    for node in nodes {
        let known = look.context.memory.node_cache.get(*node).filter(|_| look.prepared.changes);
        let free = known.map_or(Free::Until(None), |known| {
            look.blackouts.free(&known.record.name, &known.record.labels, not_before)
        });
        match free {
            Free::No(name) => allowed.held_by = Some(name),
            Free::Until(until) => {
                allowed.nodes.push(*node);
                allowed.until = until.map_or(allowed.until, |until| until.min(allowed.until));
            }
        }
    }
    allowed
}

/// Makes the run of a tick, or saves why there is none.
pub async fn fire(look: &Look<'_>, fire: Fire, nodes: &[NodeId]) -> Result<()> {
    let Allowed { nodes: free, until, held_by } = allowed(look, nodes, fire.not_before, fire.not_after);
    if free.is_empty() {
        let (why, because) = match held_by {
            Some(blackout) => (NotFired::Blackout, blackout),
            None => (NotFired::NoNodes, String::new()),
        };
        let skip = Skip { first: fire.at, last: fire.at, count: 1, why };
        return look.save(vec![look.not_fired(skip, because)]).await;
    }
    let seen = look.stored.as_ref().map(|stored| stored.write_id);
    let firing = Firing { at: fire.at, nodes: &free, not_before: fire.not_before, not_after: until };
    make_run(look.context, &look.prepared.record, firing, |batch, run| {
        let mut lane = look.decided(fire.at);
        lane.fired = Some(Fired { at: fire.at, run, caught_up: fire.caught_up, rounds: 0, open: true });
        let because = held_by.map(|name| format!("without nodes that blackout {name} holds"));
        let tick = DecidedTick {
            lane: lane.lane.clone(),
            at: fire.at,
            first: None,
            count: 1,
            decided: look.now,
            not_fired: None,
            because: because.unwrap_or_default(),
            runs: vec![run],
        };
        ticks::decide(batch, seen, &lane, &[tick])
    })
    .await
    .map(drop)
}

/// What came of looking for another round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounded {
    /// There is another run.
    Fired,
    /// There will be one then.
    Then(Timestamp),
}

impl Rounded {
    /// When to look again.
    pub const fn then(self) -> Option<Timestamp> {
        match self {
            Self::Then(at) => Some(at),
            Self::Fired => None,
        }
    }
}

/// Another round of the newest tick of a lane, whose run has ended, for the nodes that it did not reach.
pub async fn round(look: &Look<'_>) -> Result<Option<Rounded>> {
    let Some(stored) = &look.stored else { return Ok(None) };
    let Some(fired) = stored.record.fired.filter(|fired| fired.open) else { return Ok(None) };
    // A newer tick that was not carried out has the nodes as well: they are asked about at the next one.
    let order = &look.prepared.record.order;
    let tick = LateTick { at: fired.at, rounds: fired.rounds };
    let round = late_round(&look.lane.rules, &look.lane.times, tick, order.not_after, look.now);
    let in_order = fired.at >= order.not_before && stored.record.decided == fired.at;
    let not_after = match round {
        Round::Now { not_after } if in_order => not_after,
        Round::Then(at) if in_order => return Ok(Some(Rounded::Then(at))),
        _ => return close(look, fired).await,
    };
    let missed = not_reached(look, fired.run).await?;
    let Allowed { nodes, until, .. } = allowed(look, &missed, look.now, not_after);
    let Some(tick) = ticks::tick(&look.context.storage.repo, &look.lane.lane, fired.at).await? else {
        return close(look, fired).await;
    };
    if nodes.is_empty() {
        return close(look, fired).await;
    }
    let firing = Firing { at: fired.at, nodes: &nodes, not_before: look.now, not_after: until };
    make_run(look.context, &look.prepared.record, firing, |batch, run| {
        let mut lane = stored.record.clone();
        lane.fired = Some(Fired { run, rounds: fired.rounds + 1, ..fired });
        ticks::another_round(batch, stored.write_id, &lane, &tick, run)
    })
    .await?;
    Ok(Some(Rounded::Fired))
}

/// There are no further rounds of this tick.
async fn close(look: &Look<'_>, fired: Fired) -> Result<Option<Rounded>> {
    let Some(stored) = &look.stored else { return Ok(None) };
    let audited = &look.context.storage.audited;
    let mut lane = stored.record.clone();
    lane.fired = Some(Fired { open: false, ..fired });
    audited.commit(ticks::decide(audited.batch(), Some(stored.write_id), &lane, &[])?, vec![]).await?;
    Ok(None)
}

/// Nodes of a run that never began, because their time was over, and that take work now.
async fn not_reached(look: &Look<'_>, run: RunId) -> Result<Vec<NodeId>> {
    let jobs = look.context.storage.repo.all::<JobRecord>(&jobs::of_run(run)).await?;
    let meant = look.prepared.nodes(look.context, &look.lane.lane);
    let expired = |job: &JobRecord| job.state.outcome() == Some(Outcome::Expired);
    let nodes = jobs.into_iter().filter(|(_, stored)| expired(&stored.record));
    let mut nodes: Vec<NodeId> = nodes.map(|(_, stored)| stored.record.node).collect();
    nodes.retain(|node| meant.binary_search(node).is_ok());
    nodes.sort_unstable();
    Ok(nodes)
}

/// Stops the run before this tick: no further node begins, and steps under way end.
pub async fn cancel(look: &Look<'_>, run: RunId) -> Result<()> {
    let storage = &look.context.storage;
    let Some(stored) = storage.repo.get::<RunRecord>(&runs::key(run)?).await? else { return Ok(()) };
    if stored.record.state.is_terminal() || stored.record.state == RunState::Halting {
        return Ok(());
    }
    let because = "the next tick of its schedule is due".to_owned();
    let record = RunRecord { state: RunState::Halting, stopped_because: because.clone(), ..stored.record };
    let batch = runs::save(storage.audited.batch().using_reserve(), stored.write_id, &record)?;
    let leaf = AuditEntry::new(storage.audited.actor(), "run.cancel", format!("run/{run}")).text(&because);
    match storage.audited.commit(batch, vec![leaf]).await {
        Ok(_) => look.context.memory.notifier.run_changed(run),
        // The runner wrote a phase in between: the next turn looks again.
        Err(error) if error.kind == Kind::Conflict => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
