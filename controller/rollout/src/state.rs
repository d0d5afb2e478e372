//! The rollout's data and its indexes.
//!
//! Every change of a job goes through [`Rollout::change`], which takes the job out of the indexes, changes
//! it and puts it back: that keeps an event at O(log n) (DESIGN, "Store") and the indexes true.
//! Must never decide anything. Called by the other files of this crate.

use std::collections::BTreeSet;

use fleet_types::id::Attempt;
use fleet_types::job::Phase;
use fleet_types::run::Tally;
use fleet_types::time::Timestamp;

use crate::event::Mode;
use crate::plan::Plan;
use crate::summary::Counts;

/// The times of a job in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock {
    pub(crate) since: Timestamp,
    pub(crate) heard: Timestamp,
    /// When the offer was saved.
    pub(crate) offered: Timestamp,
}

/// One job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) phase: Phase,
    /// The present attempt; of a queued job the one that it will be offered with.
    pub(crate) attempt: Attempt,
    pub(crate) online: bool,
    /// Present exactly while in flight.
    pub(crate) clock: Option<Clock>,
}

impl Job {
    pub(crate) const fn queued() -> Self {
        Self { phase: Phase::Queued, attempt: Attempt(1), online: false, clock: None }
    }

    pub(crate) const fn in_flight(&self) -> bool {
        self.clock.is_some()
    }
}

/// One pair, by places in the plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Pair {
    /// Queued and online.
    pub(crate) candidates: BTreeSet<usize>,
    /// Normally at most one; records written by an older invariant may say otherwise.
    pub(crate) in_flight: BTreeSet<usize>,
    /// The candidate that stands in `ready` for the pair.
    pub(crate) next: Option<usize>,
}

/// A run's rollout. Nodes are held by their place in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    pub(crate) plan: Plan,
    pub(crate) mode: Mode,
    /// Silence before this instant is not held against a node: nobody was listening.
    pub(crate) listening_since: Timestamp,
    pub(crate) jobs: Vec<Job>,
    pub(crate) tally: Tally,
    pub(crate) counts: Counts,
    pub(crate) queued: BTreeSet<usize>,
    /// Queued, online, and of a pair with nobody in flight only the first: who could go if a slot is free.
    pub(crate) ready: BTreeSet<usize>,
    pub(crate) in_flight: BTreeSet<usize>,
    /// When silence is no longer borne, for every job in flight.
    pub(crate) due: BTreeSet<(Timestamp, usize)>,
    pub(crate) pairs: Vec<Pair>,
}

impl Rollout {
    /// A rollout with every job queued, and every node offline until its presence is told.
    pub fn new(plan: Plan) -> Self {
        let mut rollout = Self::empty(plan, Mode::Going, Timestamp::clamped(i64::MIN));
        for index in 0..rollout.jobs.len() {
            rollout.attach(index);
        }
        rollout
    }

    /// What was asked for.
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Are new starts allowed? Stored with the run.
    pub const fn mode(&self) -> &Mode {
        &self.mode
    }

    /// When this process began to listen to nodes; the lowest instant for a rollout made by
    /// [`Rollout::new`].
    pub const fn listening_since(&self) -> Timestamp {
        self.listening_since
    }

    pub(crate) fn empty(plan: Plan, mode: Mode, listening_since: Timestamp) -> Self {
        let nodes = plan.nodes.len();
        Self {
            mode,
            listening_since,
            jobs: vec![Job::queued(); nodes],
            // Plan::new bounds the number of nodes far below u32::MAX.
            tally: Tally::new(u32::try_from(nodes).unwrap_or(u32::MAX)),
            counts: Counts::default(),
            queued: BTreeSet::new(),
            ready: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            due: BTreeSet::new(),
            pairs: vec![Pair::default(); plan.pair_count],
            plan,
        }
    }

    /// Changes one job and keeps the indexes true. O(log n).
    pub(crate) fn change(&mut self, index: usize, change: impl FnOnce(&mut Job)) {
        self.detach(index);
        change(&mut self.jobs[index]);
        self.attach(index);
    }

    pub(crate) fn attach(&mut self, index: usize) {
        let job = self.jobs[index];
        *self.counts.of(job.phase) += 1;
        if let Phase::Ended(outcome) = job.phase {
            self.tally.add(outcome);
        }
        if job.phase == Phase::Queued {
            self.queued.insert(index);
        }
        if let Some(clock) = job.clock {
            self.in_flight.insert(index);
            self.due.insert((self.due_at(clock), index));
        }
        let candidate = job.phase == Phase::Queued && job.online;
        match self.plan.pair_of[index] {
            Some(pair) => {
                if candidate {
                    self.pairs[pair].candidates.insert(index);
                }
                if job.in_flight() {
                    self.pairs[pair].in_flight.insert(index);
                }
                self.choose_next_of(pair);
            }
            None if candidate => {
                self.ready.insert(index);
            }
            None => {}
        }
    }

    fn detach(&mut self, index: usize) {
        let job = self.jobs[index];
        *self.counts.of(job.phase) -= 1;
        self.queued.remove(&index);
        self.in_flight.remove(&index);
        if let Some(clock) = job.clock {
            self.due.remove(&(self.due_at(clock), index));
        }
        match self.plan.pair_of[index] {
            Some(pair) => {
                self.pairs[pair].candidates.remove(&index);
                self.pairs[pair].in_flight.remove(&index);
                self.choose_next_of(pair);
            }
            None => {
                self.ready.remove(&index);
            }
        }
    }

    /// Of a pair, only the first candidate may stand in `ready`, and only while nobody is in flight.
    fn choose_next_of(&mut self, pair: usize) {
        let pair = &mut self.pairs[pair];
        let next = pair.candidates.first().copied().filter(|_| pair.in_flight.is_empty());
        if next != pair.next {
            if let Some(old) = pair.next {
                self.ready.remove(&old);
            }
            self.ready.extend(next);
            pair.next = next;
        }
    }
}
