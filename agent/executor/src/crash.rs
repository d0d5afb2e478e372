//! Where a test may end this executor, so that deaths at the worst instants are repeatable.
//!
//! Set by configuration, never by environment; without it every point is passed over. Called by the
//! dispatcher and by runs.

use std::str::FromStr;

/// An instant between two durable acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// The acceptance is journaled, nothing is answered.
    AfterAccepted,
    /// The begin of a step is journaled, the task has not been called.
    AfterStepBegin,
    /// The task has ended, its end is not journaled.
    BeforeStepEnd,
    /// The end of the job is journaled, the report is not sent.
    AfterFinished,
}

/// The text names no crash point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown crash point; known are after_accepted, after_step_begin, before_step_end and after_finished"
)]
pub struct CrashPointError;

impl FromStr for CrashPoint {
    type Err = CrashPointError;

    fn from_str(text: &str) -> Result<Self, CrashPointError> {
        match text {
            "after_accepted" => Ok(Self::AfterAccepted),
            "after_step_begin" => Ok(Self::AfterStepBegin),
            "before_step_end" => Ok(Self::BeforeStepEnd),
            "after_finished" => Ok(Self::AfterFinished),
            _ => Err(CrashPointError),
        }
    }
}

/// What happens at the chosen point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Crash {
    /// Nothing: the executor of every real node.
    #[default]
    Never,
    /// The process aborts, without unwinding and without flushing anything, as if killed.
    Abort(CrashPoint),
    /// The journal falls silent for good and everything that needs it stops: a death inside one process,
    /// for tests that start the next executor in the same process.
    Halt(CrashPoint),
}

impl Crash {
    /// Reached `point`: does the journal fall silent?
    pub fn reach(self, point: CrashPoint) -> bool {
        match self {
            Self::Abort(chosen) if chosen == point => std::process::abort(),
            Self::Halt(chosen) => chosen == point,
            Self::Abort(_) | Self::Never => false,
        }
    }
}
