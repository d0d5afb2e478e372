//! How a node plan looks: what one node would do, step by step, and why it would refuse.

use std::collections::BTreeMap;

use fleet_types::digest::Digest;
use fleet_types::id::RunId;
use fleet_types::plan::{NodePlan, PlannedStep};
use fleet_types::report::Change;
use fleet_types::view::JobItem;

use crate::render::{Answer, Block, Cell, Column, Table, Tone, units};

/// Shows a node plan.
pub fn show(answer: Answer, plan: &NodePlan) -> Answer {
    let (tone, head) = match (plan.refusals.is_empty(), plan.changes) {
        (false, _) => (Tone::Bad, "the node would refuse to start it"),
        (true, true) => (Tone::Plain, "the node would start it; it changes the node"),
        (true, false) => (Tone::Plain, "the node would start it; nothing on the node changes"),
    };
    let mut answer = answer.block(Block::Toned(tone, head.to_owned()));
    for refusal in &plan.refusals {
        answer = answer.line(format!("  {}: {}", refusal.code, refusal.message));
        if !refusal.remedy.is_empty() {
            answer = answer.line(format!("    fix: {}", refusal.remedy));
        }
    }
    if !plan.cannot_undo.is_empty() {
        let steps = plan.cannot_undo.join(", ");
        answer =
            answer.line(format!("  nothing undoes: {steps}; a run that fails after them stays half-way"));
    }
    let mut steps =
        Table::new(&[Column::whole("STEP"), Column::text("WOULD"), Column::whole("ACTION").wide()]);
    for step in &plan.steps {
        let would = match &step.skipped {
            Some(why) => Cell::toned(Tone::Dim, format!("be skipped: {why}")),
            None => Cell::from(step.summary.as_str()),
        };
        steps.row([step.id.as_str().into(), would, step.action.as_str().into()]);
    }
    plan.steps.iter().fold(answer.table(steps, "no steps"), details)
}

/// Most different plans of one table.
const MAX_GROUPS: usize = 20;

/// Which nodes would do the same, where they differ.
pub fn groups(answer: Answer, run: RunId, jobs: &[JobItem]) -> Answer {
    let mut groups: BTreeMap<Digest, Vec<&JobItem>> = BTreeMap::new();
    for job in jobs {
        if let Some(plan) = job.plan {
            groups.entry(plan).or_default().push(job);
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|jobs| std::cmp::Reverse(jobs.len()));
    match groups.as_slice() {
        [] => answer,
        [all] => answer.line(format!("{} would do the same", units::count(all.len(), "node"))),
        several => {
            let mut table =
                Table::new(&[Column::whole("NODES"), Column::text("LIKE"), Column::text("SHOWN BY")]);
            for jobs in several.iter().take(MAX_GROUPS) {
                let like = jobs[0].node_name.as_str();
                let shown = format!("fleetctl run show {run}/{like}");
                table.row([jobs.len().to_string().into(), like.into(), shown.into()]);
            }
            let head = format!("the nodes would do {} different things", several.len());
            answer.block(Block::Gap).line(head).table(table, "")
        }
    }
}

/// Programs by argv and changes, where a step has any.
fn details(answer: Answer, step: &PlannedStep) -> Answer {
    if step.skipped.is_some() || (step.commands.is_empty() && step.changes.is_empty()) {
        return answer;
    }
    let mut answer = answer.block(Block::Gap).block(Block::Toned(Tone::Head, step.id.clone()));
    for argv in &step.commands {
        // Quoted as data, so that a blank inside an argument shows; nothing here goes to a shell.
        let words: Vec<_> = argv.iter().map(|word| format!("{word:?}")).collect();
        answer = answer.line(format!("  run {}", words.join(" ")));
    }
    let answer = step.changes.iter().fold(answer, |answer, change| answer.line(change_line(change)));
    if step.moves && !step.changes.is_empty() {
        return answer.line("  (by then it may be others: a start is not bound to these)");
    }
    answer
}

/// One change in one line.
pub fn change_line(change: &Change) -> String {
    let between = match (change.before.as_str(), change.after.as_str()) {
        ("", "") => String::new(),
        ("", after) => format!(": {after}"),
        (before, "") => format!(": was {before}"),
        (before, after) => format!(": {before} -> {after}"),
    };
    format!("  {} {}{between}", change.action, change.subject)
}
