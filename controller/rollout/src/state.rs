//! The rollout's data and its indexes; building it anew and from stored records.
//!
//! Every change of a job goes through [`Rollout::change`], which takes the job out of the indexes, changes
//! it and puts it back: that keeps an event at O(log n) (DESIGN, "Store") and the indexes true.
//! Must never decide anything. Called by the other files of this crate.

use std::collections::BTreeSet;

use fleet_types::id::{Attempt, NodeId};
use fleet_types::job::{Outcome, Phase};
use fleet_types::run::Tally;
use fleet_types::time::Timestamp;

use crate::event::{Mode, Reported};
use crate::plan::Plan;
use crate::summary::Counts;

/// What a stored job record says (security-and-delivery §2.2: the offer and the end are stored).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobFact {
    /// Its turn has not come.
    Queued,
    /// Offered to its node.
    Offered {
        /// Which try.
        attempt: Attempt,
        /// When the offer was saved.
        at: Timestamp,
    },
    /// Ended.
    Ended {
        /// Which try.
        attempt: Attempt,
        /// How.
        outcome: Outcome,
    },
}

/// What is only known in memory about a job in flight; comes back at reconcile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// What the node said last; `None` when it has not answered the offer.
    pub reported: Option<Reported>,
    /// Where its working time is counted from.
    pub since: Timestamp,
    /// When something was last heard of it.
    pub heard: Timestamp,
}

/// One job for [`Rollout::restore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownJob {
    /// What is stored.
    pub fact: JobFact,
    /// What is known beyond it, if anything.
    pub live: Option<Live>,
    /// Is the node's link up?
    pub online: bool,
}

impl From<JobFact> for KnownJob {
    /// Stored and nothing more: the state after a restart.
    fn from(fact: JobFact) -> Self {
        Self { fact, live: None, online: false }
    }
}

