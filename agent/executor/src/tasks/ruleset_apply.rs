//! `ruleset.apply`: the node's packet filter as the profile wants it, file and running rules. Rows: F07.
//!
//! Always under a guard: the catalogue says so. nft judges the text before it is loaded; what runs already is left alone.

use fleet_types::report::TaskReport;

use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::part::bounded;
use super::ruleset::{Former, Wanted};

/// The task.
pub(super) struct RulesetApply;

impl Change for RulesetApply {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let wanted = Wanted::of(context)?;
        wanted.check(context)?;
        let changes = wanted.changes(context, &wanted.now(context)?);
        let summary = if changes.is_empty() {
            format!("rule set {} is loaded already", wanted.id)
        } else {
            format!("rule set {} would be loaded and written to {}", wanted.id, wanted.file.display())
        };
        Ok(TaskPlan { summary, changes, ..TaskPlan::default() })
    }

    fn reversal(&self) -> Reversal {
        Reversal::Stored
    }

    fn undo(&self, context: &TaskContext<'_>) -> Result<serde_json::Value, TaskError> {
        let former = Wanted::of(context)?.now(context)?;
        serde_json::to_value(former).map_err(|e| TaskError::Declared(e.to_string()))
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let wanted = Wanted::of(context)?;
        wanted.check(context)?;
        let now = wanted.now(context)?;
        let changes = wanted.changes(context, &now);
        if changes.is_empty() {
            let summary = format!("rule set {} is loaded already", wanted.id);
            return Ok(TaskReport { summary, ..TaskReport::default() });
        }
        if context.cancel.is_cancelled() {
            return Err(TaskError::cancelled());
        }
        let failed = |why: String| {
            let report = TaskReport { changes: changes.clone(), ..TaskReport::default() };
            TaskError::failed(format!("rule set {}: {why}", wanted.id), report)
        };
        if !wanted.runs(context, &now) {
            wanted.load(context, wanted.text)?;
        }
        wanted.setting().write(context).map_err(failed)?;
        let after = wanted.now(context)?;
        if after.file != wanted.setting() {
            return Err(failed(format!("{} was written, and says something else", wanted.file.display())));
        }
        wanted.remember(context, &after).map_err(failed)?;
        let summary = format!("rule set {} is loaded and written to {}", wanted.id, wanted.file.display());
        Ok(bounded(TaskReport { summary, changes, ..TaskReport::default() }))
    }

    fn revert(&self, context: &TaskContext<'_>, undo: &serde_json::Value) -> Result<TaskReport, TaskError> {
        let wanted = Wanted::of(context)?;
        let former: Former = serde_json::from_value(undo.clone())
            .map_err(|e| TaskError::Declared(format!("what was noted cannot be read: {e}")))?;
        put_back(context, &wanted, &former)
    }
}

/// Puts what was noted back.
pub(super) fn put_back(
    context: &TaskContext<'_>,
    wanted: &Wanted<'_>,
    former: &Former,
) -> Result<TaskReport, TaskError> {
    let changes = wanted.put_back(context, former)?;
    let summary = if changes.is_empty() {
        "file and rules are as they were".to_owned()
    } else {
        format!("{} and the rules are as they were before the step", wanted.file.display())
    };
    Ok(TaskReport { summary, changes, ..TaskReport::default() })
}
