//! `fleetctl run cancel`. Stopping is mild: it asks nobody and needs no signature.

use fleet_proto::pb;
use fleet_types::id::RunId;

use crate::clock;
use crate::error::{ExitCode, Failure};
use crate::render::Answer;
use crate::session::Session;

/// Cancels a run.
pub async fn run(session: &mut Session<'_>, run: RunId) -> Result<ExitCode, Failure> {
    if session.settings.dry_run {
        session.say(format!("would cancel {run}"));
        return Ok(ExitCode::Done);
    }
    let request = pb::CancelRunRequest {
        run: run.to_string(),
        reason: session.settings.reason.clone().unwrap_or_default(),
        idempotency_key: clock::idempotency_key(),
    };
    let done = session.connect().await?.cancel_run(request).await?;
    session.print(&Answer::of(&done).name(run.to_string()).line(&done.message))?;
    session.say(format!("see its end: fleetctl run wait {run}"));
    Ok(ExitCode::Done)
}
