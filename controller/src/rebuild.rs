//! From records, and what nodes said last, to the engine's state. Used by the runner (at start, after a
//! conflict) and by views, so that both see a run the same way. Decides nothing and writes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_rollout::{
    Event, Holds, JobFact, KnownJob, Limits, Mode, Moment, Mono, Plan, PlanInput, PlannedNode, Presence,
    Reported, RingProgress, Rollout, Tolerance,
};
use fleet_types::id::NodeId;
use fleet_types::job::JobState;
use fleet_types::run::RunState;
use fleet_types::time::Timestamp;
use fleet_types::view::Presence as Link;

use crate::context::{Context, Memory, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::fleet::open_runs::{OpenRun, RunModel};
use crate::repo::jobs::JobRecord;
use crate::repo::reader::Stored;
use crate::repo::rollouts::{RingRecord, RolloutRecord};
use crate::repo::runs::RunRecord;

/// Code of the error that no later reading will mend: the records of a run contradict each other.
pub const UNLOADABLE: &str = "run-unloadable";

/// Says that the records of a run contradict each other.
pub fn contradiction(why: impl std::fmt::Display) -> ControllerError {
    ControllerError::new(Kind::Internal, UNLOADABLE, why.to_string())
}

/// The engine's plan of a run.
fn plan<'a>(run: &RunRecord, limits: Limits, jobs: impl Iterator<Item = &'a JobRecord>) -> Result<Plan> {
    let input = PlanInput {
        run: run.run,
        changes: run.changes,
        limits,
        max_parallel: run.max_parallel,
        not_before: run.not_before,
        not_after: run.not_after,
        job_limit: Duration::from_millis(run.job_limit_ms),
        max_failures: run.max_failures,
        rings: run.rollout.iter().flat_map(|rollout| &rollout.rings).map(RingRecord::input).collect(),
        judging: run.rollout.as_ref().and_then(RolloutRecord::judging),
        tolerance: run.rollout.as_ref().map_or_else(Tolerance::default, RolloutRecord::tolerance),
        nodes: jobs
            .map(|job| PlannedNode {
                node: job.node,
                name: job.node_name.to_string(),
                pair: job.pair.clone(),
                site: job.site.clone(),
                // More rings than this machine can count are more than the plan takes.
                ring: usize::try_from(job.ring).unwrap_or(usize::MAX),
            })
            .collect(),
    };
    Plan::new(input).map_err(|problems| {
        contradiction(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })
}

/// What a record says.
fn fact(job: &JobRecord) -> JobFact {
    match &job.state {
        JobState::Queued => JobFact::Queued,
        JobState::Ended { outcome, .. } => JobFact::Ended { attempt: job.attempt, outcome: *outcome },
        _ => JobFact::Offered { attempt: job.attempt, at: job.offered.unwrap_or(Timestamp::clamped(0)) },
    }
}

/// What a node says, in the engine's words; `None` for what is not between offer and end.
const fn reported(state: &JobState) -> Option<Reported> {
    match state {
        JobState::Accepted => Some(Reported::Accepted),
        JobState::Running { .. } | JobState::Unknown => Some(Reported::Running),
        JobState::Waiting { .. } => Some(Reported::Waiting),
        JobState::RollingBack { .. } => Some(Reported::RollingBack),
        JobState::Queued | JobState::Offered | JobState::Ended { .. } => None,
    }
}

/// Is the node's link up here, and may it be offered work?
pub fn presence(memory: &Memory, node: NodeId) -> Presence {
    match memory.node_cache.get(node) {
        Some(known) if known.presence != Link::Online => Presence::Offline,
        Some(known) if known.takes_work() => Presence::Online,
        Some(_) => Presence::Held,
        None => Presence::Offline,
    }
}

/// What is known beyond the records when a run is read anew in the same process.
#[derive(Default)]
pub struct Known {
    /// The engine's state before.
    pub before: Option<Arc<OpenRun>>,
    /// Since when this process has listened without a break.
    pub listening_since: Mono,
}

/// The engine's state of a run as its records, what nodes said last, and the holds make it.
pub fn rollout(
    context: &Context,
    run: &RunRecord,
    jobs: &BTreeMap<NodeId, Stored<JobRecord>>,
    known: &Known,
    holds: &Holds,
) -> Result<Rollout> {
    let mode = match run.state {
        RunState::Halting => Mode::Halting { reason: run.stopped_because.clone() },
        _ if !run.paused_because.is_empty() => Mode::Paused { reason: run.paused_because.clone() },
        _ => Mode::Going,
    };
    let before = known.before.as_ref().map(|open| open.read());
    let before = before.as_deref().map(RunModel::rollout);
    let jobs = || jobs.values().map(|job| &job.record);
    let anchor = before.map_or_else(|| context.storage.clock.moment(), Rollout::anchor);
    let jobs_known = jobs().map(|job| {
        let fact = fact(job);
        let before = before.and_then(|rollout| rollout.job(job.node)).filter(|job| job.fact == fact);
        let live = before.and_then(|job| job.live);
        (job.node, KnownJob { fact, live, presence: presence(&context.memory, job.node) })
    });
    let limits = context.settings.changing;
    let limits = run.rollout.as_ref().map_or(limits, |rollout| rollout.limits(limits));
    let plan = plan(run, limits, jobs())?;
    let held: Vec<_> = plan
        .scopes()
        .flat_map(|scope| holds.of(&scope).map(|(place, by)| (place, by.clone())).collect::<Vec<_>>())
        .collect();
    let rings = rings(&context.storage, run, before);
    let mut rollout = Rollout::restore(plan, mode, anchor, known.listening_since, jobs_known, held, rings)
        .map_err(contradiction)?;
    for (job, gates) in jobs().filter_map(|job| Some((job, job.gates.as_ref()?))) {
        let event = Event::Looked { node: job.node, look: gates.look() };
        rollout.apply(anchor, &event).map_err(ControllerError::internal)?;
    }
    for job in jobs().filter(|job| job.state.outcome().is_none()) {
        if let Some(event) = said(&context.storage, &context.memory, job) {
            rollout.apply(event.0, &event.1).map_err(ControllerError::internal)?;
        }
    }
    Ok(rollout)
}

/// What is stored of the rings. Of one that soaks time counts from now on, or, where this process has watched it, from
/// when it did.
fn rings(storage: &Storage, run: &RunRecord, before: Option<&Rollout>) -> Vec<(RingProgress, Mono)> {
    let now = storage.clock.moment().mono;
    let watched: Vec<_> = before.into_iter().flat_map(Rollout::known_rings).collect();
    let stored: Vec<RingProgress> = match &run.rollout {
        Some(rollout) => rollout.rings.iter().map(RingRecord::progress).collect(),
        None => vec![RingProgress::begin(0)],
    };
    let since = |number: usize, progress: &RingProgress| {
        watched.get(number).filter(|(was, _)| was == progress).map_or(now, |(_, since)| *since)
    };
    stored.into_iter().enumerate().map(|(n, progress)| (progress.clone(), since(n, &progress))).collect()
}

/// What a node said last of an offered job, and when.
pub fn said(storage: &Storage, memory: &Memory, job: &JobRecord) -> Option<(Moment, Event)> {
    if job.state == JobState::Queued {
        return None;
    }
    let live = memory.sessions.live(job.node, job.run).filter(|live| live.attempt == job.attempt)?;
    let left = live.limits.map(|limits| limits.job_left);
    let now = storage.clock.moment();
    // The wall clock as it was when the node spoke, as far as the present one is right.
    let at = Moment { wall: now.wall.minus(now.mono.since(live.said)), mono: live.said };
    Some((at, Event::reported(job.node, job.attempt, reported(&live.state)?, left)))
}
