//! One step: its undo noted, its tries, its waits, its end; every act journaled first.
//!
//! Called by the forward way of a run and by its saga.

use std::time::Duration;

use fleet_types::document::procedure::{OnFailure, RetryOn};
use fleet_types::job::{EndCause, JobState};
use fleet_types::report::{StepReport, StepState, TaskReport};

use super::draft::cut_parts;
use super::guarded::Armed;
use super::life::Run;
use super::task_thread::{Call, Called, call};
use crate::journal::{BootTime, Entry, JournalError, StepRecord};
use crate::resolve::ResolvedStep;
use crate::tasks::{Change, JobView, RetryKind, Reversal, Task, TaskError};

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
pub(super) struct Fault {
    pub(super) cause: EndCause,
    pub(super) message: String,
    pub(super) body: Box<TaskReport>,
    pub(super) retry: Option<RetryKind>,
    /// Its task asks for a restart of the machine.
    pub(super) restart: bool,
}

impl Fault {
    pub(super) fn new(cause: EndCause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into(), body: Box::default(), retry: None, restart: false }
    }
}

impl From<TaskError> for Fault {
    fn from(error: TaskError) -> Self {
        let message = error.to_string();
        match error {
            TaskError::Failed { report: body, retry, .. } => {
                let timed_out = retry == Some(RetryKind::Timeout);
                let cause = if timed_out { EndCause::TimedOut } else { EndCause::StepFailed };
                Self { body, retry, ..Self::new(cause, message) }
            }
            TaskError::Cancelled(body) => Self { body, ..Self::new(EndCause::Cancelled, message) },
            TaskError::OutcomeUnknown { report: body, retry, .. } => {
                Self { body, retry, ..Self::new(EndCause::OutcomeUnknown, message) }
            }
            TaskError::Restart => Self { restart: true, ..Self::new(EndCause::StepFailed, message) },
            TaskError::Declared(_) => Self::new(EndCause::StepFailed, message),
        }
    }
}

impl Run {
    /// Carries one step out and journals its end. `limit` is the time that is left for it, counted from its
    /// begin where an earlier life of the executor began it. None when the executor stops while the step's change waits
    /// to be confirmed, or while the machine goes down for it.
    pub(super) fn carry_step(
        &mut self,
        step: &ResolvedStep,
        act: Act<'_>,
        limit: Duration,
    ) -> Result<Option<StepReport>, JournalError> {
        let known = self.record.step(&step.id).filter(|known| known.try_number > 0);
        let began_at = known.map_or_else(|| self.now(), |known| known.began);
        let (before, counted) = known.map_or_else(Default::default, |known| self.time_of(known));
        let known_before = known.map_or(0, |known| known.try_number);
        let mut try_number = known_before.max(1);
        let limit = limit.saturating_sub(counted);
        let entered = self.since_boot();
        let noted = self.noted_undo(step, act, try_number, limit);
        // The undo and the work share the limit and one grace. What has begun is still waited for.
        let is_over = known_before == 0 && self.since_boot().saturating_sub(entered) >= limit;
        let outcome = match noted {
            Err(fault) => Err(fault),
            Ok(_) if is_over => {
                let message = "its limit was over when its undo had been noted; nothing was done";
                Err(Fault::new(EndCause::TimedOut, message))
            }
            Ok(undo) => loop {
                let boot = self.surroundings.host.clock();
                self.journal(&Entry::StepBegin {
                    run: self.key.0,
                    attempt: self.key.1,
                    step: step.id.clone(),
                    try_number,
                    undo: undo.clone(),
                    at: self.now(),
                    boot: Some(BootTime { id: boot.boot_id(), ms: millis(boot.since_boot()) }),
                })?;
                #[cfg(any(test, feature = "crash-points"))]
                self.surroundings.journal.reach(crate::crash::CrashPoint::AfterStepBegin)?;
                self.tell(self.state_of(step, act));
                let left = limit.saturating_sub(self.since_boot().saturating_sub(entered));
                let resumed = try_number == known_before;
                let tried = match self.armed(step, act, &undo, left)? {
                    Ok(()) => self.try_once(step, act, try_number, left, resumed),
                    Err(fault) => break Err(fault),
                };
                let left = limit.saturating_sub(self.since_boot().saturating_sub(entered));
                match tried {
                    Err(fault) if fault.restart => match self.restart_machine(step, left)? {
                        Some(fault) => break Err(fault),
                        None => return Ok(None),
                    },
                    Err(fault) if self.waits_to_retry(step, &fault, try_number, left) => try_number += 1,
                    ended => break ended,
                }
            },
        };
        let outcome = match act {
            Act::Forward => match self.settle(step, outcome)? {
                Some(outcome) => outcome,
                None => return Ok(None),
            },
            Act::Compensation | Act::Revert(_) => outcome,
        };
        let (output, output_kept) = self.surroundings.output.end(self.key, &step.id);
        let took_ms = millis(before + self.since_boot().saturating_sub(entered));
        let begun = self.record.began(&step.id);
        let (state, cause, mut body) = judged(step, outcome, begun);
        cut_parts(&mut body);
        let report = StepReport {
            id: step.id.clone(),
            title: step.title.clone(),
            action: step.action.clone(),
            state,
            cause,
            started: Some(began_at),
            took_ms,
            tries: if begun { try_number } else { 0 },
            output,
            output_kept,
            body,
        };
        #[cfg(any(test, feature = "crash-points"))]
        self.surroundings.journal.reach(crate::crash::CrashPoint::BeforeStepEnd)?;
        let report = self.end_step(report)?;
        self.let_go(step);
        Ok(Some(report))
    }

