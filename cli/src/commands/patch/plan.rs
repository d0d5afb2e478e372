//! `fleetctl patch plan`: whether deadlines can be held by a rollout policy, before anything is started.

use std::time::Duration;

use fleet_types::id::Name;
use fleet_types::view::{PatchPlan, PlanMiss};

use super::needed;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Cell, Column, Table, Times, Tone, units};
use crate::session::Session;

/// Nodes that the table names; `-o json` has up to a thousand.
const SHOWN: usize = 20;

/// Asks for a plan and shows it; a deadline that would be missed is an exit code of its own.
pub async fn plan(session: &mut Session<'_>, policy: &Name, takes: Duration) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    let selector = needed::selector(session)?;
    let plan = client.patch_plan(policy, &selector, takes).await?;
    let answer = answer(&plan, &session.times());
    session.print(&answer)?;
    Ok(if plan.missed_count == 0 { ExitCode::Done } else { ExitCode::Blocked })
}

fn answer(plan: &PatchPlan, times: &Times) -> Answer {
    let takes = units::length(Duration::from_millis(plan.takes_ms));
    let fields = vec![
        ("policy", Cell::from(plan.policy.as_str())),
        ("assumed", format!("nothing fails, a node takes {takes} (--takes)").into()),
        ("left out", format!("{} with nothing to install", nodes(plan.without_fix)).into()),
    ];
    let mut rings = Table::new(&[
        Column::whole("RING"),
        Column::number("NODES"),
        Column::whole("BEGINS"),
        Column::whole("ENDS"),
        Column::text("WAITS FOR"),
    ]);
    for ring in &plan.rings {
        let at = |at: Option<_>| {
            at.map_or_else(|| Cell::toned(Tone::Warn, "not known"), |at| times.show(at).into())
        };
        rings.row([
            ring.name.as_str().into(),
            ring.nodes.to_string().into(),
            at(ring.begins),
            at(ring.ends),
            if ring.waits_for_operator { "an operator, taken to promote it at once" } else { "" }.into(),
        ]);
    }
    let tone = if plan.missed_count == 0 { Tone::Good } else { Tone::Bad };
    let head = format!("{} would be done in time, {} would not", nodes(plan.in_time), plan.missed_count);
    let mut answer = Answer::of(plan)
        .names(plan.missed.iter().map(|miss| miss.node.clone()))
        .block(Block::Fields(fields))
        .block(Block::Gap)
        .table(rings, "the policy has no rings")
        .block(Block::Gap)
        .block(Block::Toned(tone, head));
    if plan.missed.is_empty() {
        return answer;
    }
    answer = answer.table(missed(&plan.missed, times), "");
    let more = usize::try_from(plan.missed_count).unwrap_or(0).saturating_sub(SHOWN.min(plan.missed.len()));
    if more > 0 {
        answer = answer.line(format!("and {}", units::count(more, "more node")));
    }
    for way in &plan.ways {
        answer = answer.line(format!("{}: {} would not be done in time", way.what, nodes(way.misses)));
    }
    answer.line("or let a finding stay where somebody answers for it: fleetctl patch hold CVE --for DURATION")
}

fn nodes(count: u64) -> String {
    units::count(usize::try_from(count).unwrap_or(usize::MAX), "node")
}

fn missed(missed: &[PlanMiss], times: &Times) -> Table {
    let mut table = Table::new(&[
        Column::whole("NODE"),
        Column::whole("FINDING"),
        Column::whole("DUE"),
        Column::whole("DONE"),
        Column::text("MISSED BY"),
    ]);
    for miss in missed.iter().take(SHOWN) {
        let by = match miss.done {
            None => "not done: offline, or its turn would come too late".to_owned(),
            Some(_) if miss.is_late => "late already".to_owned(),
            Some(done) => units::length(Duration::from_secs(done.since(miss.due).as_secs() / 60 * 60)),
        };
        table.row([
            miss.node.as_str().into(),
            miss.finding.as_str().into(),
            times.show(miss.due).into(),
            miss.done.map_or_else(|| "-".into(), |done| times.show(done).into()),
            Cell::toned(Tone::Bad, by),
        ]);
    }
    table
}
