//! `fleetctl node`: the list, and one node.

use fleet_types::facts::REBOOT_REQUIRED;
use fleet_types::id::Name;
use fleet_types::view::{NodeItem, NodeView, Page};

use super::{job_cells, paging, watching};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Cell, Column, Table, Times, Tone, units};
use crate::session::Session;
use crate::targets;

/// Most nodes of one list: those of the largest request.
const MAX_LISTED: usize = fleet_types::request::MAX_NODES;

/// Lists nodes.
pub async fn list(session: &mut Session<'_>) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    let selectors = targets::list_selectors(&session.settings.targets)?;
    watching::print(session, async |session| {
        let mut items: Vec<NodeItem> = Vec::new();
        for selector in &selectors {
            let page = paging::all("", MAX_LISTED, async |after| client.nodes(selector, after).await);
            items.extend(page.await?.items);
        }
        items.sort_by(|a, b| a.name.cmp(&b.name));
        items.dedup_by(|a, b| a.id == b.id);
        if items.is_empty() && !session.settings.targets.is_empty() {
            // Says what was meant where nothing like it exists.
            targets::resolve(&client, &session.settings.targets, "node list").await.map(|_| ()).or_else(
                |failure| {
                    if failure.code == "no-match" && failure.fixes.len() < 2 { Ok(()) } else { Err(failure) }
                },
            )?;
        }
        let page = Page { schema: "fleet/v1/node-list".to_owned(), items, next: None };
        Ok(list_answer(&page, &session.times()))
    })
    .await
}

fn list_answer(page: &Page<NodeItem>, times: &Times) -> Answer {
    let mut table = Table::new(&[
        Column::whole("NAME"),
        Column::whole("SITE"),
        Column::whole("PRESENCE"),
        Column::whole("SEEN"),
        Column::text("HEALTH"),
        Column::whole("POLICY").wide(),
        Column::whole("AGENT").wide(),
        Column::text("LABELS").wide(),
    ]);
    for node in &page.items {
        let labels: Vec<_> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        table.row([
            node.name.as_str().into(),
            node.labels.site().into(),
            presence(node),
            times.show_optional(node.last_seen).into(),
            health(node, times),
            node.policy_mode.as_str().into(),
            node.agent_version.as_str().into(),
            labels.join(",").into(),
        ]);
    }
    Answer::of(page).names(page.items.iter().map(|node| node.name.to_string())).table(table, "no nodes")
}

/// How its link is; where the node is held, that, because it gets no work either way.
fn presence(node: &NodeItem) -> Cell {
    if node.hold.is_some() { Cell::toned(Tone::Warn, "held") } else { targets::presence(node.presence) }
}

fn health(node: &NodeItem, times: &Times) -> Cell {
    let Some(health) = &node.health else { return Cell::toned(Tone::Dim, "not asked yet") };
    let at = times.show(health.at);
    let mut text = format!("{} of 100", health.score);
    if health.problems > 0 {
        let problems = units::count(health.problems as usize, "problem");
        text = format!("{text}, {problems}: {}", health.worst);
    }
    if health.unknown > 0 {
        text = format!("{text}, {} unknown", units::count(health.unknown as usize, "check"));
    }
    // What was measured too long ago says nothing about now.
    if health.fresh_until.is_some_and(|until| until <= times.now) {
        return Cell::toned(Tone::Dim, format!("unknown; it was {text} ({at})"));
    }
    let tone = if health.problems > 0 { Tone::Warn } else { Tone::Good };
    Cell::toned(tone, format!("{text} ({at})"))
}

/// Shows one node.
pub async fn show(session: &mut Session<'_>, name: &Name) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    watching::print(session, async |session| {
        let node = client.node(name).await?;
        Ok(show_answer(&node, &session.times()))
    })
    .await
}

