//! `fleetctl run cancel`. Stopping is mild: it asks nobody and needs no signature.

use fleet_types::id::RunId;

use crate::error::{ExitCode, Failure};
use crate::render::Answer;
use crate::session::Session;

/// Cancels a run.
pub async fn run(session: &mut Session<'_>, run: RunId) -> Result<ExitCode, Failure> {
    if session.would(&format!("cancel {run}"))? {
        return Ok(ExitCode::Done);
    }
    let reason = session.settings.reason.clone().unwrap_or_default();
    let done = session.connect().await?.cancel_run(run, &reason).await?;
    session.print(&Answer::of(&done).name(run.to_string()).line(&done.message))?;
    session.say(format!("see its end: fleetctl run wait {run}"));
    Ok(ExitCode::Done)
}
