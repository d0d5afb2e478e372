//! The named invariants of a rollout, checked after every event in tests and, around the changed job, in debug
//! builds.
//!
//! Must never be relied on for behaviour: nothing is repaired here. Called by `apply` and by tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;

use fleet_types::id::{Attempt, NodeId};
use fleet_types::job::{Outcome, Phase};
use fleet_types::run::{RingState, RunState};

use crate::event::Presence;
use crate::holds::{Place, Scope};
use crate::moment::Moment;
use crate::restore::JobFact;
use crate::state::Rollout;

/// What must always hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invariant {
    /// Never more than `max_parallel` nodes in flight.
    CapHolds,
    /// Never two nodes of a pair in flight in a run that changes nodes.
    OneOfAPair,
    /// Never more of a ring in flight than its policy allows, and none of a ring that has not begun.
    RingHolds,
    /// A node is given its turn only while every ring before its own is done and none has halted.
    RingsInOrder,
    /// Of pair, site and fleet only places are given that are free, each once, and no more than a limit allows.
    LimitsHold,
    /// A job that was offered is not offered again in the same attempt: attempts only rise, and nothing
    /// goes back to `queued`.
    NoNodeTwice,
    /// A terminal state never changes.
    EndsStand,
    /// Every selected node is counted once, always.
    DenominatorFixed,
    /// The indexes say the same as the jobs.
    IndexesAgree,
    /// Every selected node ends in a terminal state, and the run with them.
    EveryoneEnds,
}

/// A invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How it shows.
    pub how: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} does not hold: {}", self.invariant, self.how)
    }
}

/// Checks what can be seen in one state. O(n log n): for tests.
pub fn check(rollout: &Rollout) -> Result<(), Violation> {
    let plan = &rollout.plan;
    let in_flight: Vec<usize> =
        indexes_where(rollout, |phase| !matches!(phase, Phase::Queued | Phase::Ended(_)));
    ensure(in_flight.len() <= plan.max_parallel, Invariant::CapHolds, || {
        format!("{} in flight, at most {}", in_flight.len(), plan.max_parallel)
    })?;
    let mut pairs: BTreeMap<&str, NodeId> = BTreeMap::new();
    for index in in_flight.iter().filter(|_| plan.changes) {
        let planned = &plan.nodes[*index];
        let other = planned.pair.as_deref().and_then(|pair| pairs.insert(pair, planned.node));
        ensure(other.is_none(), Invariant::OneOfAPair, || format!("{} and {other:?}", planned.node))?;
    }
    rings_hold(rollout)?;
    limits_hold(rollout)?;
    let counts = rollout.counts;
    let counted = usize::try_from(counts.queued + counts.in_flight() + counts.ended).unwrap_or(usize::MAX);
    let denominator = usize::try_from(rollout.tally.nodes).unwrap_or(usize::MAX);
    let ended = rollout.tally.total_ended();
    ensure(
        counted == denominator && denominator == plan.nodes.len() && ended == counts.ended,
        Invariant::DenominatorFixed,
        || format!("{counts:?} against {:?} and {} nodes", rollout.tally, plan.nodes.len()),
    )?;
    let agree = rollout.in_flight.iter().copied().eq(in_flight.iter().copied())
        && rollout.queued.iter().copied().eq(indexes_where(rollout, |phase| phase == Phase::Queued))
        && rollout.ready.ready().into_iter().eq(ready(rollout))
        && rollout.silent.iter().all(|(_, index)| rollout.in_flight.contains(index))
        && in_flight.iter().all(|index| {
            let job = &rollout.jobs[*index];
            rollout.silent.iter().any(|(_, silent)| silent == index)
                != (job.presence.is_linked() && job.phase != Phase::Offered)
        });
    ensure(agree, Invariant::IndexesAgree, || format!("{rollout:?}"))
}

/// Checks that the run is over and that nothing is wanted any more. O(n log n): for tests.
pub fn check_end(rollout: &Rollout, now: Moment) -> Result<(), Violation> {
    check(rollout)?;
    let open: Vec<_> =
        rollout.known_jobs().filter(|(_, known)| !matches!(known.fact, JobFact::Ended { .. })).collect();
    let over = rollout.terminal_state().is_some_and(RunState::is_terminal)
        && rollout.wanted(now).is_empty()
        && rollout.next_look(now).is_none();
    ensure(open.is_empty() && over, Invariant::EveryoneEnds, || {
        format!("{:?}, open: {open:?}", rollout.summary(now.wall))
    })
}

/// Remembers what must not change between two states.
#[derive(Debug, Clone, Default)]
pub struct Witness {
    seen: BTreeMap<NodeId, JobFact>,
}

impl Witness {
    /// Checks the state by itself and against every earlier one. O(n log n): for tests.
    pub fn check(&mut self, rollout: &Rollout) -> Result<(), Violation> {
        check(rollout)?;
        let first = self.seen.is_empty();
        for (node, known) in rollout.known_jobs() {
            let before = self.seen.insert(node, known.fact);
            ensure(first || before.is_some(), Invariant::DenominatorFixed, || format!("{node} is new"))?;
            let Some(before) = before else { continue };
            if let JobFact::Ended { .. } = before {
                ensure(before == known.fact, Invariant::EndsStand, || {
                    format!("{node}: {before:?}, then {:?}", known.fact)
                })?;
            }
            ensure(rank(before) <= rank(known.fact), Invariant::NoNodeTwice, || {
                format!("{node}: {before:?}, then {:?}", known.fact)
            })?;
        }
        ensure(self.seen.len() == rollout.plan.nodes.len(), Invariant::DenominatorFixed, || {
            format!("{} nodes, {} before", rollout.plan.nodes.len(), self.seen.len())
        })
    }
}

