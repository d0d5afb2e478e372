//! What `service.start`, `service.stop` and `service.restart` share: what is refused before anything is touched, the
//! state noted before, and the way back to it. Never changes a unit that the step does not name. Called by these tasks.

use std::time::Duration;

use fleet_types::document::ids::Id;
use fleet_types::document::profile::{Service, ServiceExpect};
use fleet_types::report::{Change as ReportedChange, NOT_AVAILABLE, TaskReport};
use fleet_types::severity::Severity;
use serde::{Deserialize, Serialize};

use super::contract::{SERVICES, TaskContext, TaskError};
use super::deadline::Deadline;
use super::part::{bounded, change, problem};
use super::service_state::{SETTLE, names};
use super::{args, programs};
use crate::host::{Activity, UnitError, UnitState};

/// A service of the step.
pub(super) type Named<'a> = (&'a Id, &'a Service);

/// What is done with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Start,
    Stop,
    Restart,
}

impl Verb {
    /// Done, as a report says it.
    const fn done(self) -> &'static str {
        match self {
            Self::Start => "started",
            Self::Stop => "stopped",
            Self::Restart => "restarted",
        }
    }

    /// The code of a problem.
    const fn failed(self) -> &'static str {
        match self {
            Self::Start => "start_failed",
            Self::Stop => "stop_failed",
            Self::Restart => "restart_failed",
        }
    }
}

/// What a unit did before the step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Former {
    /// Id of the service.
    pub(super) id: String,
    /// Its unit.
    pub(super) unit: String,
    /// Did it run?
    pub(super) ran: bool,
}

/// The services of the step in written order, each fit for the verb; refuses by name before anything is touched.
///
/// A unit must be named by its own name, because local policy judged the name that stands in the profile. One that other
/// running units need is stopped together with them only when the step names them too: policy has not judged others.
pub(super) fn fit<'a>(
    context: &TaskContext<'a>,
    verb: Verb,
) -> Result<Vec<(Named<'a>, UnitState)>, TaskError> {
    let services = args::ids(context, SERVICES, &context.profile.services, false)?;
    let mut fit = Vec::with_capacity(services.len());
    let mut report = TaskReport::default();
    for (id, service) in &services {
        let mut refuse = |code: &str, message: String, remedy: &str| {
            let mut found = problem(Severity::High, code, id.as_str(), message);
            remedy.clone_into(&mut found.remedy);
            report.problems.push(found);
        };
        let unit = &service.unit;
        let asked = context.host.units().state(unit).and_then(|state| {
            if state.activity == Activity::NotFound {
                return Err(UnitError::NotFound(unit.clone()));
            }
            Ok((state, context.host.units().relations(unit)?))
        });
        let (state, relations) = match asked {
            Ok(asked) => asked,
            Err(error @ UnitError::NotFound(_)) => {
                refuse(
                    "unit_absent",
                    error.to_string(),
                    "install what brings it, or correct `unit` in the profile",
                );
                continue;
            }
            Err(error) => {
                refuse(NOT_AVAILABLE, error.to_string(), "look at the unit on the node");
                continue;
            }
        };
        if relations.name != *unit {
            let message = format!("{unit} is another name of {}", relations.name);
            refuse("unit_alias", message, "write the unit's own name into the profile");
        }
        if relations.masked && verb != Verb::Stop {
            refuse(
                "unit_masked",
                format!("{unit} is masked"),
                "systemctl unmask it on the node, if it may run",
            );
        }
        let named = |other: &String| services.iter().any(|(_, service)| service.unit == *other);
        let others: Vec<_> = relations.needed_by.into_iter().filter(|other| !named(other)).collect();
        if verb != Verb::Start && !others.is_empty() {
            let message = format!("{} need {unit} and would be stopped with it", others.join(", "));
            refuse("unit_needed", message, "name them in `services` of the step too");
        }
        fit.push(((*id, *service), state));
    }
    if report.problems.is_empty() {
        return Ok(fit);
    }
    let messages: Vec<_> =
        report.problems.iter().map(|p| format!("service {}: {}", p.subject, p.message)).collect();
    Err(TaskError::failed(format!("{}; nothing was touched", messages.join("; ")), bounded(report)))
}

/// Does it run, or is it on its way up or down?
pub(super) fn runs(state: &UnitState) -> bool {
    state.activity == Activity::Active || state.main_pid.is_some()
}

/// The states that a way back needs.
pub(super) fn noted(context: &TaskContext<'_>, verb: Verb) -> Result<serde_json::Value, TaskError> {
    let former: Vec<Former> = fit(context, verb)?
        .into_iter()
        .map(|((id, service), state)| Former {
            id: id.to_string(),
            unit: service.unit.clone(),
            ran: runs(&state),
        })
        .collect();
    serde_json::to_value(former).map_err(|e| TaskError::Declared(format!("the states cannot be noted: {e}")))
}

/// Does it to one unit within what is left of the step, and sees that it is done.
pub(super) fn carry_out(
    context: &TaskContext<'_>,
    verb: Verb,
    unit: &str,
    expect: ServiceExpect,
) -> Result<UnitState, UnitError> {
    let units = context.host.units();
    // At least a second, so that a unit's own answer is heard at the end of a step's time.
    let limit = programs::left(context).max(Duration::from_secs(1));
    match verb {
        Verb::Start => units.start(unit, limit)?,
        Verb::Stop => units.stop(unit, limit)?,
        Verb::Restart => units.restart(unit, limit)?,
    }
    if verb != Verb::Stop {
        context.host.clock().pause(SETTLE, context.cancel);
    }
    let state = units.state(unit)?;
    let done = match verb {
        Verb::Stop => !runs(&state),
        Verb::Start | Verb::Restart => is_up(&state, expect),
    };
    let seen = || match (&state.last_run, state.activity) {
        (Some(run), _) => format!("{} ({})", state.activity.as_str(), run.how),
        _ => state.activity.as_str().to_owned(),
    };
    let why = |seen: String| UnitError::Failed {
        unit: unit.to_owned(),
        why: format!("it was {}, and is {seen} {} s later", verb.done(), SETTLE.as_secs()),
    };
    if done { Ok(state) } else { Err(why(seen())) }
}

