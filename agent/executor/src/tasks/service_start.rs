//! `service.start`: starts services in written order, and sees that they stay up. Rows: Z07, W03, W04, W05, W15.
//!
//! One that runs is left alone. The way back stops, last one first, those that did not run before, and no other.

use fleet_types::report::TaskReport;

use super::contract::{Change, Leaves, Reversal, TaskContext, TaskError, TaskPlan};
use super::service_change::{Named, Verb, each, fit, is_up, noted, planned, put_back, summary};
use crate::host::UnitState;

/// The task.
pub(super) struct ServiceStart;

fn down<'s, 'a>(services: &'s [(Named<'a>, UnitState)]) -> impl Iterator<Item = &'s (Named<'a>, UnitState)> {
    services.iter().filter(|((_, service), state)| !is_up(state, service.expect))
}

impl Change for ServiceStart {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let services = fit(context, Verb::Start)?;
        let changes = planned(Verb::Start, down(&services));
        let summary = summary(Verb::Start, &changes, &services);
        // What runs then depends on the steps before it.
        Ok(TaskPlan { summary, changes, moves: true, ..TaskPlan::default() })
    }

    fn reversal(&self) -> Reversal {
        Reversal::Stored
    }

    fn leaves(&self) -> Option<Leaves> {
        Some(Leaves::Up)
    }

    fn undo(&self, context: &TaskContext<'_>) -> Result<serde_json::Value, TaskError> {
        noted(context, Verb::Start)
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let services = fit(context, Verb::Start)?;
        each(context, Verb::Start, down(&services).cloned())
    }

    fn revert(&self, context: &TaskContext<'_>, undo: &serde_json::Value) -> Result<TaskReport, TaskError> {
        put_back(context, undo, &[Verb::Stop])
    }
}