/// How far a job has come: the attempt, then queued, offered, ended.
fn rank(fact: JobFact) -> (Attempt, u8) {
    match fact {
        JobFact::Queued => (Attempt(0), 0),
        JobFact::Offered { attempt, .. } => (attempt, 1),
        JobFact::Ended { attempt, .. } => (attempt, 2),
    }
}

/// The invariants that one event can break, in O(log n), in debug builds only.
pub(crate) fn debug_check(rollout: &Rollout, index: usize) {
    if !cfg!(debug_assertions) {
        return;
    }
    let job = &rollout.jobs[index];
    let ended: u32 = Outcome::ALL.iter().map(|o| rollout.tally.count(&[*o])).sum();
    debug_assert_eq!(ended, rollout.counts.ended, "{:?}", Invariant::DenominatorFixed);
    debug_assert_eq!(job.in_flight(), rollout.in_flight.contains(&index), "{:?}", Invariant::IndexesAgree);
    debug_assert_eq!(
        job.in_flight(),
        !matches!(job.phase, Phase::Queued | Phase::Ended(_)),
        "{:?}",
        Invariant::IndexesAgree
    );
}

/// What is in flight, and who goes next, held against the rings one by one.
fn rings_hold(rollout: &Rollout) -> Result<(), Violation> {
    let state = |ring: usize| rollout.rings[ring].progress.state;
    for ring in 0..rollout.rings.len() {
        let of_ring = |index: &&usize| rollout.plan.nodes[**index].ring == ring;
        let in_flight = rollout.in_flight.iter().filter(of_ring).count();
        let at_once = usize::try_from(rollout.plan.rings[ring].at_once).unwrap_or(usize::MAX);
        let begun = in_flight == 0 || state(ring) != RingState::Pending;
        ensure(in_flight <= at_once && begun, Invariant::RingHolds, || {
            format!("{in_flight} of ring {ring} in flight, at most {at_once}, and it is {}", state(ring))
        })?;
    }
    if rollout.is_shut(rollout.plan.not_before) {
        return Ok(());
    }
    for turn in rollout.in_turn() {
        let own = rollout.plan.nodes[turn.index].ring;
        let in_order = (0..own).all(|ring| state(ring) == RingState::Done) && state(own) != RingState::Halted;
        ensure(in_order, Invariant::RingsInOrder, || format!("{} of ring {own} goes", turn.index))?;
    }
    Ok(())
}

/// Who goes next, held against the limits without the indexes that said so.
fn limits_hold(rollout: &Rollout) -> Result<(), Violation> {
    let (plan, mut last) = (&rollout.plan, None);
    let mut given: BTreeMap<Scope, BTreeSet<u32>> = BTreeMap::new();
    for turn in rollout.in_turn() {
        ensure(last < Some(turn.index), Invariant::IndexesAgree, || {
            format!("{last:?}, then {}", turn.index)
        })?;
        last = Some(turn.index);
        for Place { scope, number } in rollout.offer(&turn).places {
            let limit = match scope {
                Scope::Pair(_) => Some(NonZeroU32::MIN),
                Scope::Site(_) => plan.limits.site,
                Scope::Fleet => plan.limits.fleet,
            };
            let held = rollout.held(&scope);
            let given = given.entry(scope.clone()).or_default();
            let is_new = !held.contains(&number) && given.insert(number);
            let fits = limit.is_some_and(|limit| {
                number < limit.get() && held.len() + given.len() <= usize::try_from(limit.get()).unwrap_or(0)
            });
            ensure(is_new && fits, Invariant::LimitsHold, || {
                format!("{} gets {number} of {scope} beside {held:?}", plan.nodes[turn.index].node)
            })?;
        }
    }
    Ok(())
}

fn indexes_where(rollout: &Rollout, wanted: impl Fn(Phase) -> bool) -> Vec<usize> {
    (0..rollout.jobs.len()).filter(|index| wanted(rollout.jobs[*index].phase)).collect()
}

/// Who could go, worked out without indexes.
fn ready(rollout: &Rollout) -> Vec<usize> {
    let mut taken: Vec<bool> = rollout.pairs.iter().map(|pair| pair.held.is_some()).collect();
    for index in indexes_where(rollout, |phase| !matches!(phase, Phase::Queued | Phase::Ended(_))) {
        if let Some(pair) = rollout.plan.pairs.of[index] {
            taken[pair] = true;
        }
    }
    let candidates = indexes_where(rollout, |phase| phase == Phase::Queued).into_iter();
    candidates
        .filter(|index| rollout.jobs[*index].presence == Presence::Online)
        .filter(|index| {
            rollout.plan.pairs.of[*index].is_none_or(|pair| !std::mem::replace(&mut taken[pair], true))
        })
        .collect()
}

fn ensure(holds: bool, invariant: Invariant, how: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { invariant, how: how() }) }
}
