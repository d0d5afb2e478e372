//! `fleetctl run cancel`. Stopping is mild: it asks nobody and needs no signature.

use fleet_proto::pb;
use fleet_types::id::RunId;

use super::end;
use crate::clock;
use crate::error::{ExitCode, Failure};
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
    let view = session.connect().await?.cancel_run(request).await?;
    session.print(&end::one_line(&view))?;
    if !view.item.state.is_terminal() {
        session.say(format!("nothing new starts; what runs is finished or undone: fleetctl run wait {run}"));
    }
    Ok(ExitCode::Done)
}
