//! `tuning.revert`: puts back what `tuning.apply` changed. Rows: Z14, Z15.
//!
//! In the way back of a job it puts back what that job changed, and in any other job what was there before the node was
//! tuned. A tuning that was never applied here is left alone.

use fleet_types::document::ids::Id;
use fleet_types::report::TaskReport;

use super::args;
use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::tuning_apply::ended;
use super::tuning_note::{Note, PutBack};
use super::tuning_setting::Setting;

/// The task.
pub(super) struct TuningRevert;

/// The tunings of the step in order, with their notes.
fn noted<'a>(context: &TaskContext<'a>) -> Result<Vec<(&'a Id, Note)>, TaskError> {
    let named = args::ids(context, "tuning", &context.profile.tunings, false)?;
    named.into_iter().map(|(id, _)| Ok((id, Note::load(context, id.as_str())?))).collect()
}

fn former<'n>(context: &TaskContext<'_>, note: &'n Note) -> &'n [Setting] {
    note.of_this_job(context).unwrap_or_else(|| note.original())
}

impl Change for TuningRevert {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let mut plan = TaskPlan::default();
        for (id, note) in noted(context)?.iter().rev() {
            for setting in former(context, note).iter().rev() {
                let now = setting.now(context);
                let now =
                    now.map_err(|why| TaskError::Declared(format!("tuning {id}: {}: {why}", setting.name)))?;
                if !setting.is(now.value.as_deref()) && !setting.is_gone(now.value.as_deref()) {
                    plan.changes.push(setting.change(now.value.as_deref()));
                }
            }
        }
        plan.summary = format!("{} settings would be put back", plan.changes.len());
        Ok(plan)
    }

    fn reversal(&self) -> Reversal {
        // It is the undo.
        Reversal::None
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let mut done = PutBack::default();
        for (id, note) in noted(context)?.into_iter().rev() {
            done.all(context, id.as_str(), former(context, &note));
            note.end(context, id.as_str())?;
        }
        ended(done)
    }
}
