//! `fleetctl run show`: a run with its jobs, or one job with its report.

use fleet_types::id::{Name, RunId};
use fleet_types::report::{Report, StepReport, StepState};
use fleet_types::request::Verb;
use fleet_types::view::{JobItem, JobView, RunView};

use super::what::What;
use super::{plan_blocks, rings};
use crate::client::Client;
use crate::commands::{job_cells, paging, watching};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Cell, Column, Table, Times, Tone, to_value, units};
use crate::session::Session;
use crate::targets;

/// Most jobs of one table; what needs a person comes first, and `-o jsonl` has them all.
const MAX_ROWS: usize = 200;

/// Shows a run or a job.
pub async fn run(session: &mut Session<'_>, what: &str) -> Result<ExitCode, Failure> {
    let what = What::parse(what)?;
    let client = session.connect().await?;
    match what.node {
        None => {
            watching::print(session, async |session| {
                Ok(run_answer(&client, what.run, &session.times()).await?.1)
            })
            .await
        }
        Some(node) => {
            watching::print(session, async |session| {
                let job = get_job(&client, what.run, &node).await?;
                Ok(job_answer(&job, &session.times()))
            })
            .await
        }
    }
}

/// One job with its report.
pub async fn get_job(client: &Client, run: RunId, node: &Name) -> Result<JobView, Failure> {
    client.job(run, node).await
}

/// All jobs of a run.
pub async fn all_jobs(client: &Client, run: RunId) -> Result<Vec<JobItem>, Failure> {
    let page = paging::all("", fleet_types::request::MAX_NODES, async |after| client.jobs(run, after).await);
    Ok(page.await?.items)
}

/// A run with its jobs as an answer; the value is the run with `jobs` in it.
pub async fn run_answer(client: &Client, run: RunId, times: &Times) -> Result<(RunView, Answer), Failure> {
    let view = client.run(run).await?;
    let mut jobs = all_jobs(client, run).await?;
    jobs.sort_by(|a, b| (job_cells::rank(a), &a.node_name).cmp(&(job_cells::rank(b), &b.node_name)));
    let answer = answer(&view, &jobs, times);
    Ok((view, answer))
}

fn answer(view: &RunView, jobs: &[JobItem], times: &Times) -> Answer {
    let mut answer = Answer::of(view).name(view.item.run.to_string());
    if let (serde_json::Value::Object(object), Ok(jobs)) = (&mut answer.value, to_value(jobs)) {
        object.insert("jobs".to_owned(), jobs);
    }
    let item = &view.item;
    let ended = item
        .ended
        .map_or_else(String::new, |ended| format!(", took {}", units::length(ended.since(item.started))));
    let mut fields = vec![
        (job_cells::verb(item.verb), Cell::from(item.run.to_string())),
        ("procedure", procedure(view).into()),
        ("state", job_cells::run_state(item.state)),
        ("nodes", format!("{} of {}", job_cells::tally(&item.tally), item.tally.nodes).into()),
        ("started", format!("{} by {}{ended}", times.show(item.started), item.started_by).into()),
        (
            "targets",
            if view.selector.is_empty() { "all nodes".into() } else { view.selector.as_str().into() },
        ),
        ("at once", view.max_parallel.to_string().into()),
    ];
    if let Some(tick) = &view.schedule {
        fields.push(("schedule", format!("{}, due {}", tick.schedule, times.show(tick.at)).into()));
    }
    if let Some(limit) = view.max_failures {
        fields.push(("stops at", units::count(limit as usize, "failure").into()));
    }
    if let Some(skipped) = targets::skipped_in_words(&view.skipped, view.skipped_count as usize) {
        fields.push(("skipped", Cell::toned(Tone::Warn, skipped)));
    }
    if let Some(plan) = view.plan {
        fields.push(("planned in", plan.to_string().into()));
    }
    if !view.params.is_empty() {
        let params: Vec<_> = view.params.iter().map(|(key, value)| format!("{key}={value}")).collect();
        fields.push(("params", params.join(" ").into()));
    }
    if !item.reason.is_empty() {
        fields.push(("reason", item.reason.as_str().into()));
    }
    if let Some(begin) = view.not_before.filter(|begin| *begin > times.now && !item.state.is_terminal()) {
        // The operator's clock is ahead, or they asked for it.
        fields.push(("first start", Cell::toned(Tone::Warn, format!("not before {}", times.show(begin)))));
    }
    if !view.policy.is_empty() {
        fields.push(("policy", view.policy.as_str().into()));
    }
    if !view.paused_because.is_empty() {
        fields.push(("paused", Cell::toned(Tone::Warn, view.paused_because.as_str())));
    }
    if !item.state.is_terminal() {
        fields.push(("last start", times.show(view.not_after).into()));
    }
    if !view.stopped_because.is_empty() {
        fields.push(("stopped", Cell::toned(Tone::Warn, view.stopped_because.as_str())));
    }
    answer = answer.block(Block::Fields(fields)).block(Block::Gap);
    if !view.rings.is_empty() {
        answer = answer.table(rings::table(&view.rings), "no rings").block(Block::Gap);
    }
    answer = answer.table(job_table(jobs, times), "no jobs");
    if let Some(more) = jobs.len().checked_sub(MAX_ROWS).filter(|more| *more > 0) {
        answer = answer.line(format!("… and {more} more; all of them: -o json"));
    }
    if item.verb == Verb::Plan && item.state.is_terminal() {
        answer = plan_blocks::groups(answer, item.run, jobs);
    }
    match jobs.iter().find(|job| job_cells::rank(job) < 100) {
        Some(failed) => answer.line(format!("next: fleetctl run show {}/{}", item.run, failed.node_name)),
        None if item.verb == Verb::Plan => {
            let run = item.run;
            answer
                .line(format!("what a node would do: fleetctl run show {run}/NODE"))
                .line(format!("start just this:      fleetctl run start --plan {run}"))
        }
        None => answer,
    }
}

