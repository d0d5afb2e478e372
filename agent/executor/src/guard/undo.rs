//! Carrying an order out: each entry by the task that the executor would use, on a thread of its own within its limit.
//!
//! Must not decide whether: the guard's loop has. Called by it.

use std::sync::Arc;
use std::time::Duration;

use fleet_types::job::EndCause;
use fleet_types::report::{StepReport, StepState, TaskReport};

use super::order::{GuardOrder, UndoEntry};
use crate::host::Host;
use crate::resolve::TaskTable;
use crate::run::{Called, cut_parts, on_thread};
use crate::tasks::{CancelFlag, Change, Inspect, JobView, OutputSink, Task, TaskContext, TaskError};

/// After its limit an entry has this long to answer, as a step has.
const GRACE: Duration = Duration::from_mins(1);

/// Before an entry that failed is tried again: what was in the way at the start of a machine is gone in seconds, and whoever
/// holds dpkg in minutes. Nobody comes after the guard where the agent does not. All within the entry's limit.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(45)];

/// Nobody listens; what a program printed last stands in the report.
struct Unheard;

impl OutputSink for Unheard {
    fn write(&self, _: &[u8]) {}
}

/// Has the machine restarted within this time and does not come back; gives why it did.
pub type Restart<'a> = &'a dyn Fn(Duration) -> String;

/// Puts everything of an order back and says what came of it. `restarted` is the boot in which it had the machine restarted
/// before.
pub fn put_back(
    order: &Arc<GuardOrder>,
    host: &Arc<dyn Host>,
    tasks: &TaskTable,
    restarted: Option<&str>,
    restart: Restart<'_>,
) -> Vec<StepReport> {
    (0..order.entries.len()).map(|index| one(order, index, host, tasks, (restarted, restart))).collect()
}

fn one(
    order: &Arc<GuardOrder>,
    index: usize,
    host: &Arc<dyn Host>,
    tasks: &TaskTable,
    (restarted, restart): (Option<&str>, Restart<'_>),
) -> StepReport {
    let entry = order.entries[index].clone();
    let (started, began) = (host.clock().now(), host.clock().since_boot());
    let limit = Duration::from_millis(entry.limit_ms);
    let left = || limit.saturating_sub(host.clock().since_boot().saturating_sub(began));
    let mut tries = 0;
    let (state, cause, mut body) = loop {
        tries += 1;
        let (state, cause, body) = match tasks.get(&entry.action) {
            None => {
                let why = format!("this agent has no task for {}", entry.action);
                break (StepState::Failed, Some(EndCause::StepFailed), said(why));
            }
            Some(task) => match call(order, index, host, task, (restarted.map(str::to_owned), left())) {
                Called::Answered(Err(TaskError::Restart)) => {
                    let why = restart(left());
                    (StepState::Failed, Some(EndCause::OutcomeUnknown), said(why))
                }
                called => judged(&entry, called),
            },
        };
        // Of one whose end is not known something may still be at work.
        let pause = PAUSES.get(tries - 1).filter(|pause| **pause < left());
        let Some(pause) = pause.filter(|_| cause == Some(EndCause::StepFailed)) else {
            break (state, cause, body);
        };
        tracing::warn!(step = entry.id, summary = body.summary, "not put back yet; it is tried again");
        host.clock().pause(*pause, &CancelFlag::default());
    };
    cut_parts(&mut body);
    let took = host.clock().since_boot().saturating_sub(began);
    StepReport {
        id: entry.id,
        title: entry.title,
        action: entry.action,
        state,
        cause,
        started: Some(started),
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        tries: u32::try_from(tries).unwrap_or(u32::MAX),
        output: None,
        output_kept: None,
        body,
    }
}

fn call(
    order: &Arc<GuardOrder>,
    index: usize,
    host: &Arc<dyn Host>,
    task: Task,
    (restarted_from, limit): (Option<String>, Duration),
) -> Called<TaskReport> {
    let (order, on) = (Arc::clone(order), Arc::clone(host));
    on_thread(host, "the guard", limit + GRACE, move || {
        let entry = &order.entries[index];
        let mut step = order.step.clone();
        step.step.clone_from(&entry.id);
        let job = JobView {
            noted: order.noted.clone(),
            resumed: true,
            packages: order.packages.clone(),
            restarted_from,
        };
        let context = TaskContext {
            host: &*on,
            profile: &order.profile,
            with: &entry.with,
            facts: &order.facts,
            step: &step,
            placeholders: &order.placeholders,
            job: &job,
            output: &Unheard,
            cancel: &CancelFlag::default(),
            deadline: on.clock().instant() + limit,
        };
        match (task, &entry.undo) {
            (Task::Change(change), Some(undo)) => Change::revert(change, &context, undo),
            (Task::Change(change), None) => Change::apply(change, &context),
            (Task::Inspect(inspect), _) => Inspect::inspect(inspect, &context),
        }
    })
}

fn judged(entry: &UndoEntry, called: Called<TaskReport>) -> (StepState, Option<EndCause>, TaskReport) {
    match called {
        Called::Answered(Ok(body)) => (StepState::Succeeded, None, body),
        Called::Answered(Err(error)) => {
            let message = error.to_string();
            let (cause, body) = match error {
                TaskError::OutcomeUnknown { report, .. } => (EndCause::OutcomeUnknown, *report),
                TaskError::Failed { report, .. } | TaskError::Cancelled(report) => {
                    (EndCause::StepFailed, *report)
                }
                TaskError::Declared(_) | TaskError::Restart => (EndCause::StepFailed, TaskReport::default()),
            };
            (StepState::Failed, Some(cause), TaskReport { summary: message, ..body })
        }
        Called::Overran => {
            let why = format!("it did not end within {} s", entry.limit_ms / 1000);
            (StepState::Failed, Some(EndCause::OutcomeUnknown), said(why))
        }
        Called::Panicked => {
            let why = "the task broke off by a fault of its own (panic)".to_owned();
            (StepState::Failed, Some(EndCause::OutcomeUnknown), said(why))
        }
    }
}

fn said(summary: String) -> TaskReport {
    TaskReport { summary, ..TaskReport::default() }
}
