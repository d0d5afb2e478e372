//! `package.list_updates`: what could be upgraded, by the lists on the node. Reads only. Row: Z18.

use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;

use super::args;
use super::contract::{Inspect, TaskContext, TaskError, TaskPlan};
use super::packages::{origins, plain, work};
use super::part::{bounded, number, problem, sample};
use crate::host::Wanted;

/// The task.
pub(super) struct PackageListUpdates;

impl Inspect for PackageListUpdates {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let what = if args::flag(context, "security_only", false)? { "security updates" } else { "updates" };
        Ok(TaskPlan { summary: format!("list {what}"), ..TaskPlan::default() })
    }

    fn inspect(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let security_only = args::flag(context, "security_only", false)?;
        let changes = context.host.packages().resolve(&Wanted::AllUpdates, work(context)).map_err(plain)?;
        let security = changes.iter().filter(|change| change.security).count();
        let all = changes.iter().filter(|change| change.from.is_some()).count();
        let mut report = TaskReport {
            summary: format!("{all} updates are pending, {security} of them for security"),
            ..TaskReport::default()
        };
        for change in changes.iter().filter(|change| change.security || !security_only) {
            let (Some(from), Some(to)) = (&change.from, &change.to) else { continue };
            let severity = if change.security { Severity::Medium } else { Severity::Low };
            let message = format!("{} -> {} ({})", from.version, to.version, origins(change));
            report.problems.push(problem(severity, "update_pending", &change.name, message));
        }
        for (metric, count) in [("updates_pending", all), ("security_updates_pending", security)] {
            report.samples.push(sample(metric, "packages", number(count as u64), "count"));
        }
        Ok(bounded(report))
    }
}