/// One that is meant to end by itself is up when it ended well.
pub(super) fn is_up(state: &UnitState, expect: ServiceExpect) -> bool {
    let ended_well = || state.last_run.as_ref().is_some_and(|run| run.success);
    state.activity == Activity::Active
        || (expect == ServiceExpect::Inactive && state.activity == Activity::Inactive && ended_well())
}

/// Does it to each, in this order; ends at the first that fails, with what was done until then.
pub(super) fn each<'a>(
    context: &TaskContext<'_>,
    verb: Verb,
    services: impl IntoIterator<Item = (Named<'a>, UnitState)>,
) -> Result<TaskReport, TaskError> {
    let mut report = TaskReport::default();
    for ((id, service), before) in services {
        if let Err(halt) = Deadline::of(context).check() {
            summarise(&mut report, verb);
            return Err(halt.end(report));
        }
        match carry_out(context, verb, &service.unit, service.expect) {
            Ok(after) => report.changes.push(change(
                id.as_str(),
                verb.done(),
                before.activity.as_str(),
                after.activity.as_str(),
            )),
            Err(error) => {
                let mut found = problem(Severity::High, verb.failed(), id.as_str(), error.to_string());
                found.remedy = format!("look at the log of {}", service.unit);
                report.problems.push(found);
                return Err(TaskError::failed(format!("service {id}: {error}"), bounded(report)));
            }
        }
    }
    summarise(&mut report, verb);
    Ok(bounded(report))
}

fn summarise(report: &mut TaskReport, verb: Verb) {
    report.summary = match report.changes.len() {
        0 => format!("nothing had to be {}", verb.done()),
        count => format!("{count} services were {}", verb.done()),
    };
}

/// What `each` would report.
pub(super) fn planned<'a>(
    verb: Verb,
    services: impl IntoIterator<Item = &'a (Named<'a>, UnitState)>,
) -> Vec<ReportedChange> {
    let after = if verb == Verb::Stop { Activity::Inactive } else { Activity::Active };
    let one = |((id, _), before): &(Named<'_>, UnitState)| {
        change(id.as_str(), verb.done(), before.activity.as_str(), after.as_str())
    };
    services.into_iter().map(one).collect()
}

/// Puts units back as they were noted: stops those that did not run, last one first, then starts those that did, in
/// order; `verbs` says which of the two the step can have caused. One that fails keeps none of the others.
pub(super) fn put_back(
    context: &TaskContext<'_>,
    undo: &serde_json::Value,
    verbs: &[Verb],
) -> Result<TaskReport, TaskError> {
    let former: Vec<Former> = serde_json::from_value(undo.clone())
        .map_err(|e| TaskError::Declared(format!("the states noted before do not read: {e}")))?;
    let mut report = TaskReport::default();
    let mut failed: Vec<&Former> = Vec::new();
    for verb in verbs {
        let mut wanted: Vec<&Former> =
            former.iter().filter(|one| one.ran == (*verb == Verb::Start)).collect();
        if *verb == Verb::Stop {
            wanted.reverse();
        }
        for one in wanted {
            let state = context.host.units().state(&one.unit);
            let before = state.as_ref().map_or("unknown", |state| state.activity.as_str());
            // What cannot be asked is tried: a unit left as the step made it would be worse.
            if state.as_ref().is_ok_and(|state| runs(state) == one.ran || absent(state, *verb)) {
                continue;
            }
            match carry_out(context, *verb, &one.unit, ServiceExpect::Active) {
                Ok(after) => {
                    report.changes.push(change(&one.id, verb.done(), before, after.activity.as_str()));
                }
                Err(error) => {
                    let mut found = problem(Severity::Critical, verb.failed(), &one.id, error.to_string());
                    let word = if *verb == Verb::Stop { "stop" } else { "start" };
                    found.remedy = format!("systemctl {word} {}", one.unit);
                    report.problems.push(found);
                    failed.push(one);
                }
            }
        }
    }
    if failed.is_empty() {
        report.summary = format!("{} services were put back", report.changes.len());
        return Ok(bounded(report));
    }
    let ids: Vec<_> = failed.iter().map(|one| one.id.as_str()).collect();
    Err(TaskError::failed(format!("not as before: {}", ids.join(", ")), bounded(report)))
}

/// Nothing runs where nothing is installed.
fn absent(state: &UnitState, verb: Verb) -> bool {
    verb == Verb::Stop && state.activity == Activity::NotFound
}

/// The services which did not run when this undo of `service.start` or `service.restart` was noted. One that does not read
/// names none: the way back says so when it needs it.
pub fn that_did_not_run(undo: &serde_json::Value) -> Vec<String> {
    let former: Vec<Former> = serde_json::from_value(undo.clone()).unwrap_or_default();
    former.into_iter().filter(|one| !one.ran).map(|one| one.id).collect()
}

/// A plan's summary.
pub(super) fn summary(verb: Verb, changes: &[ReportedChange], services: &[(Named<'_>, UnitState)]) -> String {
    let all = names(services.iter().map(|((id, _), _)| *id));
    format!("{} of {} services would be {}: {all}", changes.len(), services.len(), verb.done())
}
