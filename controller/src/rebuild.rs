//! From records, and what nodes said last, to the engine's state. Used by the runner (at start, after a
//! conflict) and by views, so that both see a run the same way. Decides nothing and writes nothing.

use std::time::Duration;

use fleet_rollout::{JobFact, KnownJob, Live, Mode, Plan, PlanInput, PlannedNode, Reported, Rollout};
use fleet_types::id::NodeId;
use fleet_types::job::JobState;
use fleet_types::run::RunState;
use fleet_types::time::Timestamp;
use fleet_types::view::Presence;

use crate::context::Context;
use crate::error::{ControllerError, Result};
use crate::repo::records::{JobRecord, RunRecord};

/// The engine's plan of a run.
fn plan(run: &RunRecord, jobs: &[JobRecord]) -> Result<Plan> {
    let input = PlanInput {
        run: run.run,
        changes: run.changes,
        max_parallel: run.max_parallel,
        not_before: run.not_before,
        not_after: run.not_after,
        job_deadline: Duration::from_millis(run.job_limit_ms) + fleet_rollout::LOST_GRACE,
        nodes: jobs
            .iter()
            .map(|job| PlannedNode { node: job.node, pair: job.pair.clone(), site: job.site.clone() })
            .collect(),
    };
    Plan::new(input).map_err(|problems| {
        ControllerError::internal(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })
}

/// What a record says.
pub fn fact(job: &JobRecord) -> JobFact {
    match &job.state {
        JobState::Queued => JobFact::Queued,
        JobState::Ended { outcome, .. } => JobFact::Ended { attempt: job.attempt, outcome: *outcome },
        _ => JobFact::Offered { attempt: job.attempt, at: job.offered.unwrap_or(Timestamp::clamped(0)) },
    }
}

/// What a node says, in the engine's words; `None` for what is not between offer and end.
pub const fn reported(state: &JobState) -> Option<Reported> {
    match state {
        JobState::Accepted => Some(Reported::Accepted),
        JobState::Running { .. } => Some(Reported::Running),
        JobState::Waiting { .. } => Some(Reported::Waiting),
        JobState::RollingBack { .. } => Some(Reported::RollingBack),
        JobState::Queued | JobState::Offered | JobState::Ended { .. } => None,
    }
}

/// Is the node's link up here?
pub fn is_online(context: &Context, node: NodeId) -> bool {
    context.node_cache.get(node).is_some_and(|known| known.presence == Presence::Online)
}

/// The engine's state of a run as its records and what nodes said last make it.
pub fn rollout(context: &Context, run: &RunRecord, jobs: &[JobRecord]) -> Result<Rollout> {
    let mode = match run.state {
        RunState::Halting => Mode::Halting { reason: run.stopped_because.clone() },
        RunState::Paused => Mode::Paused { reason: run.stopped_because.clone() },
        _ => Mode::Going,
    };
    let now = context.clock.now();
    let known = jobs.iter().map(|job| {
        let live = context
            .sessions
            .live(job.node, job.run)
            .filter(|(attempt, _)| *attempt == job.attempt)
            .and_then(|(_, state)| reported(&state));
        let live = live.map(|reported| Live {
            reported: Some(reported),
            since: job.offered.unwrap_or(now),
            heard: now,
        });
        (job.node, KnownJob { fact: fact(job), live, online: is_online(context, job.node) })
    });
    Rollout::restore(plan(run, jobs)?, mode, context.listening_since, known)
        .map_err(ControllerError::internal)
}
