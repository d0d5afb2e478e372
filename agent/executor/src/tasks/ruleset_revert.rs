//! `ruleset.revert`: the way back of this job's `ruleset.apply`, for `[[rollback]]` entries. Rows: F07.

use fleet_types::report::TaskReport;

use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::ruleset::{Former, Wanted};
use super::ruleset_apply::put_back;

/// The action whose notes it reads.
const APPLY: &str = "ruleset.apply";

/// The task.
pub(super) struct RulesetRevert;

/// What this job's first apply of the rule set found; none where there was none.
fn noted(context: &TaskContext<'_>, wanted: &Wanted<'_>) -> Option<Former> {
    let notes = context.job.noted.iter().filter(|noted| noted.action == APPLY);
    let mut formers = notes.filter_map(|noted| serde_json::from_value::<Former>(noted.undo.clone()).ok());
    formers.find(|former| former.file.place == wanted.setting().place)
}

impl Change for RulesetRevert {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let wanted = Wanted::of(context)?;
        let summary = format!("put back what this job's load of rule set {} replaces", wanted.id);
        Ok(TaskPlan { summary, ..TaskPlan::default() })
    }

    fn reversal(&self) -> Reversal {
        // It is the undo.
        Reversal::None
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let wanted = Wanted::of(context)?;
        if let Some(former) = noted(context, &wanted) {
            return put_back(context, &wanted, &former);
        }
        let summary = format!("this job has not loaded rule set {}: nothing to put back", wanted.id);
        Ok(TaskReport { summary, ..TaskReport::default() })
    }
}
