//! `backup.prune`: the retention of backups that did not run. Never the last good one. Row: Z04.

use fleet_types::document::ids::Id;
use fleet_types::document::profile::Backup;
use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;

use super::args;
use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::deadline::Deadline;
use super::fill::Filler;
use super::part::{bounded, change, problem};
use super::retention::{self, Kept};

/// The task.
pub(super) struct BackupPrune;

fn backups<'a>(context: &TaskContext<'a>) -> Result<Vec<(&'a Id, &'a Backup)>, TaskError> {
    let filler = Filler::new(context);
    let mut backups = Vec::new();
    for (id, backup) in args::ids(context, "backups", &context.profile.backups, false)? {
        if filler.holds(&format!("backup {id}"), backup.when.as_ref())? {
            backups.push((id, backup));
        }
    }
    Ok(backups)
}

/// What goes of one backup.
fn doomed(
    context: &TaskContext<'_>,
    id: &Id,
    backup: &Backup,
    report: &mut TaskReport,
) -> Result<Vec<Kept>, TaskError> {
    let kept = retention::list(context, id.as_str(), backup)?;
    let good = retention::last_good(context.host.files(), &kept, Deadline::of(context), report)?;
    if good.is_none() && !kept.is_empty() {
        let message = "no archive reads back whole, so none is removed";
        report.problems.push(problem(Severity::Critical, "no_good_backup", id.as_str(), message));
    }
    let made: Vec<_> = kept.iter().map(|one| one.label.made).collect();
    let going = retention::doomed(&made, good, &backup.keep, context.host.clock().now());
    Ok(going.into_iter().map(|index| kept[index].clone()).collect())
}

impl Change for BackupPrune {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        // Which ones are over their time is a question of the day.
        let mut plan = TaskPlan { moves: true, ..TaskPlan::default() };
        for (id, backup) in backups(context)? {
            for one in doomed(context, id, backup, &mut TaskReport::default())? {
                let before = format!("{} bytes of {}", one.size, one.label.made);
                plan.changes.push(change(one.path.display().to_string(), "deleted", before, ""));
            }
        }
        plan.summary = format!("{} archives would be removed", plan.changes.len());
        Ok(plan)
    }

    fn reversal(&self) -> Reversal {
        // What is deleted is gone; the plan lists it beforehand.
        Reversal::None
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let mut report = TaskReport::default();
        let mut freed = 0;
        for (id, backup) in backups(context)? {
            let going = doomed(context, id, backup, &mut report)?;
            let going: Vec<_> = going.iter().collect();
            match retention::remove(context.host.files(), &going, &mut report) {
                Ok(bytes) => freed += bytes,
                Err(error) => {
                    return Err(TaskError::failed(format!("backup {id}: {error}"), bounded(report)));
                }
            }
        }
        report.summary = format!("{} archives removed, {freed} bytes freed", report.changes.len());
        let report = bounded(report);
        if report.problems.iter().any(|found| found.severity == Severity::Critical) {
            return Err(TaskError::failed("no archive reads back whole, so none is removed", report));
        }
        Ok(report)
    }
}
