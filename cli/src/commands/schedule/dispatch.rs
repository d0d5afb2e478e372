//! Which subcommand is which file.

use fleet_types::document::DocumentKind;

use super::{apply, history, look, next, steer, trigger};
use crate::args::{DocumentCommand, ScheduleCommand};
use crate::commands::document;
use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// Runs a subcommand of `schedule`.
pub async fn run(session: &mut Session<'_>, command: &ScheduleCommand) -> Result<ExitCode, Failure> {
    match command {
        ScheduleCommand::List => look::list(session).await,
        ScheduleCommand::Show { name, .. } if name.contains('/') => look::show(session, name).await,
        ScheduleCommand::Show { name, revision } => {
            let name =
                name.parse().map_err(|error| Failure::usage("no file has this name").because(&error))?;
            let show = DocumentCommand::Show { name, revision: *revision };
            document::run(session, DocumentKind::Schedule, &show).await
        }
        ScheduleCommand::Next { schedule, count } => next::run(session, schedule, *count).await,
        ScheduleCommand::History { schedule, limit, seen } => {
            history::run(session, &schedule.to_string(), *limit, *seen).await
        }
        ScheduleCommand::Pause { schedule } => steer::run(session, schedule.as_ref(), "pause").await,
        ScheduleCommand::Resume { schedule } => steer::run(session, schedule.as_ref(), "resume").await,
        ScheduleCommand::Apply(args) => apply::run(session, args).await,
        ScheduleCommand::Trigger(args) => trigger::run(session, args).await,
    }
}
