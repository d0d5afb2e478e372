//! `fleetctl run start`.

use fleet_types::request::Verb;

use super::{end, order, wait};
use crate::args::WhatToRun;
use crate::confirm::{Danger, confirm};
use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// Shows the targets, asks, signs, starts; with `--wait` also waits.
pub async fn run(session: &mut Session<'_>, what: &WhatToRun) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    let prepared = order::prepare(session, &client, what, Verb::Run).await?;
    if session.settings.dry_run {
        session.print(&prepared.chosen.answer())?;
        session.say(format!("would start \"{}\" on {}", what.procedure, prepared.chosen.in_words()));
        return Ok(ExitCode::Done);
    }
    let doing = format!(
        "start \"{}\" on {}, at most {} at once",
        what.procedure,
        prepared.chosen.in_words(),
        prepared.max_parallel()
    );
    // All nodes at once is severe only where something changes (ux, levels of danger).
    let danger = if session.settings.targets.all && prepared.procedure.changes {
        Danger::Severe { name: session.context()?.name.to_string() }
    } else {
        Danger::Moderate
    };
    if !session.settings.quiet {
        session.show_aside(&prepared.chosen.answer())?;
    }
    confirm(session, &danger, &doing)?;
    let started = prepared.send(session, &client).await?;
    if session.settings.wait != Some(true) {
        return end::started(session, &started);
    }
    session.say(format!("run {} started", started.item.run));
    wait::until_ended(session, &client, started.item.run).await
}
