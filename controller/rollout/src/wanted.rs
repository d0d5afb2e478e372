//! What should be so now. Worked out from the state each time; asking again gives the same answer.
//!
//! Decisions made here, with their reasons:
//! - Only nodes that are online are offered their job. An offline node stays queued, takes no slot, and
//!   goes when it comes back or ends as `expired` with the run's last start.
//! - A node in flight that goes offline keeps its slot, and its pair's, until its deadline: it may be changing.
//! - An offer that was never answered ends as `lost`, not `expired`: whether the node began is not known.
//!   The node itself says `expired` when it receives an offer too late.
//! - A job that waits keeps its slot until there is a signed `Proceed`, because the node goes on by itself.
//!
//! Must never change the state. Called by the controller's runner, and `directive` by whoever delivers.

use fleet_types::id::{Attempt, NodeId};
use fleet_types::job::{Outcome, Phase};
use fleet_types::time::Timestamp;

use crate::deadline::LOST_GRACE;
use crate::event::Mode;
use crate::state::{Job, Rollout};

/// At most this many offers, and as many ends, in one answer. Each is two or three writes (record, inbox,
/// leaf), so that a page fits one commit of 1,024 operations (DESIGN, "Store").
pub const PAGE: usize = 256;

/// What should be so now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Save these offers, apply `Offered`, then deliver. At most [`PAGE`].
    pub offer: Vec<Offer>,
    /// Save these ends, apply `Ended`. At most [`PAGE`].
    pub end: Vec<End>,
    /// In flight and to be asked to stop, until their end is reported. At most `max_parallel`.
    pub cancel: Vec<NodeId>,
}

impl Wanted {
    /// Is nothing to be done?
    pub fn is_empty(&self) -> bool {
        self.offer.is_empty() && self.end.is_empty() && self.cancel.is_empty()
    }
}

/// A job to be offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// To whom.
    pub node: NodeId,
    /// Which try.
    pub attempt: Attempt,
}

/// A job to be ended by the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Whose.
    pub node: NodeId,
    /// Which try.
    pub attempt: Attempt,
    /// `expired`, `cancelled` or `lost`.
    pub outcome: Outcome,
    /// Why, in words.
    pub reason: String,
}

/// What one node should be doing for this run, for its stream and at reconcile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directive {
    /// Carry out this attempt; repeated, it is a question.
    Work {
        /// Which try.
        attempt: Attempt,
    },
    /// Stop this attempt.
    Stop {
        /// Which try.
        attempt: Attempt,
    },
}

impl Rollout {
    /// What should be so at `now`. After its parts were saved and applied, ask again: answers are pages.
    pub fn wanted(&self, now: Timestamp) -> Wanted {
        let offer = if self.starts_blocked(now).is_empty() {
            self.next_indexes().map(|index| self.offer(index)).collect()
        } else {
            Vec::new()
        };
        let cancel = match self.mode {
            Mode::Halting { .. } => self.in_flight.iter().map(|index| self.plan.nodes[*index].node).collect(),
            Mode::Going | Mode::Paused { .. } => Vec::new(),
        };
        Wanted { offer, end: self.ends(now), cancel }
    }

    /// What `node` should be doing for this run; `None` when nothing.
    ///
    /// An offer that was not answered for as long as the procedure may work is not repeated: what is left
    /// until the job counts as lost is for the answer, so that no node begins what is about to be given up.
    pub fn directive(&self, node: NodeId, now: Timestamp) -> Option<Directive> {
        let job = &self.jobs[self.plan.index(node)?];
        let (attempt, clock) = (job.attempt, job.clock?);
        if let Mode::Halting { .. } = self.mode {
            return Some(Directive::Stop { attempt });
        }
        let answer_by = clock.since.plus(self.plan.job_deadline.saturating_sub(LOST_GRACE));
        (job.phase != Phase::Offered || now < answer_by).then_some(Directive::Work { attempt })
    }

    /// The nodes in flight, with what they should be doing. At most `max_parallel`.
    pub fn directives(&self, now: Timestamp) -> impl Iterator<Item = (NodeId, Directive)> {
        self.in_flight.iter().filter_map(move |index| {
            let node = self.plan.nodes[*index].node;
            self.directive(node, now).map(|directive| (node, directive))
        })
    }

    /// Slots that nobody holds.
    pub(crate) fn free_slots(&self) -> usize {
        self.plan.max_parallel.saturating_sub(self.in_flight.len())
    }

    /// The next page of nodes that may go, as far as presence, pairs and the cap say.
    pub(crate) fn next_indexes(&self) -> impl Iterator<Item = usize> {
        self.ready.iter().copied().take(self.free_slots().min(PAGE))
    }

    fn offer(&self, index: usize) -> Offer {
        Offer { node: self.plan.nodes[index].node, attempt: self.jobs[index].attempt }
    }

    /// Lost ones first: they give slots back.
    fn ends(&self, now: Timestamp) -> Vec<End> {
        let lost = self.due.range(..=(now, usize::MAX)).map(|(_, index)| {
            let reason = lost_reason(&self.jobs[*index]);
            self.end(*index, Outcome::Lost, reason)
        });
        let queued = match &self.mode {
            Mode::Halting { reason } => Some((Outcome::Cancelled, format!("the run was ended: {reason}"))),
            Mode::Going | Mode::Paused { .. } if now >= self.plan.not_after => {
                Some((Outcome::Expired, format!("not started before the last start {}", self.plan.not_after)))
            }
            Mode::Going | Mode::Paused { .. } => None,
        };
        let never_began = queued.into_iter().flat_map(|(outcome, reason)| {
            self.queued.iter().map(move |index| {
                let offline = if self.jobs[*index].online { "" } else { "; the node is offline" };
                self.end(*index, outcome, format!("{reason}{offline}"))
            })
        });
        lost.chain(never_began).take(PAGE).collect()
    }

    fn end(&self, index: usize, outcome: Outcome, reason: String) -> End {
        End { node: self.plan.nodes[index].node, attempt: self.jobs[index].attempt, outcome, reason }
    }
}

fn lost_reason(job: &Job) -> String {
    match (job.phase, job.clock) {
        (Phase::Offered, Some(clock)) => {
            format!("no answer since it was offered at {}; whether it began is not known", clock.offered)
        }
        (_, Some(clock)) => {
            format!("nothing heard since {}; its time and grace are over", clock.heard)
        }
        (_, None) => "its time and grace are over".to_owned(),
    }
}
