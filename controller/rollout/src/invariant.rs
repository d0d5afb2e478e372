//! The named truths of a rollout, checked after every event in tests and, around the changed job, in debug
//! builds.
//!
//! Must never be relied on for behaviour: nothing is repaired here. Called by `apply` and by tests.

use std::collections::BTreeMap;
use std::fmt;

use fleet_types::id::{Attempt, NodeId};
use fleet_types::job::{Outcome, Phase};
use fleet_types::run::RunState;
use fleet_types::time::Timestamp;

use crate::restore::JobFact;
use crate::state::Rollout;

/// What must always hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// Never more than `max_parallel` nodes in flight.
    CapHolds,
    /// Never two nodes of a pair in flight in a run that changes nodes.
    OneOfAPair,
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

/// A truth that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub truth: Truth,
    /// How it shows.
    pub how: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} does not hold: {}", self.truth, self.how)
    }
}

/// Checks what can be seen in one state. O(n log n): for tests.
pub fn check(rollout: &Rollout) -> Result<(), Broken> {
    let plan = &rollout.plan;
    let in_flight: Vec<usize> = seats(rollout, |phase| !matches!(phase, Phase::Queued | Phase::Ended(_)));
    ensure(in_flight.len() <= plan.max_parallel, Truth::CapHolds, || {
        format!("{} in flight, at most {}", in_flight.len(), plan.max_parallel)
    })?;
    let mut pairs: BTreeMap<&str, NodeId> = BTreeMap::new();
    for seat in in_flight.iter().filter(|_| plan.changes) {
        let planned = &plan.nodes[*seat];
        let other = planned.pair.as_deref().and_then(|pair| pairs.insert(pair, planned.node));
        ensure(other.is_none(), Truth::OneOfAPair, || format!("{} and {other:?}", planned.node))?;
    }
    let counts = rollout.counts;
    let counted = usize::try_from(counts.queued + counts.in_flight() + counts.ended).unwrap_or(usize::MAX);
    let denominator = usize::try_from(rollout.tally.nodes).unwrap_or(usize::MAX);
    let ended = rollout.tally.total_ended();
    ensure(
        counted == denominator && denominator == plan.nodes.len() && ended == counts.ended,
        Truth::DenominatorFixed,
        || format!("{counts:?} against {:?} and {} nodes", rollout.tally, plan.nodes.len()),
    )?;
    let agree = rollout.in_flight.iter().copied().eq(in_flight.iter().copied())
        && rollout.queued.iter().copied().eq(seats(rollout, |phase| phase == Phase::Queued))
        && rollout.ready.iter().copied().eq(ready(rollout))
        && rollout.due.len() == in_flight.len();
    ensure(agree, Truth::IndexesAgree, || format!("{rollout:?}"))
}

/// Checks that the run is over and that nothing is wanted any more. O(n log n): for tests.
pub fn check_end(rollout: &Rollout, now: Timestamp) -> Result<(), Broken> {
    check(rollout)?;
    let open: Vec<_> =
        rollout.known_jobs().filter(|(_, known)| !matches!(known.fact, JobFact::Ended { .. })).collect();
    let over = rollout.terminal_state().is_some_and(RunState::is_terminal)
        && rollout.wanted(now).is_empty()
        && rollout.next_deadline(now).is_none();
    ensure(open.is_empty() && over, Truth::EveryoneEnds, || {
        format!("{:?}, open: {open:?}", rollout.summary(now))
    })
}

/// Remembers what must not change between two states.
#[derive(Debug, Clone, Default)]
pub struct Witness {
    seen: BTreeMap<NodeId, JobFact>,
}

impl Witness {
    /// Checks the state by itself and against every earlier one. O(n log n): for tests.
    pub fn check(&mut self, rollout: &Rollout) -> Result<(), Broken> {
        check(rollout)?;
        let first = self.seen.is_empty();
        for (node, known) in rollout.known_jobs() {
            let before = self.seen.insert(node, known.fact);
            ensure(first || before.is_some(), Truth::DenominatorFixed, || format!("{node} is new"))?;
            let Some(before) = before else { continue };
            if let JobFact::Ended { .. } = before {
                ensure(before == known.fact, Truth::EndsStand, || {
                    format!("{node}: {before:?}, then {:?}", known.fact)
                })?;
            }
            ensure(rank(before) <= rank(known.fact), Truth::NoNodeTwice, || {
                format!("{node}: {before:?}, then {:?}", known.fact)
            })?;
        }
        ensure(self.seen.len() == rollout.plan.nodes.len(), Truth::DenominatorFixed, || {
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

/// The truths that one event can break, in O(log n), in debug builds only.
pub(crate) fn debug_check(rollout: &Rollout, seat: usize) {
    if !cfg!(debug_assertions) {
        return;
    }
    let job = &rollout.jobs[seat];
    let ended: u32 = Outcome::ALL.iter().map(|o| rollout.tally.count(&[*o])).sum();
    debug_assert_eq!(ended, rollout.counts.ended, "{:?}", Truth::DenominatorFixed);
    debug_assert_eq!(job.in_flight(), rollout.in_flight.contains(&seat), "{:?}", Truth::IndexesAgree);
    debug_assert_eq!(
        job.in_flight(),
        !matches!(job.phase, Phase::Queued | Phase::Ended(_)),
        "{:?}",
        Truth::IndexesAgree
    );
}

fn seats(rollout: &Rollout, wanted: impl Fn(Phase) -> bool) -> Vec<usize> {
    (0..rollout.jobs.len()).filter(|seat| wanted(rollout.jobs[*seat].phase)).collect()
}

/// Who could go, worked out without indexes.
fn ready(rollout: &Rollout) -> Vec<usize> {
    let mut taken = vec![false; rollout.plan.pair_count];
    for seat in seats(rollout, |phase| !matches!(phase, Phase::Queued | Phase::Ended(_))) {
        if let Some(pair) = rollout.plan.pair_of[seat] {
            taken[pair] = true;
        }
    }
    let candidates = seats(rollout, |phase| phase == Phase::Queued).into_iter();
    candidates
        .filter(|seat| rollout.jobs[*seat].online)
        .filter(|seat| {
            rollout.plan.pair_of[*seat].is_none_or(|pair| !std::mem::replace(&mut taken[pair], true))
        })
        .collect()
}

fn ensure(holds: bool, truth: Truth, how: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { truth, how: how() }) }
}
