//! `service.stop`: stops services, the last one of the list first, and sees that they are down. Rows: Z07, W03, W04, W05,
//! W15.
//!
//! One that does not run is left alone. The way back starts, in written order, those that ran before, and no other.

use fleet_types::report::TaskReport;

use super::contract::{Change, Leaves, Reversal, TaskContext, TaskError, TaskPlan};
use super::service_change::{Verb, carry_out, each, fit, noted, planned, put_back, runs, summary};
use crate::host::Activity;

/// The task.
pub(super) struct ServiceStop;

/// Stops the services of the step whether they run or not, the last one first: after a start of the machine one may be about
/// to be started, and its stop takes that back.
pub fn stop_services(context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
    each(context, Verb::Stop, fit(context, Verb::Stop)?.into_iter().rev())
}

impl Change for ServiceStop {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let services = fit(context, Verb::Stop)?;
        let changes = planned(Verb::Stop, services.iter().rev().filter(|(_, state)| runs(state)));
        let summary = summary(Verb::Stop, &changes, &services);
        // What runs then depends on the steps before it.
        Ok(TaskPlan { summary, changes, moves: true, ..TaskPlan::default() })
    }

    fn reversal(&self) -> Reversal {
        Reversal::Stored
    }

    fn leaves(&self) -> Option<Leaves> {
        Some(Leaves::Down)
    }

    fn undo(&self, context: &TaskContext<'_>) -> Result<serde_json::Value, TaskError> {
        noted(context, Verb::Stop)
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let services = fit(context, Verb::Stop)?;
        for ((id, service), state) in services.iter().filter(|(_, state)| state.activity == Activity::Failed)
        {
            // One that failed may be about to be started again by systemd; where it is not, this does nothing.
            if !runs(state) {
                carry_out(context, Verb::Stop, &service.unit, service.expect)
                    .map_err(|e| TaskError::failed(format!("service {id}: {e}"), TaskReport::default()))?;
            }
        }
        each(context, Verb::Stop, services.into_iter().rev().filter(|(_, state)| runs(state)))
    }

    fn revert(&self, context: &TaskContext<'_>, undo: &serde_json::Value) -> Result<TaskReport, TaskError> {
        put_back(context, undo, &[Verb::Start])
    }
}
