//! `service.restart`: restarts services in written order, and sees that they stay up. Row: Z09.
//!
//! One that does not run is started. What was restarted before a crash of the agent is not restarted again by the same
//! step. The way back brings up what ran before and stays down, and stops what did not run before.

use std::collections::BTreeMap;

use fleet_types::report::TaskReport;
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::contract::{Change, Leaves, Reversal, TaskContext, TaskError, TaskPlan};
use super::part::change;
use super::service_change::{Named, Verb, each, fit, is_up, noted, planned, put_back, summary};
use crate::host::UnitState;

/// The name of the note with what ran when the newest restart began.
const NOTE: &str = "service-restart.json";

/// The task.
pub(super) struct ServiceRestart;

/// When the units of one step were started before it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    /// Run, attempt, step and try.
    step: String,
    started: BTreeMap<String, Option<Timestamp>>,
}

impl Begun {
    /// What this step noted when it began: now, or before a crash.
    fn of(context: &TaskContext<'_>, services: &[(Named<'_>, UnitState)]) -> Result<Self, TaskError> {
        let id = context.step;
        let step = format!("{}/{}/{}/{}", id.run, id.attempt.0, id.step, id.try_number);
        let notes = context.host.notes();
        let unnoted = |e: crate::host::NoteError| {
            TaskError::failed(
                format!("the restart cannot be noted, and was not done: {e}"),
                TaskReport::default(),
            )
        };
        let known = notes.read(NOTE).map_err(unnoted)?;
        // A note that does not read is none of this step's: it wrote a whole one or none.
        let known = known.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        if let Some(known) = known.filter(|known| known.step == step) {
            return Ok(known);
        }
        let started = services.iter().map(|((_, s), state)| (s.unit.clone(), state.started)).collect();
        let begun = Self { step, started };
        notes.write(NOTE, &serde_json::to_vec(&begun).unwrap_or_default()).map_err(unnoted)?;
        Ok(begun)
    }

    /// Was it restarted since?
    fn is_done(&self, (_, service): Named<'_>, state: &UnitState) -> bool {
        let before = self.started.get(&service.unit).copied().flatten();
        is_up(state, service.expect)
            && matches!((before, state.started), (Some(then), Some(now)) if now > then)
    }
}

impl Change for ServiceRestart {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let services = fit(context, Verb::Restart)?;
        let changes = planned(Verb::Restart, &services);
        let summary = summary(Verb::Restart, &changes, &services);
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
        noted(context, Verb::Restart)
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let services = fit(context, Verb::Restart)?;
        let begun = Begun::of(context, &services)?;
        let (done, left): (Vec<_>, Vec<_>) =
            services.into_iter().partition(|(named, state)| begun.is_done(*named, state));
        let mut report = each(context, Verb::Restart, left)?;
        let before_crash = |((id, _), state): &(Named<'_>, UnitState)| {
            change(id.as_str(), "restarted", "active", state.activity.as_str())
        };
        report.changes.splice(0..0, done.iter().map(before_crash));
        report.summary = format!("{} services were restarted", report.changes.len());
        Ok(report)
    }

    fn revert(&self, context: &TaskContext<'_>, undo: &serde_json::Value) -> Result<TaskReport, TaskError> {
        put_back(context, undo, &[Verb::Stop, Verb::Start])
    }
}