/// The records do not fit the plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A record of a node that is not in the plan.
    #[error("there is a job record of node {0}, which is not in the run's plan")]
    Unknown(NodeId),
    /// Two records of a node.
    #[error("there are two job records of node {0}")]
    Twice(NodeId),
    /// No record of a node; the denominator is fixed, so nothing may be assumed.
    #[error("there is no job record of node {0}, which is in the run's plan")]
    Missing(NodeId),
}

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
    const fn queued() -> Self {
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
    /// Normally at most one; records written by an older truth may say otherwise.
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
        for seat in 0..rollout.jobs.len() {
            rollout.attach(seat);
        }
        rollout
    }

    /// Rebuilds a rollout from what is stored and, where it is still there, what is known beyond it.
    ///
    /// `listening_since` is when this process began to listen to nodes: for [`crate::LOST_GRACE`] from
    /// then nobody is `lost`, so that what ended during an outage of the controller can be reported.
    /// Records that break the cap or the pair rule are taken as they are (facts are facts); nothing is
    /// offered until they no longer do.
    pub fn restore(
        plan: Plan,
        mode: Mode,
        listening_since: Timestamp,
        known: impl IntoIterator<Item = (NodeId, KnownJob)>,
    ) -> Result<Self, RestoreError> {
        let mut rollout = Self::empty(plan, mode, listening_since);
        let mut seen = vec![false; rollout.jobs.len()];
        for (node, known) in known {
            let seat = rollout.plan.seat(node).ok_or(RestoreError::Unknown(node))?;
            if std::mem::replace(&mut seen[seat], true) {
                return Err(RestoreError::Twice(node));
            }
            rollout.jobs[seat] = rollout.restored(known);
            rollout.attach(seat);
        }
        match seen.iter().position(|s| !s) {
            Some(seat) => Err(RestoreError::Missing(rollout.plan.nodes[seat].node)),
            None => Ok(rollout),
        }
    }

    /// Everything known of every job, in the order of the plan; the input of [`Rollout::restore`].
    pub fn known_jobs(&self) -> impl Iterator<Item = (NodeId, KnownJob)> {
        self.plan.nodes.iter().zip(&self.jobs).map(|(planned, job)| (planned.node, known(job)))
    }

    /// Everything known of one job; `None` when the node is not part of the run.
    pub fn job(&self, node: NodeId) -> Option<KnownJob> {
        self.plan.seat(node).map(|seat| known(&self.jobs[seat]))
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

    fn empty(plan: Plan, mode: Mode, listening_since: Timestamp) -> Self {
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

    fn restored(&self, known: KnownJob) -> Job {
        match known.fact {
            JobFact::Queued => Job { online: known.online, ..Job::queued() },
            JobFact::Offered { attempt, at } => {
                // With nothing known beyond the offer, the node may have received it and begun until this
                // process began to listen, or until the last start.
                let last_contact = self.listening_since.min(self.plan.not_after).max(at);
                let live = known.live.unwrap_or(Live { reported: None, since: last_contact, heard: at });
                Job {
                    phase: live.reported.map_or(Phase::Offered, Reported::phase),
                    attempt,
                    online: known.online,
                    clock: Some(Clock { since: live.since, heard: live.heard, offered: at }),
                }
            }
            JobFact::Ended { attempt, outcome } => {
                Job { phase: Phase::Ended(outcome), attempt, online: false, clock: None }
            }
        }
    }

    /// Changes one job and keeps the indexes true. O(log n).
    pub(crate) fn change(&mut self, seat: usize, change: impl FnOnce(&mut Job)) {
        self.detach(seat);
        change(&mut self.jobs[seat]);
        self.attach(seat);
    }

    fn attach(&mut self, seat: usize) {
        let job = self.jobs[seat];
        *self.counts.of(job.phase) += 1;
        if let Phase::Ended(outcome) = job.phase {
            self.tally.add(outcome);
        }
        if job.phase == Phase::Queued {
            self.queued.insert(seat);
        }
        if let Some(clock) = job.clock {
            self.in_flight.insert(seat);
            self.due.insert((self.due_at(clock), seat));
        }
        let candidate = job.phase == Phase::Queued && job.online;
        match self.plan.pair_of[seat] {
            Some(pair) => {
                if candidate {
                    self.pairs[pair].candidates.insert(seat);
                }
                if job.in_flight() {
                    self.pairs[pair].in_flight.insert(seat);
                }
                self.choose_next_of(pair);
            }
            None if candidate => {
                self.ready.insert(seat);
            }
            None => {}
        }
    }

    fn detach(&mut self, seat: usize) {
        let job = self.jobs[seat];
        *self.counts.of(job.phase) -= 1;
        self.queued.remove(&seat);
        self.in_flight.remove(&seat);
        if let Some(clock) = job.clock {
            self.due.remove(&(self.due_at(clock), seat));
        }
        match self.plan.pair_of[seat] {
            Some(pair) => {
                self.pairs[pair].candidates.remove(&seat);
                self.pairs[pair].in_flight.remove(&seat);
                self.choose_next_of(pair);
            }
            None => {
                self.ready.remove(&seat);
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

fn known(job: &Job) -> KnownJob {
    let reported = match job.phase {
        Phase::Accepted => Some(Reported::Accepted),
        Phase::Running => Some(Reported::Running),
        Phase::Waiting => Some(Reported::Waiting),
        Phase::RollingBack => Some(Reported::RollingBack),
        Phase::Queued | Phase::Offered | Phase::Ended(_) => None,
    };
    let fact = match (job.phase, job.clock) {
        (Phase::Ended(outcome), _) => JobFact::Ended { attempt: job.attempt, outcome },
        (_, Some(clock)) => JobFact::Offered { attempt: job.attempt, at: clock.offered },
        (_, None) => JobFact::Queued,
    };
    let live = job.clock.map(|clock| Live { reported, since: clock.since, heard: clock.heard });
    KnownJob { fact, live, online: job.online }
}
