//! What can happen to a rollout, and the answers to it.
//!
//! Events are facts: what concerns a job was saved before it is applied here (examples.md, Deciding 3).
//! Must never hold decisions; those are in `table`. Made by the controller's runner.

use std::fmt;
use std::time::Duration;

use fleet_types::id::{Attempt, NodeId, RunId};
use fleet_types::job::{Outcome, Phase};
use fleet_types::run::RingState;

use crate::blocked::BlockReason;
use crate::holds::{Holder, Place};
use crate::judging::Look;
use crate::ring::RingEvent;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something happened to the job of one node.
    Job {
        /// The node.
        node: NodeId,
        /// What happened.
        what: JobEvent,
    },
    /// A pair, or a place of a site or of the fleet, was taken for a job, in this or another run, or is free again.
    Held {
        /// Which.
        place: Place,
        /// Whose job; none when it is free.
        holder: Option<Holder>,
    },
    /// A step of a ring was saved ([`crate::Wanted::ring`]).
    Ring {
        /// Its number.
        ring: usize,
        /// What happened to it.
        what: RingEvent,
    },
    /// That a node was asked for the gates of its ring, or what it answered, was saved.
    Looked {
        /// The node.
        node: NodeId,
        /// Its newest look.
        look: Look,
    },
}

/// What can happen to the job of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEvent {
    /// The offer was saved.
    Offered {
        /// Which try.
        attempt: Attempt,
    },
    /// The node said where the job stands.
    Reported {
        /// Which try.
        attempt: Attempt,
        /// Where it stands.
        phase: Reported,
        /// How long the whole job may still take, by the node's word; `None` when it does not say.
        left: Option<Duration>,
    },
    /// The end was saved: reported by the node, or decided here ([`crate::Wanted::end`]).
    Ended {
        /// Which try.
        attempt: Attempt,
        /// How.
        outcome: Outcome,
    },
    /// The node's link came up or went down, or the node was held or released.
    Presence(Presence),
}

/// Is the node there, and may it be given work?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Presence {
    /// Its link is down.
    #[default]
    Offline,
    /// Its link is up, and it gets nothing new: what it has begun goes on, and is listened to.
    Held,
    /// Its link is up.
    Online,
}

impl Presence {
    /// Is its link up?
    pub const fn is_linked(self) -> bool {
        !matches!(self, Self::Offline)
    }
}

/// Where a node says its job stands, short of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reported {
    /// Durable in the node's journal.
    Accepted,
    /// A step is being carried out.
    Running,
    /// Waits at a barrier.
    Waiting,
    /// Undoing what began.
    RollingBack,
}

impl Reported {
    /// The phase of the job's life that this is.
    pub const fn phase(self) -> Phase {
        match self {
            Self::Accepted => Phase::Accepted,
            Self::Running => Phase::Running,
            Self::Waiting => Phase::Waiting,
            Self::RollingBack => Phase::RollingBack,
        }
    }
}

impl Event {
    /// The offer to `node` was saved.
    pub const fn offered(node: NodeId, attempt: Attempt) -> Self {
        Self::Job { node, what: JobEvent::Offered { attempt } }
    }

    /// The node said where its job stands.
    pub const fn reported(node: NodeId, attempt: Attempt, phase: Reported, left: Option<Duration>) -> Self {
        Self::Job { node, what: JobEvent::Reported { attempt, phase, left } }
    }

    /// The end of the node's job was saved.
    pub const fn ended(node: NodeId, attempt: Attempt, outcome: Outcome) -> Self {
        Self::Job { node, what: JobEvent::Ended { attempt, outcome } }
    }

    /// The node came, went, was held or released.
    pub const fn presence(node: NodeId, presence: Presence) -> Self {
        Self::Job { node, what: JobEvent::Presence(presence) }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job { what, .. } => what.fmt(f),
            Self::Held { place, holder: Some(_) } => write!(f, "{} held", place.scope),
            Self::Held { place, holder: None } => write!(f, "{} free", place.scope),
            Self::Ring { ring, what } => write!(f, "ring {ring} {what}"),
            Self::Looked { look, .. } => match &look.answer {
                None => f.write_str("asked for the gates"),
                Some(answer) => write!(f, "gates {}", answer.verdict.as_str()),
            },
        }
    }
}

impl fmt::Display for JobEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offered { .. } => f.write_str("offered"),
            Self::Reported { phase, .. } => write!(f, "reported {}", phase_word(phase.phase())),
            Self::Ended { outcome, .. } => write!(f, "ended {}", outcome.as_str()),
            Self::Presence(Presence::Online) => f.write_str("online"),
            Self::Presence(Presence::Held) => f.write_str("held"),
            Self::Presence(Presence::Offline) => f.write_str("offline"),
        }
    }
}

/// The word of the design for a phase.
pub(crate) const fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Queued => "queued",
        Phase::Offered => "offered",
        Phase::Accepted => "accepted",
        Phase::Running => "running",
        Phase::Waiting => "waiting",
        Phase::RollingBack => "rolling_back",
        Phase::Ended(outcome) => outcome.as_str(),
    }
}

/// What an operator, a budget or a gate said about new starts, as the run's record has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Mode {
    /// New starts are allowed.
    #[default]
    Going,
    /// An operator stopped new starts, until they say otherwise: what is in flight goes on.
    Paused {
        /// Who, and why.
        reason: String,
    },
    /// The run ends: no new starts, and what is in flight is asked to stop.
    Halting {
        /// Why.
        reason: String,
    },
}

/// What an event did. None of these is an error: reports are delivered at least once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The rollout has changed: ask again what is wanted.
    Changed,
    /// Known already, or older than what is known.
    Repeated,
    /// It concerns a job or an attempt that is over. The end stands; keep the report beside it
    /// (security-and-delivery §2.2).
    Late,
}

/// An event that makes no sense here. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The node is none of this run.
    #[error("node {node} is not part of run {run}")]
    UnknownNode {
        /// The run.
        run: RunId,
        /// The node.
        node: NodeId,
    },
    /// The table has no such pair.
    #[error("job {run}/{node} is {} and cannot be {event}", phase_word(*.phase))]
    Job {
        /// The run.
        run: RunId,
        /// The node.
        node: NodeId,
        /// Where the job stands.
        phase: Phase,
        /// What was said to have happened.
        event: JobEvent,
    },
    /// The event speaks of a try that there never was.
    #[error("job {run}/{node} is {} at attempt {}, but attempt {} is said to be {event}",
        phase_word(*.phase), .current.0, .got.0)]
    Attempt {
        /// The run.
        run: RunId,
        /// The node.
        node: NodeId,
        /// Where the job stands.
        phase: Phase,
        /// What was said to have happened.
        event: JobEvent,
        /// The try that is known.
        current: Attempt,
        /// The try that the event names.
        got: Attempt,
    },
    /// The table of rings has no such pair.
    #[error("ring {ring} of run {run} is {} and cannot be {event}", state.map_or("unknown", RingState::as_str))]
    Ring {
        /// The run.
        run: RunId,
        /// The number of the ring.
        ring: usize,
        /// Where it stands; `None` for a ring that there is not.
        state: Option<RingState>,
        /// What was said to have happened.
        event: RingEvent,
    },
    /// The offer would break the cap, the pair rule or a limit over all runs. It was not wanted; reload the run from
    /// its records.
    #[error("job {run}/{node} must not be offered: {reason}; reload the run from its records")]
    NotAdmitted {
        /// The run.
        run: RunId,
        /// The node.
        node: NodeId,
        /// The rule that it would break.
        reason: BlockReason,
    },
}
