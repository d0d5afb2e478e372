//! `fleetctl status`: the fleet on one screen, or one node.

use fleet_types::view::{SiteStatus, Status};

use super::{job_cells, node, patch, watching};
use crate::args::StatusArgs;
use crate::context::Context;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Cell, Column, Table, Times, Tone, units};
use crate::session::Session;

/// Shows the fleet, or one node.
pub async fn run(session: &mut Session<'_>, args: &StatusArgs) -> Result<ExitCode, Failure> {
    if let Some(name) = &args.name {
        return node::show(session, name).await;
    }
    let context = session.context()?;
    let client = session.connect().await?;
    watching::print(session, async |session| {
        let status = client.status().await?;
        Ok(answer(&context, &status, &session.times()))
    })
    .await
}

/// The screen.
pub fn answer(context: &Context, status: &Status, times: &Times) -> Answer {
    let nodes: u32 = status.sites.iter().map(|site| site.nodes).sum();
    let ago = units::length(times.now.since(status.as_of));
    let head = format!(
        "{}  {}   {}, {}   as of {} ({ago} ago)",
        context.name,
        context.endpoint,
        units::count(nodes as usize, "node"),
        units::count(status.sites.len(), "site"),
        times.time_of_day(status.as_of),
    );
    let answer = Answer::of(status)
        .names(status.sites.iter().map(|site| site.site.clone()))
        .block(Block::Line(head))
        .table(
            sites(&status.sites),
            "no nodes yet; the first one: fleetctl join-token create NAME --label site=SITE",
        );
    runs(deadlines(attention(answer, status, times), status), status, times)
}

fn sites(sites: &[SiteStatus]) -> Table {
    let mut table = Table::new(&[
        Column::whole("SITE"),
        Column::number("NODES"),
        Column::number("OK"),
        Column::number("WARN"),
        Column::number("STALE"),
        Column::number("OFFLINE"),
        Column::number("HELD"),
        Column::number("NEW"),
        Column::number("UNKNOWN"),
    ]);
    let count = |n: u32, tone: Tone| Cell::toned(if n == 0 { Tone::Plain } else { tone }, n.to_string());
    for site in sites {
        table.row([
            site.site.as_str().into(),
            site.nodes.to_string().into(),
            count(site.ok, Tone::Good),
            count(site.warn, Tone::Warn),
            count(site.stale, Tone::Warn),
            count(site.offline, Tone::Bad),
            count(site.held, Tone::Warn),
            site.not_enrolled.to_string().into(),
            site.unknown.to_string().into(),
        ]);
    }
    table
}

fn attention(answer: Answer, status: &Status, times: &Times) -> Answer {
    if status.attention.is_empty() {
        // What is late stands in a line of its own.
        let is_late = status.deadlines.as_ref().is_some_and(|deadlines| deadlines.late > 0);
        return if is_late { answer } else { answer.line("nothing needs attention") };
    }
    let head = format!("ATTENTION ({})", status.attention.len());
    let answer = answer.block(Block::Toned(Tone::Warn, head));
    status.attention.iter().fold(answer, |answer, entry| {
        // The command is for copying, so nothing of the line is cut.
        let answer = answer.line(format!("  {}  {}", entry.subject, times.retold(&entry.message)));
        if entry.command.is_empty() { answer } else { answer.line(format!("      {}", entry.command)) }
    })
}

/// One line; what is behind it says `patch sla`.
fn deadlines(answer: Answer, status: &Status) -> Answer {
    let Some(deadlines) = &status.deadlines else { return answer };
    let mut line = format!("PATCHES  {}", patch::in_words(deadlines));
    if deadlines.nodes_unknown > 0 {
        let nodes = units::count(usize::try_from(deadlines.nodes_unknown).unwrap_or(0), "node");
        line = format!("{line}; not all is known of {nodes}");
    }
    answer.block(Block::Toned(patch::tone(deadlines), format!("{line}   fleetctl patch sla")))
}

fn runs(answer: Answer, status: &Status, times: &Times) -> Answer {
    if status.active_runs.is_empty() {
        return answer;
    }
    let mut table = Table::new(&[
        Column::whole("RUN"),
        Column::whole("VERB"),
        Column::text("PROCEDURE"),
        Column::whole("STATE"),
        Column::whole("NODES"),
        Column::whole("STARTED"),
    ]);
    for run in &status.active_runs {
        table.row([
            run.run.to_string().into(),
            job_cells::verb(run.verb).into(),
            run.procedure.as_str().into(),
            job_cells::run_state(run.state),
            job_cells::tally(&run.tally).into(),
            times.show(run.started).into(),
        ]);
    }
    let head = format!("RUNNING ({})", status.active_runs.len());
    answer.block(Block::Toned(Tone::Head, head)).block(Block::Table(table))
}