fn show_answer(node: &NodeView, times: &Times) -> Answer {
    let item = &node.item;
    let labels: Vec<_> = item.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut fields = vec![
        ("name", Cell::from(item.name.as_str())),
        ("id", item.id.to_string().into()),
        ("labels", labels.join(",").into()),
        ("presence", targets::presence(item.presence)),
        ("last seen", times.show_optional(item.last_seen).into()),
        ("health", health(item, times)),
        ("policy", item.policy_mode.as_str().into()),
    ];
    if let Some(hold) = &item.hold {
        let since = hold.since.map_or_else(String::new, |since| format!(" (since {})", times.show(since)));
        fields.insert(4, ("held", Cell::toned(Tone::Warn, format!("{hold}{since}"))));
    }
    if !item.safe_mode.is_empty() {
        fields.push(("no changes", Cell::toned(Tone::Warn, item.safe_mode.as_str())));
    }
    if let Some(until) = node.certificate_not_after {
        fields.push(("certificate", format!("ends {}", times.show(until)).into()));
    }
    if let Some(facts) = &node.facts {
        fields.push((
            "system",
            format!("{} {}, {} {}", facts.os, facts.os_version, facts.kernel, facts.arch).into(),
        ));
        fields
            .push(("hardware", format!("{} cpus, {}", facts.cpus, units::bytes(facts.memory_bytes)).into()));
        fields.push(("booted", times.show_optional(facts.booted).into()));
        fields.push(("agent", format!("{}, units by {}", facts.agent_version, facts.units).into()));
        // Agents of earlier releases do not say it.
        if !facts.package_manager.is_empty() {
            fields.push(("packages", facts.package_manager.as_str().into()));
        }
        if facts.flags.get(REBOOT_REQUIRED) == Some(&true) {
            fields.push(("reboot", Cell::toned(Tone::Warn, "a package asks for one")));
        }
        if !facts.running_old_files.is_empty() {
            let old = facts.running_old_files.join(", ");
            fields.push(("old files", Cell::toned(Tone::Warn, format!("still run by {old}"))));
        }
        fields.push(("interfaces", facts.interfaces.join(", ").into()));
        // One a line: together they are wider than a terminal.
        for (index, what) in facts.simulated.iter().enumerate() {
            let name = if index == 0 { "simulated" } else { "" };
            fields.push((name, Cell::toned(Tone::Warn, what)));
        }
    }
    let answer = Answer::of(node).name(item.name.as_str()).block(Block::Fields(fields));
    jobs(measured(answer, node, times), node, times)
}

fn measured(answer: Answer, node: &NodeView, times: &Times) -> Answer {
    let Some(report) = &node.newest_report else { return answer };
    let (mut problems, mut samples) = (
        Table::new(&[
            Column::whole("SEVERITY"),
            Column::whole("SUBJECT"),
            Column::text("PROBLEM"),
            Column::text("REMEDY").wide(),
        ]),
        Table::new(&[
            Column::whole("METRIC"),
            Column::text("ON"),
            Column::number("VALUE"),
            Column::whole("UNIT"),
        ]),
    );
    for step in &report.steps {
        for problem in &step.body.problems {
            problems.row([
                Cell::toned(Tone::Warn, problem.severity.as_str()),
                problem.subject.as_str().into(),
                problem.message.as_str().into(),
                problem.remedy.as_str().into(),
            ]);
        }
        for sample in &step.body.samples {
            let subject = if sample.subject.is_empty() { "node" } else { &sample.subject };
            let value = format!("{:.1}", sample.value);
            let value = value.strip_suffix(".0").unwrap_or(&value);
            samples.row([
                sample.metric.as_str().into(),
                subject.into(),
                value.into(),
                sample.unit.as_str().into(),
            ]);
        }
    }
    let head = format!("MEASURED {}, in run {}", times.show(report.ended), report.job.run);
    let mut answer = answer.block(Block::Gap).block(Block::Toned(Tone::Head, head));
    if !samples.rows.is_empty() {
        answer = answer.block(Block::Table(samples));
    }
    if !problems.rows.is_empty() {
        answer = answer.block(Block::Toned(Tone::Warn, "PROBLEMS".to_owned())).block(Block::Table(problems));
    }
    answer
}

fn jobs(answer: Answer, node: &NodeView, times: &Times) -> Answer {
    if node.jobs.is_empty() {
        return answer;
    }
    let mut table = Table::new(&[
        Column::whole("RUN"),
        Column::text("PROCEDURE"),
        Column::whole("STATE"),
        Column::whole("TOOK"),
        Column::text("RESULT"),
    ]);
    for job in &node.jobs {
        table.row([
            job.run.to_string().into(),
            job.procedure.as_str().into(),
            job_cells::job_state(job),
            job.took_ms.map_or_else(|| "-".to_owned(), units::milliseconds).into(),
            job_cells::result(job, times).into(),
        ]);
    }
    let head = format!("NEWEST JOBS ({})", node.jobs.len());
    answer.block(Block::Gap).block(Block::Toned(Tone::Head, head)).block(Block::Table(table))
}
