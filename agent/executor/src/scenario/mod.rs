//! Tests of the whole executor through its real socket: a scripted core, scripted tasks, a scripted machine.
//!
//! `bench` makes a fleet of one node with throw-away keys, `core` is the other end of the socket, `scripted`
//! are the tasks. The stories are in the other files.

mod bench;
mod core;
mod delivery;
mod ends;
mod gates;
mod guarded;
mod held;
mod left_over;
mod limits;
mod lost_state;
mod plans;
mod rebooting;
mod refusals;
mod restarts;
mod scripted;
mod steps;
mod ticks;
mod waiting;
mod years;