fn procedure(view: &RunView) -> String {
    let name = &view.item.procedure;
    match view.procedure_revision {
        Some(revision) => format!("{name} revision {revision}"),
        None => format!("{name}  {}…", view.procedure_digest.short()),
    }
}

fn job_table(jobs: &[JobItem], times: &Times) -> Table {
    let mut table = Table::new(&[
        Column::whole("NODE"),
        Column::whole("STATE"),
        Column::whole("TOOK"),
        Column::text("RESULT"),
        Column::number("ATTEMPT").wide(),
    ]);
    for job in jobs.iter().take(MAX_ROWS) {
        table.row([
            job.node_name.as_str().into(),
            job_cells::job_state(job),
            job.took_ms.map_or_else(|| "-".to_owned(), units::milliseconds).into(),
            job_cells::result(job, times).into(),
            job.attempt.0.to_string().into(),
        ]);
    }
    table
}

fn job_answer(job: &JobView, times: &Times) -> Answer {
    let item = &job.item;
    let mut fields = vec![
        ("job", Cell::from(format!("{}/{}  {}", item.run, item.node_name, item.procedure))),
        ("state", job_cells::job_state(item)),
        ("result", job_cells::result(item, times).into()),
        ("attempt", item.attempt.0.to_string().into()),
    ];
    if let Some(digest) = job.report_digest {
        fields.push(("report", digest.to_string().into()));
    }
    let answer = Answer::of(job)
        .name(format!("{}/{}", item.run, item.node_name))
        .block(Block::Fields(fields))
        .block(Block::Gap);
    match &job.report {
        Some(Report { plan: Some(plan), .. }) => plan_blocks::show(answer, plan),
        Some(report) => report_blocks(answer, report, times),
        None if item.state.outcome().is_some() => {
            answer.line("no report: the node did not begin, or never told")
        }
        None => answer.line("no report yet"),
    }
}

fn report_blocks(answer: Answer, report: &Report, times: &Times) -> Answer {
    let mut steps = Table::new(&[
        Column::whole("STEP"),
        Column::whole("STATE"),
        Column::whole("TOOK"),
        Column::text("SUMMARY"),
        Column::whole("ACTION").wide(),
        Column::number("TRIES").wide(),
    ]);
    for step in &report.steps {
        steps.row([
            step.id.as_str().into(),
            Cell::toned(step_tone(step.state), job_cells::with_cause(step.state.as_str(), step.cause)),
            units::milliseconds(step.took_ms).into(),
            step.body.summary.as_str().into(),
            step.action.as_str().into(),
            step.tries.to_string().into(),
        ]);
    }
    let ended = format!(
        "reported {}, working time {}",
        times.show(report.ended),
        units::milliseconds(report.working_ms)
    );
    let answer = answer.block(Block::Line(ended)).table(steps, "no steps");
    report.steps.iter().fold(answer, details)
}

const fn step_tone(state: StepState) -> Tone {
    match state {
        StepState::Succeeded => Tone::Good,
        StepState::Warned => Tone::Warn,
        StepState::Failed => Tone::Bad,
        StepState::Skipped => Tone::Dim,
    }
}

/// What a table has no room for: problems with their remedy, changes, files, the end of a failed output.
fn details(answer: Answer, step: &StepReport) -> Answer {
    let body = &step.body;
    let has_output = step.state == StepState::Failed && !body.output_tail.is_empty();
    if body.problems.is_empty() && body.changes.is_empty() && body.artifacts.is_empty() && !has_output {
        return answer;
    }
    let mut answer = answer.block(Block::Gap).block(Block::Toned(Tone::Head, step.id.clone()));
    for problem in &body.problems {
        answer =
            answer.line(format!("  {} {}: {}", problem.severity.as_str(), problem.subject, problem.message));
        if !problem.evidence.is_empty() {
            answer = answer.line(format!("    seen: {}", problem.evidence));
        }
        if !problem.remedy.is_empty() {
            answer = answer.line(format!("    fix: {}", problem.remedy));
        }
    }
    for change in &body.changes {
        answer = answer.line(plan_blocks::change_line(change));
    }
    for file in &body.artifacts {
        let verified = if file.verified { ", verified" } else { "" };
        let size = units::bytes(file.size);
        answer = answer.line(format!("  {} {}  {size}{verified}", file.kind, file.path));
    }
    if has_output {
        answer = answer.line("  last output:").block(Block::Text(body.output_tail.clone()));
    }
    answer
}
