//! `reboot`: restarts the machine and sees that it comes back. Rows: F07.
//!
//! A new kernel is booted once, and the former one comes back by itself unless the restart is confirmed
//! (security-and-delivery §2.10, §2.12, docs/adr/0038). Done when the boot id has changed, never because it was asked for.

use std::time::Duration;

use fleet_types::report::{Change as ReportedChange, TaskReport};
use fleet_types::severity::Severity;
use serde::{Deserialize, Serialize};

use super::args;
use super::boot_loader::{self, Next, Trial};
use super::contract::{CancelFlag, Change, RetryKind, Reversal, TaskContext, TaskError, TaskPlan};
use super::part::{change, problem};
use crate::facts::is_reboot_required;
use crate::host::UnitsKind;

/// How often it is looked whether all services of the machine have been started.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The task.
pub(super) struct Reboot;

/// The machine before the step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Former {
    boot_id: String,
    kernel: String,
    /// Another kernel is to be tried.
    trial: Option<Trial>,
}

/// What a step notes: never nothing, because a guard wants something to hold.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Noted {
    /// None where no restart is needed.
    restart: Option<Former>,
}

/// Is anything to be done, and may it be?
fn fit(context: &TaskContext<'_>) -> Result<Option<Former>, TaskError> {
    if args::text(context, "only_if")? != Some("always") && is_reboot_required(context.host) != Some(true) {
        return Ok(None);
    }
    let refused = |why: String| TaskError::failed(format!("{why}; nothing was done"), TaskReport::default());
    let units = context.host.units();
    if units.kind() != UnitsKind::Systemd {
        return Err(refused("only systemd restarts the machine in order".to_owned()));
    }
    if let Some(damage) = context.host.packages().damage() {
        return Err(refused(format!("packages are not installed whole: {damage}")));
    }
    let against = units.against_restart().map_err(|error| refused(error.to_string()))?;
    if !against.is_empty() {
        return Err(refused(format!("a restart is held up: {}", against.join("; "))));
    }
    let kernel = running(context);
    let trial = match boot_loader::next(context, &kernel)? {
        Next::Same => None,
        Next::Trial(trial) => Some(trial),
        Next::ForGood(_) if args::text(context, "fallback")? == Some("none") => None,
        Next::ForGood(why) => {
            let why = format!(
                "another kernel would be booted, and kernel {kernel} would not come back by itself: {why}; mend that, or \
                 write fallback = \"none\""
            );
            return Err(refused(why));
        }
    };
    Ok(Some(Former { boot_id: context.host.clock().boot_id(), kernel, trial }))
}

impl Former {
    fn of(undo: &serde_json::Value) -> Result<Option<Self>, TaskError> {
        serde_json::from_value::<Noted>(undo.clone())
            .map(|noted| noted.restart)
            .map_err(|e| TaskError::Declared(format!("what was noted before the restart does not read: {e}")))
    }

    /// What this step noted, or what another step's way back finds now.
    fn noted(context: &TaskContext<'_>) -> Result<Option<Self>, TaskError> {
        let own = context.job.noted.iter().find(|noted| noted.step == context.step.step);
        own.map_or_else(|| fit(context), |own| Self::of(&own.undo))
    }

    fn changes(&self, boot_id: &str, kernel: &str) -> Vec<ReportedChange> {
        let mut changes = vec![change("machine", "restarted", &self.boot_id, boot_id)];
        if kernel != self.kernel {
            changes.push(change("kernel", "booted", &self.kernel, kernel));
        }
        changes
    }
}

/// Waits until the services of a machine that has come back have been started, and says which kernel runs.
fn up_again(context: &TaskContext<'_>) -> Result<String, TaskError> {
    let failed = |message: String, retry| TaskError::Failed { message, report: Box::default(), retry };
    while context.host.units().is_booting().map_err(|error| failed(error.to_string(), None))? {
        if context.host.clock().instant() >= context.deadline {
            let message = "the machine is up, and its services are still being started".to_owned();
            return Err(failed(message, Some(RetryKind::Timeout)));
        }
        // Past the restart nothing is gained by a cancel.
        context.host.clock().pause(LOOK_EVERY, &CancelFlag::default());
    }
    Ok(running(context))
}

