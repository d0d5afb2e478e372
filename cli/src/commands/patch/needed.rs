//! `fleetctl patch list|show|sla`: what is needed on which node, and until when.

use std::time::Duration;

use fleet_types::finding_hold::HoldKind;
use fleet_types::time::Timestamp;
use fleet_types::view::{
    DeadlineState, Deadlines, FixState, Page, PatchItem, PatchNode, PatchSla, PatchView,
};

use crate::commands::{paging, watching};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Cell, Column, Table, Times, Tone, units};
use crate::session::Session;
use crate::targets;

/// CVEs of one list; a distribution that nobody has upgraded for years has ten thousand.
const MAX_LISTED: usize = 100_000;

/// Sums of several selections cannot be added up.
pub(super) fn selector(session: &Session<'_>) -> Result<String, Failure> {
    match targets::list_selectors(&session.settings.targets)?.as_slice() {
        [] => Ok(String::new()),
        [one] => Ok(one.clone()),
        _ => Err(Failure::usage("this sums up one selection of nodes, and several were given")
            .fix("choose them by a label: -l SELECTOR")),
    }
}

/// Lists what must be patched, the earliest end first.
pub async fn list(session: &mut Session<'_>) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    let selector = selector(session)?;
    watching::print(session, async |session| {
        let page = paging::all("fleet/v1/patch-list", MAX_LISTED, async |after| {
            client.patches(&selector, after).await
        });
        Ok(list_answer(&page.await?, &session.times()))
    })
    .await
}

fn list_answer(page: &Page<PatchItem>, times: &Times) -> Answer {
    let mut table = Table::new(&[
        Column::whole("CVE"),
        Column::number("CVSS"),
        Column::whole("SEVERITY"),
        Column::number("NODES"),
        Column::whole("FIX"),
        Column::whole("DUE"),
        Column::whole("STATE"),
        Column::whole("SCORE BY").wide(),
        Column::text("SUMMARY"),
    ]);
    for item in &page.items {
        table.row([
            item.id.as_str().into(),
            item.score.clone().unwrap_or_else(|| "-".to_owned()).into(),
            severity(item),
            item.nodes.to_string().into(),
            fix(item).into(),
            item.due.map_or_else(|| "-".into(), |due| countdown(due, times)),
            sums(&item.deadlines),
            item.score_by.as_str().into(),
            item.summary.as_str().into(),
        ]);
    }
    Answer::of(page).names(page.items.iter().map(|item| item.id.clone())).table(
        table,
        "nothing was found; what is not known stands in: fleetctl patch sla, fleetctl advisory list",
    )
}

pub(super) fn severity(item: &PatchItem) -> Cell {
    let word = if item.exploited { format!("{}, exploited", item.severity) } else { item.severity.clone() };
    match item.severity.as_str() {
        "critical" | "high" => Cell::toned(Tone::Bad, word),
        "medium" | "unknown" => Cell::toned(Tone::Warn, word),
        _ => word.into(),
    }
}

