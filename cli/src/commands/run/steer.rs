//! `fleetctl rollout pause|resume|promote`. Nothing begins by it that was not signed for with the run: it needs no signature.

use fleet_types::id::RunId;

use crate::confirm::{Danger, confirm};
use crate::error::{ExitCode, Failure};
use crate::render::Answer;
use crate::session::Session;

/// Says it to the controller. A pause asks nobody; what lets nodes change is asked for, with the run as it stands.
pub async fn run(session: &mut Session<'_>, run: RunId, action: &str) -> Result<ExitCode, Failure> {
    if session.would(&format!("{action} {run}"))? {
        return Ok(ExitCode::Done);
    }
    let client = session.connect().await?;
    if action != "pause" {
        let times = session.times();
        let (_, shown) = super::show::run_answer(&client, run, &times).await?;
        confirm(session, &Danger::Moderate, &format!("{action} {run}"), &shown).await?;
    }
    let reason = session.settings.reason.clone().unwrap_or_default();
    let done = client.steer_run(run, action, &reason).await?;
    session.print(&Answer::of(&done).name(run.to_string()).line(&done.message))?;
    session.say(format!("see how it goes: fleetctl rollout status {run}"));
    Ok(ExitCode::Done)
}
