//! Which subcommand is which file.

use super::{cancel, list, logs, plan, show, start, steer, task, wait};
use crate::args::{RolloutCommand, RunCommand};
use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// Runs a subcommand of `run`.
pub async fn run(session: &mut Session<'_>, command: &RunCommand) -> Result<ExitCode, Failure> {
    match command {
        RunCommand::Plan(what) => plan::run(session, what).await,
        RunCommand::Start(what) => start::run(session, what).await,
        RunCommand::Task(args) => task::run(session, args).await,
        RunCommand::List { limit } => list::run(session, *limit).await,
        RunCommand::Show { what } => show::run(session, what).await,
        RunCommand::Logs { what, step, follow } => logs::run(session, what, step.as_ref(), *follow).await,
        RunCommand::Wait { run } => wait::run(session, *run).await,
        RunCommand::Cancel { run } => cancel::run(session, *run).await,
    }
}

/// Runs a subcommand of `rollout`.
pub async fn rollout(session: &mut Session<'_>, command: &RolloutCommand) -> Result<ExitCode, Failure> {
    match command {
        RolloutCommand::Status { run } => show::run(session, &run.to_string()).await,
        RolloutCommand::Pause { run } => steer::run(session, *run, "pause").await,
        RolloutCommand::Resume { run } => steer::run(session, *run, "resume").await,
        RolloutCommand::Promote { run } => steer::run(session, *run, "promote").await,
        RolloutCommand::Abort { run } => cancel::run(session, *run).await,
    }
}
