//! Which subcommand is which file.

use super::{cancel, list, logs, plan, show, start, task, wait};
use crate::args::RunCommand;
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
