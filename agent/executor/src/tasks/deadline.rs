//! May a task go on? Asked between parts of its work: not after a cancel, not after the step's time.

use std::time::Instant;

use fleet_types::report::TaskReport;

use super::contract::{CancelFlag, RetryKind, TaskContext, TaskError};
use super::part::bounded;

/// Why a task stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Halt {
    /// It was asked to.
    #[error("cancelled")]
    Cancelled,
    /// The step's time is over.
    #[error("the step's time is over")]
    TimeOver,
}

impl Halt {
    /// The end of the task, with what is known until now.
    pub(super) fn end(self, report: TaskReport) -> TaskError {
        match self {
            Self::Cancelled => TaskError::Cancelled(Box::new(bounded(report))),
            Self::TimeOver => TaskError::Failed {
                message: self.to_string(),
                report: Box::new(bounded(report)),
                retry: Some(RetryKind::Timeout),
            },
        }
    }
}

/// What bounds a task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline<'a> {
    cancel: &'a CancelFlag,
    deadline: Instant,
}

impl<'a> Deadline<'a> {
    /// The bounds of this step.
    pub(super) const fn of(context: &TaskContext<'a>) -> Self {
        Self { cancel: context.cancel, deadline: context.deadline }
    }

    /// May it go on?
    pub(super) fn check(&self) -> Result<(), Halt> {
        if self.cancel.is_cancelled() {
            return Err(Halt::Cancelled);
        }
        if Instant::now() >= self.deadline { Err(Halt::TimeOver) } else { Ok(()) }
    }
}
