//! The rollout's data and its indexes.
//!
//! Every change of a job goes through [`Rollout::change`], which takes the job out of the indexes, changes
//! it and puts it back: that keeps an event at O(log n) (DESIGN, "Store") and the indexes true.
//! Must never decide anything. Called by the other files of this crate.

use std::collections::{BTreeMap, BTreeSet};

use fleet_types::id::Attempt;
use fleet_types::job::Phase;
use fleet_types::run::Tally;
use fleet_types::time::Timestamp;

use crate::event::{Mode, Presence};
use crate::holds::{Holder, Place, Scope};
use crate::judging::Look;
use crate::lanes::Lanes;
use crate::moment::{Moment, Mono};
use crate::plan::Plan;
use crate::ring::RingProgress;
use crate::rings::Ring;
use crate::summary::Counts;
use crate::taken::Taken;

/// The times of a job in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contact {
    /// When the offer was saved.
    pub(crate) offered: Timestamp,
    /// Where its time ends, by the node's word or else by the documents.
    pub(crate) ends: Mono,
    /// The last word, or the last instant at which the link was up.
    pub(crate) heard: Mono,
}

/// One job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) phase: Phase,
    /// The present attempt; of a queued job the one that it will be offered with.
    pub(crate) attempt: Attempt,
    pub(crate) presence: Presence,
    /// Present exactly while in flight.
    pub(crate) contact: Option<Contact>,
}

impl Job {
    pub(crate) const fn queued() -> Self {
        Self { phase: Phase::Queued, attempt: Attempt(1), presence: Presence::Offline, contact: None }
    }

    pub(crate) const fn in_flight(&self) -> bool {
        self.contact.is_some()
    }

    /// Has its turn not come?
    pub(crate) const fn waits(&self) -> bool {
        matches!(self.phase, Phase::Queued)
    }

    /// From when its silence counts; `None` for one that is not in flight, and for one of which a connected node
    /// says that it has it.
    fn silent_from(&self) -> Option<Mono> {
        let contact = self.contact?;
        let answered = !matches!(self.phase, Phase::Offered);
        (!(self.presence.is_linked() && answered)).then_some(contact.ends.max(contact.heard))
    }
}

/// One pair, by places in the plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Pair {
    /// Queued and online.
    pub(crate) candidates: BTreeSet<usize>,
    /// Normally at most one; records written by an older invariant may say otherwise.
    pub(crate) in_flight: BTreeSet<usize>,
    /// The candidate that is ready for the pair.
    pub(crate) next: Option<usize>,
    /// Whose job holds the pair, in whatever run.
    pub(crate) held: Option<Holder>,
}

/// A run's rollout. Nodes are held by their place in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    pub(crate) plan: Plan,
    pub(crate) mode: Mode,
    /// Silence before this instant is not held against a node: nobody was listening.
    pub(crate) listening_since: Mono,
    /// When the run was read: where its times lie on the monotonic clock, whatever the wall clock does later.
    pub(crate) anchor: Moment,
    pub(crate) jobs: Vec<Job>,
    pub(crate) tally: Tally,
    pub(crate) counts: Counts,
    pub(crate) queued: BTreeSet<usize>,
    /// Queued, online, and of a pair with nobody in flight only the first: who could go if a slot and a place of
    /// its site are free.
    pub(crate) ready: Lanes,
    pub(crate) in_flight: BTreeSet<usize>,
    /// From when silence counts, for every job in flight of which no connected node says that it has it.
    pub(crate) silent: BTreeSet<(Mono, usize)>,
    pub(crate) pairs: Vec<Pair>,
    /// The places of the fleet.
    pub(crate) fleet: Taken,
    pub(crate) rings: Vec<Ring>,
    /// The newest look at the gates of each node that was asked, by place in the plan.
    pub(crate) looks: BTreeMap<usize, Look>,
}

