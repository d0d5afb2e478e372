//! `fleetctl schedule pause|resume`. Mild: nothing starts by it that was not signed for.

use crate::args::ScheduleName;
use crate::error::{ExitCode, Failure};
use crate::render::Answer;
use crate::session::Session;

/// Pauses or resumes one schedule, or all of them.
pub async fn run(
    session: &mut Session<'_>,
    schedule: Option<&ScheduleName>,
    action: &str,
) -> Result<ExitCode, Failure> {
    let name = schedule.map(ToString::to_string);
    let name = match (name.as_deref(), session.settings.targets.all) {
        (Some(name), false) => Some(name),
        (None, true) => None,
        _ => {
            return Err(Failure::usage(format!("\"schedule {action}\" wants one FILE/ID, or --all"))
                .fix("fleetctl schedule list shows them"));
        }
    };
    let shown = name.unwrap_or("all schedules");
    let reason = session.settings.reason.clone().unwrap_or_default();
    if action == "pause" && reason.trim().is_empty() {
        return Err(Failure::usage("\"schedule pause\" wants a reason; nothing was done")
            .fix(format!("fleetctl schedule pause {} --reason TEXT", name.unwrap_or("--all"))));
    }
    if session.would(&format!("{action} {shown}"))? {
        return Ok(ExitCode::Done);
    }
    let done = session.connect().await?.steer_schedules(name, action, &reason).await?;
    session.print(&Answer::of(&done).name(shown).line(&done.message))?;
    Ok(ExitCode::Done)
}