fn running(context: &TaskContext<'_>) -> String {
    context.host.system().names().1
}

/// Was the machine restarted since this step asked for it?
fn is_back(context: &TaskContext<'_>) -> bool {
    context.job.restarted_from.as_ref().is_some_and(|boot| *boot != context.host.clock().boot_id())
}

fn not_needed() -> TaskReport {
    TaskReport { summary: "no package asks for a restart".to_owned(), ..TaskReport::default() }
}

impl Change for Reboot {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let Some(former) = fit(context)? else {
            return Ok(TaskPlan { summary: not_needed().summary, moves: true, ..TaskPlan::default() });
        };
        let kernel = &former.kernel;
        let summary = former.trial.as_ref().map_or_else(
            || format!("the machine would be restarted; kernel {kernel} runs"),
            |trial| {
                let new = &trial.release;
                format!("the machine would be restarted with kernel {new} once; {kernel} comes back unless it is confirmed")
            },
        );
        let after = former.trial.as_ref().map_or(kernel, |trial| &trial.release);
        let changes = former.changes("another boot", after);
        // Whether a package asks for it depends on the steps before.
        Ok(TaskPlan { summary, changes, moves: true, ..TaskPlan::default() })
    }

    fn reversal(&self) -> Reversal {
        Reversal::Stored
    }

    fn undo(&self, context: &TaskContext<'_>) -> Result<serde_json::Value, TaskError> {
        serde_json::to_value(Noted { restart: fit(context)? }).map_err(|e| TaskError::Declared(e.to_string()))
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let Some(former) = Former::noted(context)? else { return Ok(not_needed()) };
        if !is_back(context) {
            // What holds it up may have come since it was noted.
            fit(context)?;
            if context.cancel.is_cancelled() {
                return Err(TaskError::cancelled());
            }
            if let Some(trial) = &former.trial {
                trial.prepare(context)?;
            }
            return Err(TaskError::Restart);
        }
        let kernel = up_again(context)?;
        let changes = former.changes(&context.host.clock().boot_id(), &kernel);
        if let Some(trial) = former.trial.as_ref().filter(|trial| trial.release != kernel) {
            let message = format!("kernel {} did not come up: {kernel} runs again", trial.release);
            return Err(TaskError::failed(message, TaskReport { changes, ..TaskReport::default() }));
        }
        let summary = format!("the machine was restarted; kernel {kernel} runs");
        Ok(TaskReport { summary, changes, ..TaskReport::default() })
    }

    fn keep(&self, context: &TaskContext<'_>, undo: &serde_json::Value) -> Result<(), TaskError> {
        let trial = Former::of(undo)?.and_then(|former| former.trial);
        trial.map_or(Ok(()), |trial| trial.keep(context))
    }

    fn revert(&self, context: &TaskContext<'_>, undo: &serde_json::Value) -> Result<TaskReport, TaskError> {
        let Some(former) = Former::of(undo)? else { return Ok(not_needed()) };
        let Some(trial) = &former.trial else {
            let summary = "a restart changes nothing that could be put back".to_owned();
            return Ok(TaskReport { summary, ..TaskReport::default() });
        };
        if context.host.clock().boot_id() == former.boot_id {
            trial.forget(context)?;
            let summary = "the machine was not restarted; what it boots is as before".to_owned();
            return Ok(TaskReport { summary, ..TaskReport::default() });
        }
        trial.pin_former(context)?;
        let kernel = running(context);
        if kernel == former.kernel {
            let summary = format!("kernel {kernel} runs again, and is booted from now on");
            let message = format!("kernel {} is installed and not booted any more", trial.release);
            let mut pinned = problem(Severity::Medium, "kernel_pinned", "node", message);
            "remove it, or choose it with grub-set-default".clone_into(&mut pinned.remedy);
            return Ok(TaskReport { summary, problems: vec![pinned], ..TaskReport::default() });
        }
        if is_back(context) {
            let message =
                format!("the machine was restarted for kernel {}, and {kernel} runs", former.kernel);
            return Err(TaskError::failed(message, TaskReport::default()));
        }
        Err(TaskError::Restart)
    }
}
