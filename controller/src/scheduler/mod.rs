//! The scheduler: fires the ticks of schedules for which somebody has signed.
//!
//! | file | holds |
//! |---|---|
//! | [`run_loop`] | the timer: a turn when something may be due or has changed |
//! | [`turn`] | one turn over all lanes: what `fleet-schedule` decides is saved and carried out |
//! | [`firing`] | a run for a tick: its nodes, blackouts, further rounds |
//!
//! Decides nothing by itself and keeps nothing that the store does not have but when to try again: it can be killed at any
//! instant. Started by the program; must never block anybody.

pub mod firing;
pub mod run_loop;
#[cfg(test)]
mod story;
pub mod turn;