impl Rollout {
    /// A rollout with every job queued, every node offline until its presence is told, and nothing held.
    pub fn new(plan: Plan, now: Moment) -> Self {
        let mut rollout = Self::empty(plan, Mode::Going, now, Mono::default());
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

    /// Since when this process has listened to nodes without a break.
    pub const fn listening_since(&self) -> Mono {
        self.listening_since
    }

    /// When the run was read.
    pub const fn anchor(&self) -> Moment {
        self.anchor
    }

    pub(crate) fn empty(plan: Plan, mode: Mode, anchor: Moment, listening_since: Mono) -> Self {
        let nodes = plan.nodes.len();
        Self {
            mode,
            listening_since,
            anchor,
            jobs: vec![Job::queued(); nodes],
            // Plan::new bounds the number of nodes far below u32::MAX.
            tally: Tally::new(u32::try_from(nodes).unwrap_or(u32::MAX)),
            counts: Counts::default(),
            queued: BTreeSet::new(),
            ready: Lanes::new(plan.rings.len(), plan.sites.count(), plan.limits),
            in_flight: BTreeSet::new(),
            silent: BTreeSet::new(),
            pairs: vec![Pair::default(); plan.pairs.count()],
            fleet: Taken::new(plan.limits.fleet),
            rings: (0..plan.rings.len())
                .map(|ring| Ring::new(RingProgress::begin(ring), anchor.mono))
                .collect(),
            looks: BTreeMap::new(),
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
        self.rings[self.plan.nodes[index].ring].count(&job, true);
        *self.counts.of(job.phase) += 1;
        if let Phase::Ended(outcome) = job.phase {
            self.tally.add(outcome);
        }
        if job.phase == Phase::Queued {
            self.queued.insert(index);
        }
        if job.in_flight() {
            self.in_flight.insert(index);
        }
        self.silent.extend(job.silent_from().map(|from| (from, index)));
        let candidate = Self::is_candidate(&job);
        match self.plan.pairs.of[index] {
            Some(pair) => {
                if candidate {
                    self.pairs[pair].candidates.insert(index);
                }
                if job.in_flight() {
                    self.pairs[pair].in_flight.insert(index);
                }
                self.choose_next_of(pair);
            }
            None if candidate => self.ready.add(self.lane(index), index),
            None => {}
        }
        self.classify(index);
    }

    fn detach(&mut self, index: usize) {
        let job = self.jobs[index];
        self.rings[self.plan.nodes[index].ring].count(&job, false);
        *self.counts.of(job.phase) -= 1;
        self.queued.remove(&index);
        self.in_flight.remove(&index);
        if let Some(from) = job.silent_from() {
            self.silent.remove(&(from, index));
        }
        match self.plan.pairs.of[index] {
            Some(pair) => {
                self.pairs[pair].candidates.remove(&index);
                self.pairs[pair].in_flight.remove(&index);
                self.choose_next_of(pair);
            }
            None => self.ready.remove(self.lane(index), index),
        }
    }

    /// Notes who holds a place; false when that is no news, or the run has nothing to do with it.
    pub(crate) fn hold(&mut self, place: &Place, holder: Option<&Holder>) -> bool {
        match &place.scope {
            Scope::Pair(pair) => {
                self.plan.pairs.number(pair).is_some_and(|pair| self.hold_pair(pair, holder))
            }
            Scope::Site(site) => {
                let site = self.plan.sites.number(site);
                site.is_some_and(|site| self.ready.hold(site, place.number, holder))
            }
            Scope::Fleet => self.fleet.is_limited() && self.fleet.set(place.number, holder),
        }
    }

    /// The numbers of a scope that are taken.
    pub(crate) fn held(&self, scope: &Scope) -> Vec<u32> {
        match scope {
            Scope::Pair(pair) => {
                let pair = self.plan.pairs.number(pair).map(|pair| &self.pairs[pair]);
                pair.and_then(|pair| pair.held.as_ref()).map(|_| 0).into_iter().collect()
            }
            Scope::Site(site) => {
                let site = self.plan.sites.number(site);
                site.map(|site| self.ready.taken(Some(site)).held().collect()).unwrap_or_default()
            }
            Scope::Fleet => self.fleet.held().collect(),
        }
    }

    fn hold_pair(&mut self, pair: usize, holder: Option<&Holder>) -> bool {
        if self.pairs[pair].held.as_ref() == holder {
            return false;
        }
        self.pairs[pair].held = holder.cloned();
        self.choose_next_of(pair);
        true
    }

    fn lane(&self, index: usize) -> (usize, Option<usize>) {
        lane(&self.plan, index)
    }

    /// Of a pair, only the first candidate may be ready, and only while nobody is in flight and nobody holds it. The
    /// first is one of the earliest ring.
    fn choose_next_of(&mut self, pair: usize) {
        let (plan, pair) = (&self.plan, &mut self.pairs[pair]);
        let next = pair.candidates.first().copied().filter(|_| pair.is_free());
        if next != pair.next {
            if let Some(old) = pair.next {
                self.ready.remove(lane(plan, old), old);
            }
            if let Some(next) = next {
                self.ready.add(lane(plan, next), next);
            }
            pair.next = next;
        }
    }
}

/// Ring and limited site of a node.
fn lane(plan: &Plan, index: usize) -> (usize, Option<usize>) {
    (plan.nodes[index].ring, plan.sites.of[index])
}
