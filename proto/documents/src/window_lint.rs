//! Whether the changing segments of a procedure can ever fit into a schedule's window.
//!
//! A segment is the steps between two waits for people or the controller; one that changes something
//! begins only if its limits and those of its way back end inside the window (reference/schedule.toml).

use std::time::Duration;

use fleet_types::action::{Action, Where};
use fleet_types::document::procedure::{Order, Procedure, Step, StepKind, UndoStep};
use fleet_types::document::profile::Profile;
use fleet_types::document::schedule::Schedule;

use crate::known::Known;
use crate::reporter::Reporter;
use crate::text_check::quoted;

pub(crate) fn check(
    reporter: &mut Reporter<'_>,
    schedule: &Schedule,
    procedure: &Procedure,
    known: &Known<'_>,
    path: &str,
) {
    let Some(window) = &schedule.window else { return };
    let profile = known.profiles.get(procedure.profile.as_str()).copied();
    let jitter = schedule.jitter.as_ref().map(fleet_types::time::Span::length).unwrap_or_default();
    for segment in segments(procedure, profile, known) {
        let Some(first) = segment.iter().find(|step| changes(step, profile, known)) else { continue };
        let needs = length(&segment, procedure, known) + jitter;
        if needs > window.length() {
            let message = format!(
                "from [[step]] {} on, {} needs up to {} minutes with its guard, its way back and the jitter; the window is {window}",
                quoted(first.id.as_str()),
                quoted(procedure.name.as_str()),
                needs.as_secs().div_ceil(60),
            );
            reporter.error(
                &format!("{path}/window"),
                "window-too-small",
                message,
                "widen the window, or lower the limits of steps",
            );
        }
    }
}

fn changes(step: &Step, profile: Option<&Profile>, known: &Known<'_>) -> bool {
    step.uses.as_deref().is_some_and(|uses| known.changes(profile, uses, &step.with) == Some(true))
}

/// Steps between two barriers. In lockstep order every step is a segment of its own.
fn segments<'p>(
    procedure: &'p Procedure,
    profile: Option<&Profile>,
    known: &Known<'_>,
) -> Vec<Vec<&'p Step>> {
    let mut segments = vec![Vec::new()];
    for (index, step) in procedure.steps.iter().enumerate() {
        let barrier = match step.uses.as_deref().and_then(Action::find) {
            _ if step.kind == StepKind::Manual => step.wait.unwrap_or_else(|| {
                procedure.steps[index..].iter().any(|later| changes(later, profile, known))
            }),
            Some(action) => action.runs_on == Where::Controller,
            None => false,
        };
        if barrier || procedure.order == Order::Lockstep {
            segments.push(Vec::new());
        }
        if let Some(segment) = segments.last_mut().filter(|_| !barrier && step.kind != StepKind::Manual) {
            segment.push(step);
        }
    }
    segments
}

/// The limits of the steps, the longest guard, and the entries of the way back that undo one of them.
fn length(segment: &[&Step], procedure: &Procedure, known: &Known<'_>) -> Duration {
    let steps: Duration = segment.iter().map(|step| known.time_limit(step)).sum();
    let guard = segment
        .iter()
        .filter_map(|step| Some(step.guard.as_ref()?.confirm_within.length()))
        .max()
        .unwrap_or_default();
    let undone = |entry: &&UndoStep| entry.undoes.iter().any(|id| segment.iter().any(|step| step.id == *id));
    let back: Duration = procedure.rollback.iter().filter(undone).map(UndoStep::time_limit).sum();
    steps + guard + back
}
