//! `ruleset.check`: is the declared rule set one that nft would load, and does the node run it? Rows: F07.
//!
//! A text that nft refuses fails; rules and a file that differ are drift, and said.

use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;

use super::contract::{Inspect, TaskContext, TaskError, TaskPlan};
use super::part::{bounded, problem};
use super::ruleset::Wanted;

/// The task.
pub(super) struct RulesetCheck;

impl Inspect for RulesetCheck {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let wanted = Wanted::of(context)?;
        let summary = format!("have nft judge rule set {} and compare it with what runs", wanted.id);
        Ok(TaskPlan { summary, ..TaskPlan::default() })
    }

    fn inspect(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let wanted = Wanted::of(context)?;
        wanted.check(context)?;
        let drift = wanted.changes(context, &wanted.now(context)?);
        let summary = if drift.is_empty() {
            format!("rule set {} runs, and {} says so", wanted.id, wanted.file.display())
        } else {
            format!("rule set {} is good, and the node differs from it in {} places", wanted.id, drift.len())
        };
        let problems = drift.into_iter().map(|found| {
            let message = match (found.before.is_empty(), found.after.is_empty()) {
                (true, _) => format!("{} lacks: {}", found.subject, found.after),
                (_, true) => format!("{} has besides: {}", found.subject, found.before),
                _ => format!("{}: {} instead of {}", found.subject, found.before, found.after),
            };
            problem(Severity::Medium, "ruleset_drift", wanted.id.as_str(), message)
        });
        Ok(bounded(TaskReport { summary, problems: problems.collect(), ..TaskReport::default() }))
    }
}
