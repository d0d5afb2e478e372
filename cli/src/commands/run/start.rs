//! `fleetctl run start`.

use fleet_types::request::Verb;

use super::order::{self, Prepared};
use super::{end, planned, wait};
use crate::args::StartArgs;
use crate::client::Client;
use crate::confirm::{Danger, confirm};
use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// Shows the targets, asks, signs, starts; with `--wait` also waits.
pub async fn run(session: &mut Session<'_>, what: &StartArgs) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    let prepared = match (&what.plan, &what.procedure) {
        (Some(plan), _) => {
            planned::prepare(session, &client, *plan, what.profile.as_ref(), &what.how).await?
        }
        (None, Some(name)) => {
            let with = (what.params.as_slice(), what.profile.as_ref());
            order::prepare(session, &client, name, with, &what.how, Verb::Run).await?
        }
        // The command line asks for one of them.
        (None, None) => return Err(Failure::usage("neither a procedure nor --plan is given")),
    };
    let prepared = match &what.policy {
        Some(name) => {
            let policy = order::rollout_policy(&client, name).await?;
            prepared.by_policy(session, &policy, &what.how)?
        }
        None => prepared,
    };
    go(session, &client, prepared).await
}

/// What follows once it is known what is to be started.
pub async fn go(session: &mut Session<'_>, client: &Client, prepared: Prepared) -> Result<ExitCode, Failure> {
    if session.settings.dry_run {
        session.print(&prepared.preview("would start"))?;
        return Ok(ExitCode::Done);
    }
    let danger = danger(session, &prepared, Danger::Moderate)?;
    let is_waiting = session.settings.wait == Some(true);
    start(session, client, prepared, &danger, is_waiting).await
}

/// How much may go wrong with it: `least` where little changes.
pub(super) fn danger(session: &Session<'_>, prepared: &Prepared, least: Danger) -> Result<Danger, Failure> {
    let chosen = &prepared.chosen;
    if !prepared.procedure.changes || !chosen.is_severe() {
        return Ok(least);
    }
    let (count, enrolled) = (chosen.nodes.len(), chosen.enrolled);
    let why = match usize::try_from(enrolled) {
        Ok(all) if all > count => format!("it changes {count} of the fleet's {enrolled} nodes"),
        _ => "it changes all nodes of the fleet".to_owned(),
    };
    Ok(Danger::Severe { name: session.context()?.name.to_string(), why })
}

/// Asks, sends, and waits where that is wanted.
pub(super) async fn start(
    session: &mut Session<'_>,
    client: &Client,
    prepared: Prepared,
    danger: &Danger,
    is_waiting: bool,
) -> Result<ExitCode, Failure> {
    if let Some(warning) = prepared.too_slow() {
        session.say(format!("warning: {warning}"));
    }
    confirm(session, danger, &prepared.in_words("start"), &prepared.chosen.answer()).await?;
    let started = prepared.send(session, client).await?;
    if !is_waiting {
        return end::started(session, &started);
    }
    session.say(format!("run {} started", started.item.run));
    wait::until_ended(session, client, started.item.run).await
}
