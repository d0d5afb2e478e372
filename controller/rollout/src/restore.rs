//! A rollout from records, and records from a rollout.
//!
//! Applying events one by one and restoring from records give the same state; the simulation checks it
//! after each event. Must never repair records: facts are facts. Called at start, on a change of owner, on
//! a conflict and on an unknown outcome.

use fleet_types::id::{Attempt, NodeId};
use fleet_types::job::{Outcome, Phase};
use fleet_types::time::Timestamp;

use crate::event::{Mode, Presence, Reported};
use crate::holds::{Holder, Place};
use crate::moment::{Moment, Mono};
use crate::plan::Plan;
use crate::ring::RingProgress;
use crate::rings::Ring;
use crate::state::{Contact, Job, Rollout};

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
    /// Where its time ends, by the node's word or else by the documents.
    pub ends: Mono,
    /// The last word, or the last instant at which the link was up.
    pub heard: Mono,
}

/// One job for [`Rollout::restore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownJob {
    /// What is stored.
    pub fact: JobFact,
    /// What is known beyond it, if anything.
    pub live: Option<Live>,
    /// Is the node there?
    pub presence: Presence,
}

impl From<JobFact> for KnownJob {
    /// Stored and nothing more: the state after a restart.
    fn from(fact: JobFact) -> Self {
        Self { fact, live: None, presence: Presence::Offline }
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
    /// Not as many rings as the plan has.
    #[error("progress of {0} rings is stored, and the run's plan has {1}")]
    Rings(usize, usize),
    /// No record of a node; the denominator is fixed, so nothing may be assumed.
    #[error("there is no job record of node {0}, which is in the run's plan")]
    Missing(NodeId),
}

impl Rollout {
    /// Rebuilds a rollout from what is stored and, where it is still there, what is known beyond it.
    ///
    /// `anchor` is now, or that of the rollout which this one replaces in the same process. `listening_since` is
    /// since when this process has listened to nodes without a break: for [`crate::LOST_GRACE`] from then nobody
    /// is `lost`, so that what ended during an outage of the controller can be reported. `held` are the places
    /// that the store says are taken. `rings` is what is stored of each ring, and from when the time of one that soaks or
    /// is judged counts beyond that: now, or what the rollout that this one replaces says. What is stored of looks at gates
    /// is applied to it then ([`crate::Event::Looked`]). Records that break the cap, the pair rule or a limit are taken as they are (facts are
    /// facts); nothing is offered until they no longer do.
    pub fn restore(
        plan: Plan,
        mode: Mode,
        anchor: Moment,
        listening_since: Mono,
        known: impl IntoIterator<Item = (NodeId, KnownJob)>,
        held: impl IntoIterator<Item = (Place, Holder)>,
        rings: impl IntoIterator<Item = (RingProgress, Mono)>,
    ) -> Result<Self, RestoreError> {
        let mut rollout = Self::empty(plan, mode, anchor, listening_since);
        let rings: Vec<Ring> =
            rings.into_iter().map(|(progress, since)| Ring::new(progress, since)).collect();
        if rings.len() != rollout.rings.len() {
            return Err(RestoreError::Rings(rings.len(), rollout.rings.len()));
        }
        rollout.rings = rings;
        for (place, holder) in held {
            rollout.hold(&place, Some(&holder));
        }
        let mut seen = vec![false; rollout.jobs.len()];
        for (node, known) in known {
            let index = rollout.plan.index(node).ok_or(RestoreError::Unknown(node))?;
            if std::mem::replace(&mut seen[index], true) {
                return Err(RestoreError::Twice(node));
            }
            rollout.jobs[index] = rollout.restored(known);
            rollout.attach(index);
        }
        (0..rollout.rings.len()).for_each(|ring| rollout.begin_judging(ring));
        match seen.iter().position(|s| !s) {
            Some(index) => Err(RestoreError::Missing(rollout.plan.nodes[index].node)),
            None => Ok(rollout),
        }
    }

    /// Everything known of every job, in the order of the plan; the input of [`Rollout::restore`].
    pub fn known_jobs(&self) -> impl Iterator<Item = (NodeId, KnownJob)> {
        self.plan.nodes.iter().zip(&self.jobs).map(|(planned, job)| (planned.node, known(job)))
    }

    /// Everything known of one job; `None` when the node is not part of the run.
    pub fn job(&self, node: NodeId) -> Option<KnownJob> {
        self.plan.index(node).map(|index| known(&self.jobs[index]))
    }

    fn restored(&self, known: KnownJob) -> Job {
        match known.fact {
            JobFact::Queued => Job { presence: known.presence, ..Job::queued() },
            JobFact::Offered { attempt, at } => {
                // With nothing known beyond the offer, the node may have received it and may begin until the last
                // start.
                let unknown = || Live {
                    reported: None,
                    ends: self.ends_if_begun_last(self.anchor),
                    heard: self.anchor.mono,
                };
                let live = known.live.unwrap_or_else(unknown);
                Job {
                    phase: live.reported.map_or(Phase::Offered, Reported::phase),
                    attempt,
                    presence: known.presence,
                    contact: Some(Contact { offered: at, ends: live.ends, heard: live.heard }),
                }
            }
            JobFact::Ended { attempt, outcome } => {
                Job { phase: Phase::Ended(outcome), attempt, ..Job::queued() }
            }
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
    let fact = match (job.phase, job.contact) {
        (Phase::Ended(outcome), _) => JobFact::Ended { attempt: job.attempt, outcome },
        (_, Some(contact)) => JobFact::Offered { attempt: job.attempt, at: contact.offered },
        (_, None) => JobFact::Queued,
    };
    let live = job.contact.map(|contact| Live { reported, ends: contact.ends, heard: contact.heard });
    KnownJob { fact, live, presence: job.presence }
}
