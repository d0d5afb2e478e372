//! The one list of rules that answer "may this node go now?".
//!
//! [`Rollout::wanted`] offers a node when no rule says no, [`Rollout::blocked`] tells each rule that does, and an
//! offer that was saved is held against those that guard the fleet again ([`Rollout::refusal`]). What the indexes
//! know in advance (`state`, `lanes`) they ask of the functions that stand here, so that the three cannot differ.
//! Must never change anything. Called by this crate only.

use fleet_types::id::Attempt;
use fleet_types::job::Outcome;
use fleet_types::time::Timestamp;

use crate::blocked::BlockReason;
use crate::event::{Mode, Presence};
use crate::holds::{Holder, Scope};
use crate::state::{Job, Pair, Rollout};
use crate::taken::Taken;

/// Whom a rule binds: where it says no, all of them wait.
#[derive(Clone, Copy)]
enum Says {
    /// Every node of the run.
    Run(fn(&Asked<'_>) -> Option<BlockReason>),
    /// Every node of a ring.
    Ring(fn(&Rollout, usize) -> Option<BlockReason>),
    /// One node, by its place in the plan.
    Node(fn(&Asked<'_>, usize) -> Option<BlockReason>),
}

/// One rule.
struct Rule {
    says: Says,
    /// Does it guard the fleet? An offer that was saved just before a cancel is a fact and is taken; one that would put
    /// two of a pair in change is not.
    guards: bool,
}

/// The question: of which rollout, when, and for which attempt where it holds its places already.
struct Asked<'a> {
    rollout: &'a Rollout,
    now: Timestamp,
    own: Option<(usize, Attempt)>,
}

/// All rules, in the order in which they are told. Whose turn it is comes behind them: it is not a rule but the order
/// of the plan among those whom no rule holds back.
const RULES: [Rule; 14] = [
    Rule { says: Says::Run(run_ends), guards: false },
    Rule { says: Says::Run(paused), guards: false },
    Rule { says: Says::Run(ring_halted), guards: false },
    Rule { says: Says::Run(first_start), guards: false },
    Rule { says: Says::Run(last_start), guards: false },
    Rule { says: Says::Run(run_failures), guards: false },
    Rule { says: Says::Ring(ring_order), guards: true },
    Rule { says: Says::Node(link), guards: false },
    Rule { says: Says::Node(pair_in_flight), guards: true },
    Rule { says: Says::Node(pair_held), guards: true },
    Rule { says: Says::Node(site_places), guards: true },
    Rule { says: Says::Run(fleet_places), guards: true },
    Rule { says: Says::Ring(ring_slots), guards: true },
    Rule { says: Says::Run(slots), guards: true },
];

impl Rollout {
    /// All rules that keep a queued node from going.
    pub(crate) fn reasons(&self, index: usize, now: Timestamp) -> Vec<BlockReason> {
        let asked = Asked { rollout: self, now, own: None };
        RULES.iter().filter_map(|rule| rule.says.of(&asked, index)).collect()
    }

    /// The rules that keep every queued node from going.
    pub(crate) fn run_reasons(&self, now: Timestamp) -> Vec<BlockReason> {
        let asked = Asked { rollout: self, now, own: None };
        RULES.iter().filter_map(|rule| rule.says.of_run(&asked)).collect()
    }

    /// The rules that keep every queued node of a ring from going.
    pub(crate) fn ring_reasons(&self, ring: usize) -> Vec<BlockReason> {
        let of_ring = |rule: &Rule| match rule.says {
            Says::Ring(says) => says(self, ring),
            Says::Run(_) | Says::Node(_) => None,
        };
        RULES.iter().filter_map(of_ring).collect()
    }

    /// May no node of the run go, whichever it is? Costs no more than the first rule that says so.
    pub(crate) fn is_shut(&self, now: Timestamp) -> bool {
        let asked = Asked { rollout: self, now, own: None };
        RULES.iter().any(|rule| rule.says.of_run(&asked).is_some())
    }

    /// The first rule that guards the fleet and that an offer which was saved would break. Its own holds were made in
    /// the commit of the offer, and may be told before it.
    pub(crate) fn refusal(&self, index: usize, attempt: Attempt, now: Timestamp) -> Option<BlockReason> {
        let asked = Asked { rollout: self, now, own: Some((index, attempt)) };
        RULES.iter().filter(|rule| rule.guards).find_map(|rule| rule.says.of(&asked, index))
    }

    /// Is a job one that may be next, as far as it and its node say?
    pub(crate) fn is_candidate(job: &Job) -> bool {
        job.waits() && presence(job.presence).is_none()
    }
}

impl Says {
    fn of(self, asked: &Asked<'_>, index: usize) -> Option<BlockReason> {
        match self {
            Self::Run(says) => says(asked),
            Self::Ring(says) => says(asked.rollout, asked.rollout.plan.nodes[index].ring),
            Self::Node(says) => says(asked, index),
        }
    }

    fn of_run(self, asked: &Asked<'_>) -> Option<BlockReason> {
        match self {
            Self::Run(says) => says(asked),
            Self::Ring(_) | Self::Node(_) => None,
        }
    }
}

impl Asked<'_> {
    /// Is this place taken for the very offer that is judged?
    fn is_own(&self, holder: &Holder) -> bool {
        self.own.is_some_and(|(index, attempt)| {
            holder.run == self.rollout.plan.run
                && holder.node == self.rollout.plan.nodes[index].node
                && holder.attempt == attempt
        })
    }

    /// Why none of the places is to be had.
    fn full(&self, taken: &Taken, scope: impl FnOnce() -> Scope) -> Option<BlockReason> {
        taken.reason(scope).filter(|_| self.own.is_none() || !taken.has(|holder| self.is_own(holder)))
    }
}

/// An operator ended the run.
fn run_ends(asked: &Asked<'_>) -> Option<BlockReason> {
    match &asked.rollout.mode {
        Mode::Going | Mode::Paused { .. } => None,
        Mode::Halting { reason } => Some(BlockReason::Halting { reason: reason.clone() }),
    }
}

/// An operator stopped new starts for a while.
fn paused(asked: &Asked<'_>) -> Option<BlockReason> {
    match &asked.rollout.mode {
        Mode::Going | Mode::Halting { .. } => None,
        Mode::Paused { reason } => Some(BlockReason::Paused { reason: reason.clone() }),
    }
}

/// A halted rollout starts nothing, in whatever ring.
fn ring_halted(asked: &Asked<'_>) -> Option<BlockReason> {
    let (ring, because) = asked.rollout.halted()?;
    Some(BlockReason::RingHalted { ring: ring.to_owned(), because })
}

/// Never a node of a later ring while an earlier one is not done.
fn ring_order(rollout: &Rollout, ring: usize) -> Option<BlockReason> {
    if rollout.is_begun(ring) {
        return None;
    }
    let waits_for = rollout.first_not_done();
    let name = rollout.plan.rings[waits_for].name.clone();
    Some(BlockReason::RingWaits { ring: name, state: rollout.rings[waits_for].progress.state })
}

/// No more of a ring at once than its policy says.
fn ring_slots(rollout: &Rollout, ring: usize) -> Option<BlockReason> {
    let (in_flight, at_most) = (rollout.rings[ring].counts.in_flight, rollout.plan.rings[ring].at_once);
    let name = || rollout.plan.rings[ring].name.clone();
    (in_flight >= at_most).then(|| BlockReason::RingFull { ring: name(), in_flight, at_most })
}

/// The request is not valid yet.
fn first_start(asked: &Asked<'_>) -> Option<BlockReason> {
    let not_before = asked.rollout.plan.not_before;
    (asked.now < not_before).then_some(BlockReason::BeforeStart { not_before })
}

/// The request is not valid any more.
fn last_start(asked: &Asked<'_>) -> Option<BlockReason> {
    let not_after = asked.rollout.plan.not_after;
    (asked.now >= not_after).then_some(BlockReason::AfterLastStart { not_after })
}

fn run_failures(asked: &Asked<'_>) -> Option<BlockReason> {
    asked.rollout.failed_too_often()
}

/// The node is there and may be given work.
fn link(asked: &Asked<'_>, index: usize) -> Option<BlockReason> {
    presence(asked.rollout.jobs[index].presence)
}

const fn presence(presence: Presence) -> Option<BlockReason> {
    match presence {
        Presence::Offline => Some(BlockReason::Offline),
        Presence::Held => Some(BlockReason::Held),
        Presence::Online => None,
    }
}

/// Never two nodes of a pair in change at once (security-and-delivery §2.14).
fn pair_in_flight(asked: &Asked<'_>, index: usize) -> Option<BlockReason> {
    let partner = asked.rollout.partner_in_flight(index)?;
    Some(BlockReason::PartnerInFlight { partner })
}

/// The same over all runs, and one of the pair after the other.
fn pair_held(asked: &Asked<'_>, index: usize) -> Option<BlockReason> {
    let Rollout { pairs, plan, .. } = asked.rollout;
    let pair = &pairs[plan.pairs.of[index]?];
    if !pair.in_flight.is_empty() {
        return None;
    }
    if let Some(holder) = pair.held.as_ref().filter(|holder| !asked.is_own(holder)) {
        return Some(BlockReason::PairHeld { holder: holder.clone() });
    }
    let next = pair.next.filter(|next| asked.own.is_none() && *next != index)?;
    Some(BlockReason::PartnerFirst { partner: plan.nodes[next].name.clone() })
}

fn site_places(asked: &Asked<'_>, index: usize) -> Option<BlockReason> {
    let site = || Scope::Site(asked.rollout.plan.nodes[index].site.clone());
    asked.full(asked.rollout.places_of(index), site)
}

fn fleet_places(asked: &Asked<'_>) -> Option<BlockReason> {
    asked.full(&asked.rollout.fleet, || Scope::Fleet)
}

/// No more at once than the request says.
fn slots(asked: &Asked<'_>) -> Option<BlockReason> {
    let (in_flight, at_most) = (asked.rollout.in_flight.len(), asked.rollout.plan.max_parallel);
    (in_flight >= at_most).then_some(BlockReason::CapReached { in_flight, at_most })
}

impl Pair {
    /// May one of the pair go, as far as the pair's rules say?
    pub(crate) fn is_free(&self) -> bool {
        self.in_flight.is_empty() && self.held.is_none()
    }
}

impl Rollout {
    /// Another node of the same pair that is in flight, where the pair rule holds.
    pub(crate) fn partner_in_flight(&self, index: usize) -> Option<String> {
        let pair = &self.pairs[self.plan.pairs.of[index]?];
        pair.in_flight.iter().find(|other| **other != index).map(|other| self.plan.nodes[*other].name.clone())
    }

    /// Have so many jobs failed, were rolled back or got lost that none may start any more? A job that was refused,
    /// cancelled or came too late has changed nothing, and says nothing of the next node.
    pub(crate) fn failed_too_often(&self) -> Option<BlockReason> {
        let at_most = self.plan.max_failures?;
        let failed = self.tally.count(&FAILED);
        (failed >= at_most).then_some(BlockReason::FailedTooOften { failed, at_most })
    }
}

/// The ends that count as failures.
pub(crate) const FAILED: [Outcome; 4] =
    [Outcome::Failed, Outcome::RolledBack, Outcome::RollbackFailed, Outcome::Lost];
