//! Why a node is not going: every reason, typed, in words that an operator can act on.
//!
//! Which reasons there are now is what `rules` says. Must never answer with a bare no (examples.md, Deciding 7).
//! Called for showing.

use std::fmt;

use fleet_types::id::NodeId;
use fleet_types::job::{Outcome, Phase};
use fleet_types::run::RingState;
use fleet_types::time::Timestamp;

use crate::holds::{Holder, Scope};
use crate::moment::Moment;
use crate::state::Rollout;
use crate::taken::Taken;

/// One reason why a node is not going.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockReason {
    /// The node is none of this run.
    NotInRun,
    /// Its job has ended.
    AlreadyEnded {
        /// How.
        outcome: Outcome,
    },
    /// The run is ending.
    Halting {
        /// Why.
        reason: String,
    },
    /// An operator paused the rollout.
    Paused {
        /// Who, and why.
        reason: String,
    },
    /// A ring halted, and nothing starts in any.
    RingHalted {
        /// Its name.
        ring: String,
        /// Why.
        because: String,
    },
    /// A ring before its own is not done.
    RingWaits {
        /// The name of the ring that is waited for.
        ring: String,
        /// Where that stands.
        state: RingState,
    },
    /// As many nodes of its ring as are allowed are in flight.
    RingFull {
        /// The name of the ring.
        ring: String,
        /// Nodes in flight.
        in_flight: u32,
        /// How many may be.
        at_most: u32,
    },
    /// The first start lies ahead.
    BeforeStart {
        /// When it is.
        not_before: Timestamp,
    },
    /// The last start has passed; the job ends as `expired`.
    AfterLastStart {
        /// When it was.
        not_after: Timestamp,
    },
    /// The node's link is down.
    Offline,
    /// The node is held.
    Held,
    /// So many jobs failed that none starts any more.
    FailedTooOften {
        /// Failed, rolled back or lost.
        failed: u32,
        /// The run stops there.
        at_most: u32,
    },
    /// A node of the same pair is in flight, and the run changes nodes.
    PartnerInFlight {
        /// Its name.
        partner: String,
    },
    /// The pair is held for a job of another run, or for one that got lost and may still be changing its node.
    PairHeld {
        /// Whose job.
        holder: Holder,
    },
    /// As many jobs of all runs as a limit allows may be changing nodes.
    NoPlace {
        /// What is limited.
        scope: Scope,
        /// How many there are.
        taken: usize,
        /// How many there may be.
        at_most: u32,
        /// The first of their nodes, by name.
        by: Vec<String>,
    },
    /// A node of the same pair goes first.
    PartnerFirst {
        /// Its name.
        partner: String,
    },
    /// Every slot is taken.
    CapReached {
        /// Taken slots.
        in_flight: usize,
        /// All slots.
        at_most: usize,
    },
    /// There are free slots, and nodes before it in the order take them.
    TurnNotCome {
        /// Free slots.
        free: usize,
    },
}