/// On how many of its nodes it can be fixed now.
fn fix(item: &PatchItem) -> String {
    let parts = [
        (item.fix_in_archive, "in archive"),
        (item.pending, "to be started"),
        (item.without_fix, "none there"),
    ];
    let told = parts.iter().filter(|(count, _)| *count > 0);
    told.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

/// How many stand how, the worst first, in words.
pub fn in_words(deadlines: &Deadlines) -> String {
    let Deadlines { late, at_risk, unknown, held, in_time, .. } = deadlines;
    let parts =
        [(late, "late"), (at_risk, "at risk"), (unknown, "unknown"), (held, "held"), (in_time, "in time")];
    let told: Vec<_> = parts
        .iter()
        .filter(|(count, _)| **count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if told.is_empty() { "nothing to do".to_owned() } else { told.join(", ") }
}

/// How bad it is, as a tone.
pub const fn tone(deadlines: &Deadlines) -> Tone {
    match deadlines {
        Deadlines { late: 1.., .. } => Tone::Bad,
        Deadlines { at_risk: 1.., .. } | Deadlines { unknown: 1.., .. } => Tone::Warn,
        _ => Tone::Plain,
    }
}

pub(super) fn sums(deadlines: &Deadlines) -> Cell {
    Cell::toned(tone(deadlines), in_words(deadlines))
}

/// The end, with what is left of it.
fn countdown(due: Timestamp, times: &Times) -> Cell {
    let rounded = |length: Duration| units::length(Duration::from_secs(length.as_secs() / 60 * 60));
    if due > times.now {
        format!("{} left", rounded(due.since(times.now))).into()
    } else {
        Cell::toned(Tone::Bad, format!("{} over", rounded(times.now.since(due))))
    }
}

/// Shows one CVE with its nodes.
pub async fn show(session: &mut Session<'_>, id: &str) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    let selector = selector(session)?;
    watching::print(session, async |session| {
        Ok(show_answer(&client.patch(id, &selector).await?, &session.times()))
    })
    .await
}

fn show_answer(patch: &PatchView, times: &Times) -> Answer {
    let item = &patch.item;
    let score = match &item.score {
        Some(score) => format!("{score}, given by {}", item.score_by),
        None => "not known; its deadline goes by the lane of unknown ones".to_owned(),
    };
    let fields = vec![
        ("cve", Cell::from(item.id.as_str())),
        ("summary", item.summary.as_str().into()),
        ("cvss", score.into()),
        ("severity", severity(item)),
        ("advisories", patch.advisories.join(", ").into()),
        ("nodes", item.nodes.to_string().into()),
        ("fix", fix(item).into()),
        ("deadlines", sums(&item.deadlines)),
    ];
    let mut table = Table::new(&[
        Column::whole("NODE"),
        Column::whole("STATE"),
        Column::whole("DUE"),
        Column::whole("PACKAGE"),
        Column::text("HOW IT STANDS"),
        Column::whole("ADVISORY").wide(),
        Column::whole("CLOCK").wide(),
        Column::text("WHY").wide(),
    ]);
    for node in &patch.nodes {
        table.row([
            node.node.as_str().into(),
            state(node.deadline),
            node.due.map_or_else(|| "-".into(), |due| countdown(due, times)),
            format!("{} {}", node.package, node.version).into(),
            stands(node, times),
            node.advisory.as_str().into(),
            clock(node, times).into(),
            node.why.as_str().into(),
        ]);
    }
    let answer = Answer::of(patch)
        .name(item.id.as_str())
        .block(Block::Fields(fields))
        .block(Block::Gap)
        .table(table, "no node has it");
    let more = (item.nodes as usize).saturating_sub(patch.nodes.len());
    if more == 0 {
        answer
    } else {
        answer.line(format!("and {}; narrow it down with -l", units::count(more, "more node")))
    }
}

/// What started its clock, and whose response times count.
fn clock(node: &PatchNode, times: &Times) -> String {
    let Some(at) = node.started else { return "-".to_owned() };
    let started = format!("{} {}", node.started_by, times.show(at));
    match node.times_of.as_slice() {
        [] => started,
        policies => format!("{started}, times of {}", policies.join(", ")),
    }
}

fn state(state: DeadlineState) -> Cell {
    match state {
        DeadlineState::Late => Cell::toned(Tone::Bad, state.as_str()),
        DeadlineState::AtRisk | DeadlineState::Unknown | DeadlineState::Held => {
            Cell::toned(Tone::Warn, state.as_str())
        }
        DeadlineState::InTime => Cell::toned(Tone::Good, state.as_str()),
        DeadlineState::Nothing => state.as_str().into(),
    }
}

fn stands(node: &PatchNode, times: &Times) -> Cell {
    if let Some(held) = &node.held {
        let words = match held.kind {
            HoldKind::Hold => "put off",
            HoldKind::Waiver => "accepted",
        };
        let until = times.show(held.until);
        let text = format!("{}; {words} by {} until {until}: {}", node.stands, held.owner, held.reason);
        return Cell::toned(Tone::Warn, text);
    }
    match node.archive_lags_since {
        Some(since) => {
            let lag = units::length(times.now.since(since));
            Cell::toned(Tone::Warn, format!("{}; the archive lags by {lag}", node.stands))
        }
        None if node.is == FixState::FixInArchive => node.stands.as_str().into(),
        None => Cell::toned(Tone::Warn, node.stands.as_str()),
    }
}

/// Shows how deadlines stand, in all and a node.
pub async fn sla(session: &mut Session<'_>) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    let selector = selector(session)?;
    watching::print(session, async |session| {
        Ok(sla_answer(&client.patch_sla(&selector).await?, &session.times()))
    })
    .await
}

fn sla_answer(sla: &PatchSla, times: &Times) -> Answer {
    let mut table = Table::new(&[
        Column::whole("NODE"),
        Column::whole("SITE"),
        Column::number("LATE"),
        Column::number("AT RISK"),
        Column::number("HELD"),
        Column::number("UNKNOWN"),
        Column::number("IN TIME"),
        Column::whole("NEXT"),
        Column::whole("DUE"),
        Column::text("NOT KNOWN"),
    ]);
    let number =
        |count: u64, tone: Tone| Cell::toned(if count == 0 { Tone::Plain } else { tone }, count.to_string());
    for node in &sla.nodes {
        let Deadlines { late, at_risk, unknown, held, in_time, .. } = node.deadlines;
        table.row([
            node.node.as_str().into(),
            node.site.as_str().into(),
            number(late, Tone::Bad),
            number(at_risk, Tone::Warn),
            number(held, Tone::Warn),
            number(unknown, Tone::Warn),
            in_time.to_string().into(),
            node.next.as_str().into(),
            node.due.map_or_else(|| "-".into(), |due| countdown(due, times)),
            node.unknown.join("; ").into(),
        ]);
    }
    let mut head = in_words(&sla.deadlines);
    if sla.deadlines.nodes_unknown > 0 {
        let nodes = units::count(usize::try_from(sla.deadlines.nodes_unknown).unwrap_or(0), "node");
        head = format!("{head}; not all is known of {nodes}");
    }
    let answer = Answer::of(sla)
        .names(sla.nodes.iter().map(|node| node.node.to_string()))
        .block(Block::Toned(tone(&sla.deadlines), head))
        .table(table, "no node has anything to do");
    let more = usize::try_from(sla.count).unwrap_or(0).saturating_sub(sla.nodes.len());
    if more == 0 {
        answer
    } else {
        answer.line(format!("and {}; narrow it down with -l", units::count(more, "more node")))
    }
}
