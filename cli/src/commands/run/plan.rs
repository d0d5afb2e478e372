//! `fleetctl run plan`: what the nodes would do. A job without effect, so it asks nobody.

use fleet_types::request::Verb;

use super::{end, order, wait};
use crate::args::WhatToRun;
use crate::error::{ExitCode, Failure};
use crate::render::units;
use crate::session::Session;
use crate::targets;

/// Plans, and waits for the nodes' answers unless `--no-wait`.
pub async fn run(session: &mut Session<'_>, what: &WhatToRun) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    let with = (what.params.as_slice(), what.profile.as_ref());
    let prepared = order::prepare(session, &client, &what.procedure, with, &what.how, Verb::Plan).await?;
    if session.settings.dry_run {
        session.print(&prepared.preview("would plan"))?;
        return Ok(ExitCode::Done);
    }
    if let Some(skipped) = targets::skipped_in_words(&prepared.chosen.skipped, prepared.chosen.skipped.len())
    {
        session.say(format!("skipped: {skipped}"));
    }
    let started = prepared.send(session, &client).await?;
    if session.settings.wait == Some(false) {
        return end::started(session, &started);
    }
    let nodes = units::count(started.item.tally.nodes as usize, "node");
    session.say(format!("plan {} is asked of {nodes}", started.item.run));
    wait::until_ended(session, &client, started.item.run).await
}
