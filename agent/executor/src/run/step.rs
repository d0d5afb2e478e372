//! One step: its undo noted, its tries, its waits, its end; every act journaled first.
//!
//! Called by the forward way of a run and by its saga.

use std::time::Duration;

use fleet_types::document::procedure::{OnFailure, RetryOn};
use fleet_types::job::JobState;
use fleet_types::report::{StepReport, StepState, TaskReport};

use super::draft::cut_parts;
use super::life::Run;
use super::task_thread::{Call, Called, call};
use crate::crash::CrashPoint;
use crate::journal::{Entry, JournalError};
use crate::resolve::ResolvedStep;
use crate::tasks::{Change, RetryKind, Task, TaskError};

/// What is done with a step's task.
#[derive(Clone, Copy)]
pub enum Act<'a> {
    /// Its work, with its undo noted first.
    Forward,
    /// Its work as the undo or end of others: nothing undoes it in turn.
    Compensation,
    /// Puts back what this undo says.
    Revert(&'a serde_json::Value),
}

/// Largest undo that is journaled: what is larger belongs into files of the task, named by its undo.
const MAX_UNDO_BYTES: usize = 512 * 1024;

/// How one try ended badly.
struct Fault {
    message: String,
    body: Box<TaskReport>,
    retry: Option<RetryKind>,
    cancelled: bool,
}

impl Fault {
    fn said(message: impl Into<String>) -> Self {
        Self { message: message.into(), body: Box::default(), retry: None, cancelled: false }
    }
}

impl From<TaskError> for Fault {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Failed { message, report, retry } => {
                Self { message, body: report, retry, cancelled: false }
            }
            TaskError::Cancelled => Self { cancelled: true, ..Self::said("cancelled") },
            other => Self::said(other.to_string()),
        }
    }
}

impl Run {
    /// Carries one step out and journals its end. `limit` is the time that is left for it.
    pub(super) fn carry_step(
        &mut self,
        step: &ResolvedStep,
        act: Act<'_>,
        limit: Duration,
    ) -> Result<StepReport, JournalError> {
        let began_at = self.now();
        let began = self.since_boot();
        let mut try_number = self.record.step(&step.id).map_or(1, |known| known.try_number.max(1));
        let outcome = match self.noted_undo(step, act, try_number, limit) {
            Err(fault) => Err(fault),
            Ok(undo) => loop {
                self.journal(&Entry::StepBegin {
                    run: self.key.0,
                    attempt: self.key.1,
                    step: step.id.clone(),
                    try_number,
                    undo: undo.clone(),
                    at: self.now(),
                })?;
                self.surroundings.journal.reach(CrashPoint::AfterStepBegin)?;
                self.tell(self.state_of(step, act));
                let left = limit.saturating_sub(self.since_boot().saturating_sub(began));
                let tried = self.try_once(step, act, try_number, left);
                let left = limit.saturating_sub(self.since_boot().saturating_sub(began));
                match tried {
                    Err(fault) if self.waits_to_retry(step, &fault, try_number, left) => try_number += 1,
                    ended => break ended,
                }
            },
        };
        let output = self.surroundings.output.end(self.key, &step.id);
        let took_ms = u64::try_from(self.since_boot().saturating_sub(began).as_millis()).unwrap_or(u64::MAX);
        let (state, mut body) = judged(step, outcome, self.is_cancelled());
        cut_parts(&mut body);
        let report = StepReport {
            id: step.id.clone(),
            title: step.title.clone(),
            action: step.action.clone(),
            state,
            started: Some(began_at),
            took_ms,
            tries: try_number,
            output,
            body,
        };
        self.surroundings.journal.reach(CrashPoint::BeforeStepEnd)?;
        self.end_step(report)
    }

    /// Journals the end of a step.
    pub(super) fn end_step(&mut self, report: StepReport) -> Result<StepReport, JournalError> {
        let (run, attempt) = self.key;
        self.journal(&Entry::StepEnd { run, attempt, report: Box::new(report.clone()) })?;
        Ok(report)
    }

    fn state_of(&self, step: &ResolvedStep, act: Act<'_>) -> JobState {
        match act {
            Act::Compensation | Act::Revert(_) if self.rolling_back => {
                JobState::RollingBack { step: step.id.clone() }
            }
            _ => JobState::Running { step: step.id.clone(), since: self.now() },
        }
    }

