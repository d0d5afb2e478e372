//! When the controller stops waiting for word of a job, and when to look again.
//!
//! A node enforces its own limits on boot time and says how long a job may still take, its queue, way back and
//! final entries included ([`fleet_types::job::JobLimits`]). Silence is judged by the link and by that word, on
//! the monotonic clock (DESIGN, "Silence"):
//!
//! - a node that is connected and says that it has the job is never lost;
//! - a silent one is lost [`LOST_GRACE`] after the latest of: the end of what it said it may take, its last
//!   contact, and the instant from which this controller has been listening;
//! - a job that was offered and not answered may be on the node and wait there until the last start, so its
//!   time begins then.
//!
//! Must never shorten a time that was given. Called by this crate, `next_look` by the runner's timer.

use std::ops::Bound;
use std::time::Duration;

use crate::event::Mode;
use crate::moment::{Moment, Mono};
use crate::state::Rollout;

/// Silence that is allowed on top of what a job may take (DESIGN, "The life of a job"): five minutes. A
/// reconnect backs off up to 60 s and is spread over the fleet; five of them fit. A node's boot time and the
/// controller's clock may drift apart by seconds a day, which fits as well.
pub const LOST_GRACE: Duration = Duration::from_mins(5);

/// A node's word counts up to so many times what the documents say that a job may take: a node rounds up and
/// drains, but a stolen one must not keep a run open for ever with one word.
const WORD_AT_MOST: u32 = 2;

impl Rollout {
    /// The controller could not listen until now: it was just started, or it was suspended. Nobody is lost for
    /// silence before this, and for [`LOST_GRACE`] after it.
    pub fn listening_from(&mut self, now: Mono) {
        self.listening_since = self.listening_since.max(now);
        // Nobody watched a ring that soaks or is judged, either: what is not saved of it does not count.
        for since in self.rings.iter_mut().filter_map(|ring| ring.since.as_mut()) {
            *since = now;
        }
    }

    /// Where a job's time ends that may begin as late as the last start. The wall clock may have stepped since
    /// the run was read: the later of both readings counts.
    pub(crate) fn ends_if_begun_last(&self, now: Moment) -> Mono {
        let last_start = self.anchor.mono_of(self.plan.not_after).max(now.mono_of(self.plan.not_after));
        last_start.plus(self.plan.job_limit)
    }

    /// Where a job's time ends by the node's own word.
    pub(crate) fn ends_by_word(&self, now: Moment, left: Duration) -> Mono {
        let at_most = self.ends_if_begun_last(now).plus(self.plan.job_limit * (WORD_AT_MOST - 1));
        now.mono.plus(left).min(at_most)
    }

    /// The jobs that count as lost at `now`.
    pub(crate) fn lost(&self, now: Moment) -> impl Iterator<Item = usize> {
        let listening = now.mono.since(self.listening_since) >= LOST_GRACE;
        let overdue = now.mono.minus(LOST_GRACE);
        let silent = self.silent.range(..=(overdue, usize::MAX));
        // Before a grace has passed since the start, `overdue` is cut off at the start and must name nobody.
        let is_over = move |ends: Mono| now.mono.since(ends) >= LOST_GRACE;
        silent.filter(move |(ends, _)| listening && is_over(*ends)).map(|(_, index)| *index)
    }

    /// How long until [`Rollout::wanted`] changes without an event; `None` when only events can change it.
    /// O(log n).
    pub fn next_look(&self, now: Moment) -> Option<Duration> {
        let listening = self.listening_since.plus(LOST_GRACE);
        let from = if now.mono < listening {
            Bound::Unbounded
        } else {
            Bound::Excluded((now.mono.minus(LOST_GRACE), usize::MAX))
        };
        let next = self.silent.range((from, Bound::Unbounded)).next();
        let lost = next.map(|(ends, _)| ends.plus(LOST_GRACE).max(listening).since(now.mono));
        let waits = !self.queued.is_empty();
        let until = |at: fleet_types::time::Timestamp| at.since(now.wall);
        let first_start = Some(self.plan.not_before).filter(|at| waits && *at > now.wall).map(until);
        let last_start = Some(self.plan.not_after).filter(|at| waits && *at > now.wall).map(until);
        let first_start = first_start.filter(|_| self.mode == Mode::Going);
        [lost, first_start, last_start, self.soak_look(now), self.judging_look(now)]
            .into_iter()
            .flatten()
            .min()
    }
}
