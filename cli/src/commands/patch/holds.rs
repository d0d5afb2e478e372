//! `fleetctl patch hold|release|holds`: findings that may stay for a while, because somebody answers for it.

use std::time::Duration;

use fleet_types::finding_hold::{FINDING_HOLD_SCHEMA, FindingHold, HoldKind};
use fleet_types::label::Selector;
use fleet_types::time::Span;
use fleet_types::view::{FindingHoldItem, Page};

use super::needed;
use crate::commands::watching;
use crate::confirm::{Danger, confirm};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Cell, Column, Table, Times, Tone, units};
use crate::session::Session;
use crate::signing::Signer;

/// What is to be held.
#[derive(Debug, Clone, Copy)]
pub struct What<'a> {
    /// A CVE, or the id of an advisory.
    pub id: &'a str,
    /// For how long.
    pub length: &'a Span,
    /// Who answers for it; none: the operator.
    pub owner: Option<&'a str>,
    /// Is the risk taken, instead of being put off?
    pub waive: bool,
}

/// The selection as it is signed: one, said in so many words.
fn selector(session: &Session<'_>, verb: &str) -> Result<Selector, Failure> {
    let targets = &session.settings.targets;
    if targets.is_empty() {
        return Err(Failure::new(
            ExitCode::Usage,
            "no-target",
            format!("\"patch {verb}\" is about nodes and no target was given"),
        )
        .fix("add -l SELECTOR, --site NAME, --node NAME or --all"));
    }
    needed::selector(session)?
        .parse()
        .map_err(|error| Failure::usage("the selection cannot be read").because(&error))
}

fn reason(session: &Session<'_>, verb: &str, id: &str) -> Result<String, Failure> {
    match &session.settings.reason {
        Some(reason) if !reason.trim().is_empty() => Ok(reason.clone()),
        _ => Err(Failure::usage(format!("\"patch {verb}\" wants a reason; nothing was done"))
            .fix(format!("fleetctl patch {verb} {id} --reason TEXT"))),
    }
}

/// Lets a finding stay for a while.
pub async fn hold(session: &mut Session<'_>, what: What<'_>) -> Result<ExitCode, Failure> {
    let (selector, reason) = (selector(session, "hold")?, reason(session, "hold", what.id)?);
    let client = session.connect().await?;
    let patch = client.patch(what.id, &selector.to_string()).await?;
    let context = session.context()?;
    let kind = if what.waive { HoldKind::Waiver } else { HoldKind::Hold };
    // The controller's time: a hold begins where its clock is.
    let from = patch.as_of;
    let hold = FindingHold {
        schema: FINDING_HOLD_SCHEMA.to_owned(),
        fleet: context.fleet,
        finding: what.id.to_owned(),
        selector,
        kind,
        owner: match what.owner {
            Some(owner) => owner.to_owned(),
            None => client.who_am_i().await?.name.to_string(),
        },
        reason,
        from,
        until: from.plus(what.length.length()),
    };
    hold.check(context.fleet).map_err(|error| {
        Failure::usage("the hold would be refused").because(&error).fix("--for takes at most 92d")
    })?;
    let nodes = units::count(usize::try_from(patch.item.nodes).unwrap_or(0), "node");
    let verb = if what.waive { "waive" } else { "hold" };
    let doing = format!("{verb} {} on {nodes} until {}", what.id, session.times().show(hold.until));
    if session.would(&doing)? {
        return Ok(ExitCode::Done);
    }
    let about = Answer::default().block(Block::Fields(vec![
        ("summary", Cell::from(patch.item.summary.as_str())),
        ("severity", needed::severity(&patch.item)),
        ("deadlines", needed::sums(&patch.item.deadlines)),
        ("owner", hold.owner.as_str().into()),
        ("reason", hold.reason.as_str().into()),
    ]));
    confirm(session, &Danger::Moderate, &doing, &about).await?;
    let envelope = Signer::load(&context)?.finding_hold(&hold)?;
    let done = client.hold_finding(&envelope).await?;
    session.print(&Answer::of(&done).name(what.id).line(&done.message))?;
    Ok(ExitCode::Done)
}

/// Ends a hold. Mild: it lets nothing stay that could not before.
pub async fn release(session: &mut Session<'_>, id: &str) -> Result<ExitCode, Failure> {
    let (selector, reason) = (selector(session, "release")?, reason(session, "release", id)?);
    if session.would(&format!("release {id}: its deadline counts again"))? {
        return Ok(ExitCode::Done);
    }
    let done = session.connect().await?.release_finding(id, &selector.to_string(), &reason).await?;
    session.print(&Answer::of(&done).name(id).line(&done.message))?;
    Ok(ExitCode::Done)
}

/// Lists what is held.
pub async fn list(session: &mut Session<'_>) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    watching::print(session, async |session| Ok(answer(&client.finding_holds().await?, &session.times())))
        .await
}

/// A hold that ends within so long is shown as one to decide about.
const SOON: Duration = Duration::from_hours(7 * 24);

fn answer(page: &Page<FindingHoldItem>, times: &Times) -> Answer {
    let mut table = Table::new(&[
        Column::whole("FINDING"),
        Column::whole("SELECTION"),
        Column::number("NODES"),
        Column::whole("KIND"),
        Column::whole("UNTIL"),
        Column::whole("OWNER"),
        Column::whole("SIGNED BY").wide(),
        Column::text("REASON"),
    ]);
    for item in &page.items {
        let until = times.show(item.held.until);
        let until = if item.is_over {
            Cell::toned(Tone::Bad, format!("{until}, over"))
        } else if item.held.until.since(times.now) < SOON {
            Cell::toned(Tone::Warn, until)
        } else {
            until.into()
        };
        let all = item.selector.trim().is_empty();
        table.row([
            item.finding.as_str().into(),
            if all { "all nodes".into() } else { item.selector.as_str().into() },
            item.nodes.to_string().into(),
            item.held.kind.as_str().into(),
            until,
            item.held.owner.as_str().into(),
            item.held.signed_by.as_str().into(),
            item.held.reason.as_str().into(),
        ]);
    }
    Answer::of(page).names(page.items.iter().map(|item| item.finding.clone())).table(table, "nothing is held")
}
