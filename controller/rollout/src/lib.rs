//! The rollout engine: how a run moves over its nodes. Pure decisions.
//!
//! For: the controller's runner, which applies an event that it has saved ([`Rollout::apply`]), asks what
//! each node should be doing now ([`Rollout::wanted`]) and when to look again
//! ([`Rollout::next_look`]), and shows why a node is not going ([`Rollout::blocked`]).
//!
//! Must never: do I/O, read a clock, draw random numbers, write a log. Time is handed in.
//!
//! | file | holds |
//! |---|---|
//! | `plan` | what was asked for: nodes, pairs, limits; fixed for the life of the run |
//! | `event` | what can happen, and the answers to it |
//! | `table` | the one table: phase × event |
//! | `ring` | what a policy asks of a ring, where it stands, and the table of its states |
//! | `rings` | which step of a ring is wanted, and how long one has soaked |
//! | `judging` | whom to ask whether the gates of a ring hold, and what follows |
//! | `state` | the rollout's data and its indexes |
//! | `restore` | a rollout from records |
//! | `apply` | carrying out what the table says |
//! | `moment` | an instant on both clocks |
//! | `silence` | when a silent job is lost, and when to look again |
//! | `holds` | what is taken of pairs, sites and the fleet, over all runs |
//! | `taken` | the places of one limit |
//! | `lanes` | who could go next, where some sites are full |
//! | `wanted` | what should be so now |
//! | `rules` | the one list of rules that answer "may this node go now?" |
//! | `blocked` | every reason why a node is not going, in words |
//! | `forecast` | the engine run ahead: when each node will be done, if nothing fails |
//! | `summary` | the run as one line: state, tally, counts |
//! | `invariant` | the named invariants |

mod apply;
mod blocked;
mod event;
mod forecast;
mod holds;
pub mod invariant;
mod judging;
mod lanes;
mod moment;
mod plan;
mod restore;
mod ring;
mod rings;
mod rules;
mod silence;
mod state;
mod summary;
mod table;
mod taken;
mod wanted;

pub use blocked::BlockReason;
pub use event::{Applied, Event, EventError, JobEvent, Mode, Presence, Reported};
pub use forecast::{Forecast, HORIZON, RingForecast};
pub use holds::{Holder, Holds, Limits, Place, Scope};
pub use judging::{Answer, Ask, GateCounts, Look};
pub use moment::{Moment, Mono};
pub use plan::{MAX_NODES, Plan, PlanInput, PlanProblem, PlannedNode};
pub use restore::{JobFact, KnownJob, Live, RestoreError};
pub use ring::{
    MAX_RINGS, MIN_SAMPLE, RingCounts, RingEvent, RingInput, RingPlan, RingProgress, RingStep, Tolerance,
};
pub use rings::{RingStatus, SOAK_SAVED_EVERY};
pub use silence::LOST_GRACE;
pub use state::Rollout;
pub use summary::{Counts, Summary};
pub use wanted::{End, Offer, PAGE, Wanted};
