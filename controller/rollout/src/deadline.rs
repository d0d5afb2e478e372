//! Until when silence is borne, and when to look again.
//!
//! The node enforces its own limits, on boot time (security-and-delivery §2.7); here is only decided when
//! the controller stops waiting for word. Must never shorten a deadline that was given. Called by this
//! crate, `next_deadline` by the runner's timer.

use std::ops::Bound;
use std::time::Duration;

use fleet_types::time::Timestamp;

use crate::event::Mode;
use crate::state::{Clock, Rollout};

/// Silence that is borne on top of the procedure's limit (DESIGN, "The life of a job"): five minutes. A
/// reconnect backs off up to 60 s and is spread over the fleet; five of them fit.
pub const LOST_GRACE: Duration = Duration::from_mins(5);

impl Rollout {
    /// When a job in flight counts as lost, if nothing more is heard of it.
    ///
    /// The latest of: the working-time limit with its grace; five minutes after the controller began to
    /// listen; five minutes after the node was last heard, at most the limit once more, so that a node that
    /// talks without end cannot hold a slot without end.
    pub(crate) fn due_at(&self, clock: Clock) -> Timestamp {
        let limit = clock.since.plus(self.plan.job_deadline);
        let patience = clock.heard.plus(LOST_GRACE).min(limit.plus(self.plan.job_deadline));
        limit.max(patience).max(self.listening_since.plus(LOST_GRACE))
    }

    /// The earliest instant after `now` at which [`Rollout::wanted`] changes without an event; `None` when
    /// only events can change it. O(log n).
    pub fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let after_now = (Bound::Excluded((now, usize::MAX)), Bound::Unbounded);
        let lost = self.due.range(after_now).next().map(|(at, _)| *at);
        let first_start = Some(self.plan.not_before)
            .filter(|at| *at > now && self.mode == Mode::Going && !self.queued.is_empty());
        let last_start = Some(self.plan.not_after).filter(|at| *at > now && !self.queued.is_empty());
        [lost, first_start, last_start].into_iter().flatten().min()
    }
}
