//! The scheduler: what to do about each tick of each schedule. Pure decisions.
//!
//! For: the controller's scheduler, which asks what is due ([`decide`]), carries it out and saves it, and asks again. One
//! lane is one schedule in one time zone: its ticks are decided in order, each once.
//!
//! Must never: do I/O, read a clock, draw random numbers, write a log. Time is handed in.
//!
//! | file | holds |
//! |---|---|
//! | `rules` | what a file says about its ticks, with what counts where nothing is written |
//! | `lane` | what is known of a lane, and what is decided |
//! | `decide` | the one decision |
//! | `late` | further rounds of a tick for nodes that were not reached |
//! | `blackout` | which nodes may not start now, and until when the others may |
//! | `clock_watch` | a wall clock that jumps |
//! | `state` | the five states of a schedule, for people |

mod blackout;
mod clock_watch;
mod decide;
mod lane;
mod late;
mod rules;
mod state;

pub use blackout::{Blackouts, Free};
pub use clock_watch::{ClockWatch, JUMP};
pub use decide::decide;
pub use lane::{Decided, Fire, Lane, Running, Skip, Wait};
pub use late::{LateTick, Round, late_round};
pub use rules::{Rules, UNWRITTEN};
pub use state::{Seen, state};
