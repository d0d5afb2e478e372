//! Where a test may end this executor, so that deaths at the worst instants are repeatable.
//!
//! In builds for tests only (feature `crash-points`): in others neither the points nor the calls exist. Set by
//! configuration, never by environment. Called by the dispatcher and by runs.

use std::str::FromStr;

use crate::journal::{Journal, JournalError};

/// An instant between two durable acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// The acceptance is journaled, nothing is answered.
    AfterAccepted,
    /// The begin of a step is journaled, the task has not been called.
    AfterStepBegin,
    /// The guard holds the step, the task has not been called.
    AfterArmed,
    /// That the machine is to be restarted is journaled, and it has not been asked to.
    AfterRestartNoted,
    /// A guarded step is done and journaled as such, nobody has confirmed it.
    AfterApplied,
    /// The task has ended, its end is not journaled.
    BeforeStepEnd,
    /// The end of the job is journaled, the report is not sent.
    AfterFinished,
}

/// The text names no crash point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown crash point; known are after_accepted, after_step_begin, after_armed, after_restart_noted, after_applied, before_step_end and after_finished"
)]
pub struct CrashPointError;

impl FromStr for CrashPoint {
    type Err = CrashPointError;

    fn from_str(text: &str) -> Result<Self, CrashPointError> {
        match text {
            "after_accepted" => Ok(Self::AfterAccepted),
            "after_step_begin" => Ok(Self::AfterStepBegin),
            "after_armed" => Ok(Self::AfterArmed),
            "after_restart_noted" => Ok(Self::AfterRestartNoted),
            "after_applied" => Ok(Self::AfterApplied),
            "before_step_end" => Ok(Self::BeforeStepEnd),
            "after_finished" => Ok(Self::AfterFinished),
            _ => Err(CrashPointError),
        }
    }
}

/// What happens at the chosen point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Crash {
    /// Nothing.
    #[default]
    Never,
    /// The process aborts, without unwinding and without flushing anything, as if killed.
    Abort(CrashPoint),
    /// The journal falls silent for good and everything that needs it stops: a death inside one process,
    /// for tests that start the next executor in the same process.
    Halt(CrashPoint),
}

impl Journal {
    /// The same, ending the executor as said.
    #[must_use]
    pub fn crashing(mut self, crash: Crash) -> Self {
        self.crash = crash;
        self
    }

    /// Tells where the executor has come to; fails when it has ended there.
    pub fn reach(&self, point: CrashPoint) -> Result<(), JournalError> {
        match self.crash {
            Crash::Abort(chosen) if chosen == point => std::process::abort(),
            Crash::Halt(chosen) if chosen == point => self.close(),
            _ => {}
        }
        if self.is_open() { Ok(()) } else { Err(JournalError::Closed) }
    }
}
