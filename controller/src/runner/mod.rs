//! The runner: applies what happened, saves, asks the engine what each node should be doing, and says so.
//!
//! | file | what lives there |
//! |---|---|
//! | [`active`] | one open run in memory: records beside the engine's state |
//! | [`pass`] | one pass over one run: apply, save, offer, end, finish |
//! | [`gates`] | asks nodes whether the gates of their ring hold |
//! | [`cancel_retries`] | when a node was last told to stop |
//! | [`run_loop`] | wakes passes: notifier, deadline, period |
//! | [`unloadable`] | ends a run whose records contradict each other |
//! | [`deliver`] | puts saved assignments and cancels on their way |
//!
//! Data goes one way: services ring, the runner reads. It never calls a service and never waits for a node.

pub mod active;
pub mod cancel_retries;
pub mod deliver;
mod gates;
pub mod pass;
pub mod run_loop;
#[cfg(test)]
mod story;
pub mod unloadable;