    /// Has the guard hold a step that can cut the node off, before each of its tries.
    fn armed(
        &mut self,
        step: &ResolvedStep,
        act: Act<'_>,
        undo: &serde_json::Value,
        limit: Duration,
    ) -> Result<Result<(), Fault>, JournalError> {
        if step.guard.is_none() || !matches!(act, Act::Forward) {
            return Ok(Ok(()));
        }
        Ok(match self.arm(step, undo, limit)? {
            // Done once more after a confirmation it changes nothing, and gives the report that was lost.
            Ok(Armed::Waiting | Armed::Confirmed) => Ok(()),
            Ok(Armed::Undoing) => {
                let message = "its time to be confirmed was over when the agent came back";
                Err(Fault::new(EndCause::Unconfirmed, message))
            }
            Err(why) => Err(Fault::new(EndCause::StepFailed, format!("nothing was done: {why}"))),
        })
    }

    /// Journals the end of a step.
    pub(super) fn end_step(&mut self, report: StepReport) -> Result<StepReport, JournalError> {
        let (run, attempt) = self.key;
        self.journal(&Entry::StepEnd { run, attempt, report: Box::new(report.clone()) })?;
        Ok(report)
    }

    /// How long ago a step began that an earlier life of the executor left open; and how much of that counts
    /// against its limit. In the same boot that is all of it, by boot time. Across a restart of the machine
    /// only wall time can say how long ago it was, and nothing worked in between: nothing of it counts.
    pub(super) fn time_of(&self, known: &StepRecord) -> (Duration, Duration) {
        let clock = self.surroundings.host.clock();
        match &known.began_boot {
            Some(began) if began.id == clock.boot_id() => {
                let ago = clock.since_boot().saturating_sub(Duration::from_millis(began.ms));
                (ago, ago)
            }
            _ => (self.now().since(known.began), Duration::ZERO),
        }
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
            (Act::Forward, Some(Task::Change(change)))
                if step.effects.changes && is_noted(change.reversal(), step) =>
            {
                let undo =
                    self.call(step, (try_number, false), limit, false, move |context| change.undo(context))?;
                let size = serde_json::to_vec(&undo).map_or(usize::MAX, |bytes| bytes.len());
                if size > MAX_UNDO_BYTES {
                    let message = format!("its undo of {size} bytes is over the limit; nothing was done");
                    return Err(Fault::new(EndCause::StepFailed, message));
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
        resumed: bool,
    ) -> Result<TaskReport, Fault> {
        let unmade = || {
            Fault::new(EndCause::StepFailed, format!("action {} is not built into this agent", step.action))
        };
        let changing = step.effects.changes;
        match (act, step.task.ok_or_else(unmade)?) {
            (Act::Revert(undo), Task::Change(change)) => {
                let undo = undo.clone();
                self.call(step, (try_number, resumed), left, true, move |context| {
                    change.revert(context, &undo)
                })
            }
            (Act::Revert(_), Task::Inspect(_)) => Ok(TaskReport::default()),
            (_, Task::Inspect(inspect)) => {
                self.call(step, (try_number, resumed), left, false, move |context| inspect.inspect(context))
            }
            (_, Task::Change(change)) => {
                self.call(step, (try_number, resumed), left, changing, move |context| {
                    Change::apply(change, context)
                })
            }
        }
    }

    pub(super) fn call<T: Send + 'static>(
        &self,
        step: &ResolvedStep,
        (try_number, resumed): (u32, bool),
        limit: Duration,
        changing: bool,
        work: impl FnOnce(&crate::tasks::TaskContext<'_>) -> Result<T, TaskError> + Send + 'static,
    ) -> Result<T, Fault> {
        let request = Call {
            key: self.key,
            identity: self.identity(&step.id, try_number),
            limit,
            changing,
            job: JobView {
                restarted_from: self.record.step(&step.id).and_then(|known| known.restarted_from.clone()),
                ..self.job_view(resumed)
            },
            // The way back is not stopped by the cancel that caused it.
            cancel: if self.is_on_way_out() {
                crate::tasks::CancelFlag::default()
            } else {
                self.cancel.clone()
            },
        };
        // Of a change that was left alone half-way nobody can say how far it came.
        let cause = |known| if changing { EndCause::OutcomeUnknown } else { known };
        match call(&self.surroundings, self.admitted.resolution(), step, request, work) {
            Called::Answered(result) => result.map_err(|error| {
                let mut fault = Fault::from(error);
                if fault.cause == EndCause::Cancelled && !self.is_cancelled() {
                    fault.cause = EndCause::StepFailed;
                }
                fault
            }),
            Called::Overran => {
                let still = if changing { " and may still be changing the node" } else { "" };
                let message = format!("it did not end within {} s{still}", limit.as_secs());
                Err(Fault::new(cause(EndCause::TimedOut), message))
            }
            Called::Panicked => {
                let message = "the task broke off by a fault of its own (panic); see the agent's log";
                Err(Fault::new(cause(EndCause::StepFailed), message))
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

/// Is what it will change noted before?
const fn is_noted(reversal: Reversal, step: &ResolvedStep) -> bool {
    match reversal {
        Reversal::Stored => true,
        Reversal::GuardOnly => step.guard.is_some(),
        Reversal::None | Reversal::Stays => false,
    }
}

pub(super) fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// A step's end. One that began is never skipped, whatever stopped it.
fn judged(
    step: &ResolvedStep,
    outcome: Result<TaskReport, Fault>,
    begun: bool,
) -> (StepState, Option<EndCause>, TaskReport) {
    match outcome {
        Ok(body) => (StepState::Succeeded, None, body),
        Err(fault) => {
            let mut body = *fault.body;
            body.summary = fault.message;
            let state = match (fault.cause, step.on_failure) {
                (EndCause::Cancelled, _) if !begun => StepState::Skipped,
                // What nobody can know is never passed over with a warning (security-and-delivery §2.1).
                (EndCause::Cancelled | EndCause::OutcomeUnknown, _) => StepState::Failed,
                (_, OnFailure::Warn) => StepState::Warned,
                _ => StepState::Failed,
            };
            (state, Some(fault.cause), body)
        }
    }
}