impl fmt::Display for BlockReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInRun => f.write_str("not part of this run"),
            Self::AlreadyEnded { outcome } => write!(f, "already ended: {}", outcome.as_str()),
            Self::Halting { reason } => write!(f, "run is ending: {reason}"),
            Self::Paused { reason } => write!(f, "rollout is paused: {reason}"),
            Self::RingHalted { ring, because } => write!(f, "ring {ring} halted: {because}"),
            Self::RingWaits { ring, state } => write!(f, "waits for ring {ring}, which is {state}"),
            Self::RingFull { ring, in_flight, at_most } => {
                write!(f, "ring {ring}: {in_flight} of {at_most} nodes in flight")
            }
            Self::BeforeStart { not_before } => write!(f, "starts at {not_before} at the earliest"),
            Self::AfterLastStart { not_after } => write!(f, "too late: last start was {not_after}"),
            Self::Offline => f.write_str("offline"),
            Self::Held => f.write_str("the node is held"),
            Self::FailedTooOften { failed, at_most } => {
                write!(f, "{failed} failed, and the run stops at {at_most}")
            }
            Self::PairHeld { holder } => {
                write!(f, "its pair is held for {} in run {}", holder.name, holder.run)
            }
            Self::NoPlace { scope, taken, at_most, by } => {
                write!(f, "{scope}: {taken} of {at_most} nodes are in change")?;
                let more = taken.saturating_sub(by.len());
                match (by.is_empty(), more) {
                    (true, _) => Ok(()),
                    (false, 0) => write!(f, ": {}", by.join(", ")),
                    (false, more) => write!(f, ": {} and {more} more", by.join(", ")),
                }
            }
            Self::PartnerInFlight { partner } => write!(f, "partner {partner} is in flight"),
            Self::PartnerFirst { partner } => write!(f, "partner {partner} goes first"),
            Self::CapReached { in_flight, at_most } => {
                write!(f, "all slots taken: {in_flight} of {at_most} nodes in flight")
            }
            Self::TurnNotCome { free } => {
                write!(f, "its turn has not come: {free} free slots, others go first")
            }
        }
    }
}

impl Rollout {
    /// All reasons why `node` is not going at `now`. Empty when it is in flight, or is offered its job by
    /// [`Rollout::wanted`]. Costs O(page + log n).
    pub fn blocked(&self, node: NodeId, now: Moment) -> Vec<BlockReason> {
        let Some(index) = self.plan.index(node) else { return vec![BlockReason::NotInRun] };
        match self.jobs[index].phase {
            Phase::Queued => {}
            Phase::Ended(outcome) => return vec![BlockReason::AlreadyEnded { outcome }],
            Phase::Offered | Phase::Accepted | Phase::Running | Phase::Waiting | Phase::RollingBack => {
                return Vec::new();
            }
        }
        let mut reasons = self.reasons(index, now.wall);
        if reasons.is_empty() && !self.in_turn().any(|turn| turn.index == index) {
            let free = self.free_slots().min(self.fleet.free()).min(self.places_of(index).free());
            let free = free.min(self.ring_slots(self.plan.nodes[index].ring));
            reasons.push(BlockReason::TurnNotCome { free });
        }
        reasons
    }

    /// What keeps every queued node from going: when it is the same as before, only the nodes of events since then
    /// are blocked otherwise. Who it is that has taken the places of the fleet is left out: that changes with each
    /// of their jobs.
    pub fn general_block(&self, now: Moment) -> Vec<BlockReason> {
        let unnamed = |reason| match reason {
            BlockReason::NoPlace { scope, taken, at_most, .. } => {
                BlockReason::NoPlace { scope, taken, at_most, by: Vec::new() }
            }
            other => other,
        };
        self.run_reasons(now.wall).into_iter().map(unnamed).collect()
    }

    /// What keeps every queued node of each ring from going, in the order of the rings.
    pub fn ring_blocks(&self) -> Vec<Vec<BlockReason>> {
        (0..self.rings.len()).map(|ring| self.ring_reasons(ring)).collect()
    }

    /// Queued nodes of a ring.
    pub fn queued_of_ring(&self, ring: usize) -> impl Iterator<Item = NodeId> {
        let range = self.plan.ring_range(ring);
        self.queued.range(range).map(|index| self.plan.nodes[*index].node)
    }

    /// Are all places of a site taken?
    pub fn is_site_full(&self, site: &str) -> bool {
        self.plan.sites.number(site).is_some_and(|site| self.ready.taken(Some(site)).free() == 0)
    }

    /// The places of a node's site.
    pub(crate) fn places_of(&self, index: usize) -> &Taken {
        self.ready.taken(self.plan.sites.of[index])
    }

    /// Nodes whose turn has not come.
    pub fn queued(&self) -> impl Iterator<Item = NodeId> {
        self.queued.iter().map(|index| self.plan.nodes[*index].node)
    }
}
