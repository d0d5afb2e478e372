//! T11, T12: a disk that is full in the middle of the work, under a real controller and under a real node.
//!
//! | file | tells |
//! |---|---|
//! | [`controller`] | new work is refused, results go into the reserve or wait; space ends it |
//! | [`log`] | lines of the log that have no room cost nothing but themselves |
//! | [`node`] | a job is refused, fails, or is reported from the reserve; space ends it |

mod controller;
mod log;
mod node;
