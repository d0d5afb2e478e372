//! Which subcommand is which file.

use fleet_types::document::DocumentKind;

use super::{apply, trigger};
use crate::args::ScheduleCommand;
use crate::commands::document;
use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// Runs a subcommand of `schedule`.
pub async fn run(session: &mut Session<'_>, command: &ScheduleCommand) -> Result<ExitCode, Failure> {
    match command {
        ScheduleCommand::Document(command) => document::run(session, DocumentKind::Schedule, command).await,
        ScheduleCommand::Apply(args) => apply::run(session, args).await,
        ScheduleCommand::Trigger(args) => trigger::run(session, args).await,
    }
}