    /// The undo as noted before the first try; made now if this is the first.
    fn noted_undo(
        &self,
        step: &ResolvedStep,
        act: Act<'_>,
        try_number: u32,
        limit: Duration,
    ) -> Result<serde_json::Value, Fault> {
        if let Some(known) = self.record.step(&step.id).filter(|known| known.try_number > 0) {
            return Ok(known.undo.clone());
        }
        match (act, step.task) {
            (Act::Forward, Some(Task::Change(change))) if step.effects.changes => {
                let undo = self.call(step, try_number, limit, move |context| change.undo(context))?;
                let size = serde_json::to_vec(&undo).map_or(usize::MAX, |bytes| bytes.len());
                if size > MAX_UNDO_BYTES {
                    return Err(Fault::said(format!(
                        "its undo of {size} bytes is over the limit; nothing was done"
                    )));
                }
                Ok(undo)
            }
            _ => Ok(serde_json::Value::Null),
        }
    }

    fn try_once(
        &self,
        step: &ResolvedStep,
        act: Act<'_>,
        try_number: u32,
        left: Duration,
    ) -> Result<TaskReport, Fault> {
        let unmade = || Fault::said(format!("action {} is not built into this agent", step.action));
        match (act, step.task.ok_or_else(unmade)?) {
            (Act::Revert(undo), Task::Change(change)) => {
                let undo = undo.clone();
                self.call(step, try_number, left, move |context| change.revert(context, &undo))
            }
            (Act::Revert(_), Task::Inspect(_)) => Ok(TaskReport::default()),
            (_, Task::Inspect(inspect)) => {
                self.call(step, try_number, left, move |context| inspect.inspect(context))
            }
            (_, Task::Change(change)) => {
                self.call(step, try_number, left, move |context| Change::apply(change, context))
            }
        }
    }

    fn call<T: Send + 'static>(
        &self,
        step: &ResolvedStep,
        try_number: u32,
        limit: Duration,
        work: impl FnOnce(&crate::tasks::TaskContext<'_>) -> Result<T, TaskError> + Send + 'static,
    ) -> Result<T, Fault> {
        let request = Call {
            key: self.key,
            identity: self.identity(&step.id, try_number),
            limit,
            // The way back is not stopped by the cancel that caused it.
            cancel: if self.is_on_way_out() {
                crate::tasks::CancelFlag::default()
            } else {
                self.cancel.clone()
            },
        };
        match call(&self.surroundings, self.admitted.resolution(), step, request, work) {
            Called::Answered(result) => result.map_err(Fault::from),
            Called::Overran => {
                Err(Fault::said(format!("timeout: it did not end within {} s", limit.as_secs())))
            }
            Called::Panicked => {
                Err(Fault::said("the task broke off by a fault of its own (panic); see the agent's log"))
            }
        }
    }

    /// Waits for the next try, if there is one.
    fn waits_to_retry(&self, step: &ResolvedStep, fault: &Fault, try_number: u32, left: Duration) -> bool {
        let (Some(retries), Some(kind)) = (&step.retries, fault.retry) else { return false };
        let named = match kind {
            RetryKind::Network => RetryOn::Network,
            RetryKind::LockBusy => RetryOn::LockBusy,
            RetryKind::Timeout => RetryOn::Timeout,
        };
        let wait = retries.wait.length();
        try_number <= retries.count
            && retries.only_on.contains(&named)
            && wait < left
            && !self.is_cancelled()
            && self.surroundings.host.clock().pause(wait, &self.cancel)
    }
}

fn judged(
    step: &ResolvedStep,
    outcome: Result<TaskReport, Fault>,
    cancelled: bool,
) -> (StepState, TaskReport) {
    match outcome {
        Ok(body) => (StepState::Succeeded, body),
        Err(fault) => {
            let mut body = *fault.body;
            body.summary = fault.message;
            let unknown = body.summary.starts_with("outcome_unknown");
            let state = match step.on_failure {
                _ if fault.cancelled && cancelled => StepState::Skipped,
                // What nobody can know is never passed over with a warning (security-and-delivery §2.1).
                OnFailure::Warn if !unknown => StepState::Warned,
                _ => StepState::Failed,
            };
            (state, body)
        }
    }
}
