//! Failures as people and programs see them, and the frozen exit codes.
//!
//! Deeper modules have typed errors of their own; here each becomes a [`Failure`]: a stable code, what
//! happened, causes, what to do, and the exit code. It is printed once, by [`text()`] or [`json()`].

mod exit_code;
mod failure;
mod from_dial;
mod from_status;
mod show;

pub use exit_code::ExitCode;
pub use failure::Failure;
pub use from_dial::{Dialled, from_dial_error, own_fault};
pub use from_status::from_status;
pub use show::{json, text};
