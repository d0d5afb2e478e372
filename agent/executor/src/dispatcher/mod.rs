//! The dispatcher: the one owner of the executor's state, and its one synchronous decision per event.
//!
//! `state` holds the state and the table of events; `link`, `intake`, `bound` and `jobs` are its rooms by subject. A
//! handler writes what must be durable (journal, state, stores) before it returns the effects that leave
//! the executor; nothing is sent before what explains it is on the disk.

mod answers;
mod bound;
mod event;
mod gather;
mod intake;
mod jobs;
mod link;
mod recovery;
mod state;
mod tidy;

pub use event::{Effect, Event};
pub use state::{Dispatcher, Parts};
