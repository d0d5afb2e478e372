//! How long a job may take, worked out from its procedure alone: the forward way, the way back, the final
//! entries.
//!
//! Each entry is held to its own limit by the run; the sums here are what the node gives as its word to the
//! controller. Pure. Called by runs, and by the dispatcher for jobs that wait.

use std::time::Duration;

use fleet_types::document::procedure::OnFailure;
use fleet_types::request::Verb;

use super::planning::PLAN_LIMIT;
use crate::policy::Admitted;
use crate::resolve::ResolvedStep;
use crate::tasks::Reversal;

/// Until when a job's present phase and the whole job last at most, on boot time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// The present phase.
    pub phase: Duration,
    /// The job.
    pub job: Duration,
}

/// The parts of a job's time. Each call of a task has the grace after its limit in which it is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Through the steps.
    pub forward: Duration,
    /// Back, if it must.
    pub way_back: Duration,
    /// The final entries.
    pub finals: Duration,
}

impl Shares {
    /// Of admitted work.
    pub fn of(admitted: &Admitted, grace: Duration) -> Self {
        let resolution = admitted.resolution();
        if admitted.verb() == Verb::Plan {
            let asked = resolution.active().map(|step| step.time_limit.min(PLAN_LIMIT) + grace).sum();
            return Self { forward: asked, way_back: Duration::ZERO, finals: Duration::ZERO };
        }
        let goes_back = resolution.steps.iter().any(|step| step.on_failure == OnFailure::Rollback);
        let way_back = match (goes_back, resolution.procedure.rollback.is_empty()) {
            (false, _) => Duration::ZERO,
            (true, false) => entries(&resolution.rollback, grace),
            (true, true) => {
                let stored = resolution.active().filter(|step| step.reversal() == Reversal::Stored);
                stored.map(|step| step.time_limit + grace).sum()
            }
        };
        // Its time to be confirmed, and the guard's way back.
        let guarded = resolution.active().filter_map(|step| Some(step.guard? + step.time_limit + grace * 4));
        Self {
            forward: resolution.procedure.timeout.length() + grace + guarded.sum::<Duration>(),
            way_back,
            finals: entries(&resolution.finally, grace),
        }
    }

    /// The whole.
    pub fn total(&self) -> Duration {
        self.forward + self.way_back + self.finals
    }
}

/// The limits of entries, one after the other.
pub fn entries<'a>(entries: impl IntoIterator<Item = &'a ResolvedStep>, grace: Duration) -> Duration {
    entries.into_iter().map(|entry| entry.time_limit + grace).sum()
}
