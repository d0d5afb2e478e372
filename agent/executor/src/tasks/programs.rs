//! Starting declared commands: typed parameters, placeholders, time limit. Called by the tasks that run programs.
//!
//! What is started is declared in the signed profile and nothing else; a value never splits an argument
//! (security-and-delivery §1.19).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_types::document::ids::{Id, Key};
use fleet_types::document::profile::Command;
use fleet_types::document::value::Value;
use fleet_types::report::{MAX_OUTPUT_TAIL_BYTES, TaskReport};

use super::contract::{CancelFlag, TaskContext, TaskError};
use super::fill::Filler;
use crate::host::{Invocation, Living, ProcessError, ProcessOutcome, Purpose, Running};

/// How often a program of an earlier life is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A declared command, ready to be started.
pub(super) struct Ready<'a> {
    /// What is started.
    pub(super) invocation: Invocation,
    /// Placeholders with the command's parameters, for its outputs.
    pub(super) filler: Filler<'a>,
}

/// Checks parameters and fills in the command.
pub(super) fn ready<'a>(
    context: &'a TaskContext<'a>,
    id: &Id,
    command: &Command,
    given: &BTreeMap<String, Value>,
) -> Result<Ready<'a>, TaskError> {
    if let Some(unknown) = given.keys().find(|name| !command.params.contains_key(name.as_str())) {
        return Err(TaskError::Declared(format!("command {id} has no parameter \"{unknown}\"")));
    }
    let mut params: BTreeMap<Key, Value> = BTreeMap::new();
    for (name, spec) in &command.params {
        let value = spec
            .resolve(given.get(name.as_str()))
            .map_err(|e| TaskError::Declared(format!("command {id}, parameter {name}: {e}")))?;
        if let Some(value) = value {
            params.insert(name.clone(), value);
        }
    }
    let filler = Filler::new(context).with_params(params);
    let what = format!("command {id}");
    let argv = command.argv.iter().map(|a| filler.text(&what, a)).collect::<Result<_, _>>()?;
    let directory = command.directory.as_ref().map(|d| filler.text(&what, d)).transpose()?;
    let invocation = Invocation {
        directory,
        run_as: command.run_as.clone(),
        ..Invocation::new(argv, command.timeout.length())
    };
    Ok(Ready { invocation, filler })
}

/// Runs a program within what is left of the step's time.
pub(super) fn run(
    context: &TaskContext<'_>,
    invocation: &Invocation,
    purpose: Purpose<'_>,
) -> Result<ProcessOutcome, ProcessError> {
    let mut bounded = invocation.clone();
    bounded.time_limit = bounded.time_limit.min(left(context));
    let running = Running { output: context.output, cancel: context.cancel };
    context.host.processes().run(&bounded, purpose, &running)
}

/// What is left of the step's time.
pub(super) fn left(context: &TaskContext<'_>) -> Duration {
    context.deadline.saturating_duration_since(context.host.clock().instant())
}

/// Where a file lies on this machine, for programs that do not know of the node's root.
pub(super) fn on_machine(context: &TaskContext<'_>, path: &Path) -> PathBuf {
    context.host.files().root().join(path.strip_prefix("/").unwrap_or(path))
}

/// Waits for a program of this step that an earlier life of the agent started. Nothing is done beside it.
pub(super) fn wait_for_own(context: &TaskContext<'_>) -> Result<(), TaskError> {
    let step = context.step;
    let of_step = |living: &Living| living.run == step.run && living.is_of(step.attempt, &step.step);
    while context.host.processes().living().iter().any(of_step) {
        if context.host.clock().instant() >= context.deadline {
            let message = "a program that this step began before still runs, and the step's time is over";
            let report = Box::default();
            return Err(TaskError::OutcomeUnknown { message: message.to_owned(), report, retry: None });
        }
        // Not ended by a cancel, like the program itself.
        context.host.clock().pause(LOOK_EVERY, &CancelFlag::default());
    }
    Ok(())
}

/// The name of a program that may be started again when its step is taken up: another one after a restart, since what ran
/// before has ended, and what it did may have been undone with the machine's memory.
pub(super) fn part(context: &TaskContext<'_>, name: &str) -> String {
    if context.job.resumed {
        format!("{name}-{}", context.host.clock().since_boot().as_millis())
    } else {
        name.to_owned()
    }
}

/// The end of a task whose program could not be followed.
pub(super) fn broken(error: &ProcessError, report: TaskReport) -> TaskError {
    match error {
        ProcessError::NotStarted { .. } => TaskError::failed(error.to_string(), report),
        ProcessError::OutcomeUnknown { .. } => {
            TaskError::OutcomeUnknown { message: error.to_string(), report: Box::new(report), retry: None }
        }
    }
}

/// The end of output that fits a report, made valid UTF-8, without control characters that could act on a
/// terminal.
pub(super) fn tail(output: &[u8]) -> String {
    let from = output.len().saturating_sub(MAX_OUTPUT_TAIL_BYTES);
    // A cut character at the front and invalid bytes become one sign each; three bytes for one could
    // overrun, so the text is cut again at its front.
    let text: String = String::from_utf8_lossy(&output[from..])
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect();
    let mut start = text.len().saturating_sub(MAX_OUTPUT_TAIL_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_short_valid_and_tame() {
        let text = tail("é".repeat(5000).as_bytes());
        assert!(text.len() <= MAX_OUTPUT_TAIL_BYTES && text.ends_with('é'));
        assert!(tail(&[0xff; 5000]).len() <= MAX_OUTPUT_TAIL_BYTES);
        assert_eq!(tail(b"a\x1b[31mb\r\n"), "a[31mb\n");
    }
}
