//! The rollout engine: how a run moves over its nodes. Pure decisions.
//!
//! For: the controller's runner, which applies an event that it has saved ([`Rollout::apply`]), asks what
//! each node should be doing now ([`Rollout::wanted`]) and when to look again
//! ([`Rollout::next_deadline`]), and shows why a node is not going ([`Rollout::blocked`]).
//!
//! Must never: do I/O, read a clock, draw random numbers, write a log. Time is handed in.
//!
//! | file | holds |
//! |---|---|
//! | `plan` | what was asked for: nodes, pairs, limits; fixed for the life of the run |
//! | `event` | what can happen, and the answers to it |
//! | `table` | the one table: phase × event, mode × event |
//! | `state` | the rollout's data and its indexes |
//! | `restore` | a rollout from records |
//! | `apply` | carrying out what the table says |
//! | `deadline` | until when silence is borne, and when to look again |
//! | `wanted` | what should be so now |
//! | `blocked` | every reason why a node is not going |
//! | `summary` | the run as one line: state, tally, counts |
//! | `invariant` | the named invariants |

mod apply;
mod blocked;
mod deadline;
mod event;
pub mod invariant;
mod plan;
mod restore;
mod state;
mod summary;
mod table;
mod wanted;

pub use blocked::BlockReason;
pub use deadline::LOST_GRACE;
pub use event::{Applied, Event, EventError, JobEvent, Mode, Reported};
pub use plan::{MAX_NODES, Plan, PlanInput, PlanProblem, PlannedNode};
pub use restore::{JobFact, KnownJob, Live, RestoreError};
pub use state::Rollout;
pub use summary::{Counts, Summary};
pub use wanted::{Directive, End, Offer, PAGE, Wanted};
