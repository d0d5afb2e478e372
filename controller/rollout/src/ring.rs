//! A ring: what a policy asks of it, where it stands, and the one table of its states.
//!
//! Pure data and the table; what is wanted of a ring now is worked out in `rings`. Must never read a clock: how long a
//! ring has soaked is handed in. Called by this crate, and by whoever stores and shows a ring.

// The rows stand in the order of states and events, equal ones too: it is read as a table.
#![allow(clippy::match_same_arms)]

use std::fmt;
use std::time::Duration;

use fleet_types::document::Share;
use fleet_types::document::share::percent_of;
use fleet_types::run::{RingState, Verdict};

/// More rings than anybody has stages of trust; each is looked at with every question.
pub const MAX_RINGS: usize = 16;
/// Below so many nodes a percentage of failures says nothing: one of five is 20 %.
pub const MIN_SAMPLE: u32 = 20;

/// What a policy asks of one ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingInput {
    /// Its name.
    pub name: String,
    /// At most so many of its nodes in flight at once; `None` for no limit but that of the run.
    pub max_parallel: Option<Share>,
    /// How long it must have been healthy before the next ring opens.
    pub soak: Duration,
    /// So many percent of its nodes must have succeeded.
    pub success_percent: u32,
    /// An operator lets the next ring begin.
    pub is_manual: bool,
}

/// How many failures a ring may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tolerance {
    /// So many nodes of a ring may fail; one more halts the rollout.
    pub nodes: Option<u32>,
    /// So many percent of a ring may fail, where it has [`MIN_SAMPLE`] nodes; more halt the rollout.
    pub percent: Option<u32>,
    /// Failures are noted and halt nothing, and neither does a ring that has ended with too few successes.
    pub goes_on: bool,
}

/// A ring with its numbers, worked out over its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingPlan {
    /// Its name.
    pub name: String,
    /// How long it soaks.
    pub soak: Duration,
    /// An operator lets the next ring begin.
    pub is_manual: bool,
    /// Its nodes; fixed, whatever becomes of them.
    pub nodes: u32,
    /// At most so many in flight.
    pub at_once: u32,
    /// So many must have succeeded.
    pub needed: u32,
    /// So many may fail; `None` for any number.
    pub may_fail: Option<u32>,
    /// Do failures halt nothing?
    pub goes_on: bool,
}

impl RingPlan {
    /// Over so many nodes. What must succeed is rounded up, what may fail down.
    pub fn new(input: &RingInput, tolerance: Tolerance, nodes: u32) -> Self {
        let by_percent =
            tolerance.percent.filter(|_| nodes >= MIN_SAMPLE).map(|percent| percent_of(percent, nodes));
        Self {
            name: input.name.clone(),
            soak: input.soak,
            is_manual: input.is_manual,
            nodes,
            at_once: input.max_parallel.map_or(u32::MAX, |share| share.of(nodes).get()),
            needed: nodes - percent_of(100_u32.saturating_sub(input.success_percent), nodes),
            may_fail: [tolerance.nodes, by_percent]
                .into_iter()
                .flatten()
                .min()
                .filter(|_| !tolerance.goes_on),
            goes_on: tolerance.goes_on,
        }
    }
}

/// What can happen to a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RingEvent {
    /// Every ring before it is done.
    Opened,
    /// Enough of its nodes have succeeded.
    Enough,
    /// How long it has soaked was saved.
    SoakNoted,
    /// It has soaked for as long as it should.
    Soaked,
    /// Its gates say pass, or it has none.
    Passed,
    /// A gate says fail.
    Failed {
        /// Which, and what it saw.
        because: String,
    },
    /// A gate cannot say.
    Inconclusive {
        /// Which, and what it lacks.
        because: String,
    },
    /// The next ring may begin: the policy, or an operator, says so.
    Approved,
    /// More failed than may, or too few can still succeed.
    Stopped {
        /// How many.
        because: String,
    },
    /// An operator goes on with what has failed so far.
    Resumed,
}

impl fmt::Display for RingEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opened => "opened",
            Self::Enough => "enough succeeded",
            Self::SoakNoted => "soak noted",
            Self::Soaked => "soaked",
            Self::Passed => "gates pass",
            Self::Failed { .. } => "gate fails",
            Self::Inconclusive { .. } => "gate inconclusive",
            Self::Approved => "approved",
            Self::Stopped { .. } => "stopped",
            Self::Resumed => "resumed",
        })
    }
}

/// Rings: state × event. `None` where the event makes no sense there.
pub(crate) const fn ring_step(state: RingState, event: &RingEvent) -> Option<RingState> {
    use RingEvent as E;
    use RingState as S;
    match (state, event) {
        (S::Pending, E::Opened) => Some(S::Open),
        (S::Pending, _) => None,

        (S::Open, E::Enough) => Some(S::Soaking),
        (S::Open, E::Stopped { .. }) => Some(S::Halted),
        (S::Open, _) => None,

        (S::Soaking, E::SoakNoted) => Some(S::Soaking),
        (S::Soaking, E::Soaked) => Some(S::Judging),
        (S::Soaking, E::Stopped { .. }) => Some(S::Halted),
        (S::Soaking, _) => None,

        (S::Judging, E::Passed) => Some(S::AwaitingApproval),
        (S::Judging, E::Failed { .. } | E::Inconclusive { .. } | E::Stopped { .. }) => Some(S::Halted),
        (S::Judging, _) => None,

        (S::AwaitingApproval, E::Approved) => Some(S::Done),
        (S::AwaitingApproval, E::Stopped { .. }) => Some(S::Halted),
        (S::AwaitingApproval, _) => None,

        // Its last nodes may still fail after the next ring has begun.
        (S::Done, E::Stopped { .. }) => Some(S::Halted),
        (S::Done, _) => None,

        (S::Halted, E::Resumed) => Some(S::Open),
        (S::Halted, _) => None,
    }
}

/// Where a ring stands, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingProgress {
    /// Its state.
    pub state: RingState,
    /// How long it has soaked, as far as that was saved.
    pub soaked: Duration,
    /// So many nodes had failed when an operator went on.
    pub excused_failed: u32,
    /// So many had ended without success.
    pub excused: u32,
    /// Why it halted; empty otherwise.
    pub because: String,
    /// How often its gates were asked.
    pub judgings: u32,
    /// What they said last; `None` while they have not, and from when an operator went on.
    pub verdict: Option<Verdict>,
}

impl RingProgress {
    /// Of the ring with this number when a run is made: the first one is open.
    pub const fn begin(number: usize) -> Self {
        let state = if number == 0 { RingState::Open } else { RingState::Pending };
        Self {
            state,
            soaked: Duration::ZERO,
            excused_failed: 0,
            excused: 0,
            because: String::new(),
            judgings: 0,
            verdict: None,
        }
    }
}

/// How many nodes of a ring are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingCounts {
    /// Offered and not ended.
    pub in_flight: u32,
    /// Ended, however.
    pub ended: u32,
    /// Ended well.
    pub succeeded: u32,
    /// Failed, rolled back or lost.
    pub failed: u32,
}

/// A step of a ring that is wanted: save the progress, then apply the event at the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingStep {
    /// The number of the ring.
    pub ring: usize,
    /// What happens to it.
    pub event: RingEvent,
    /// What is to be stored.
    pub progress: RingProgress,
}
