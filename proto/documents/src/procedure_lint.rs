//! Checks of a procedure: ids, parameters, references into its profile, time. Rules about single steps
//! are in `step_lint`.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_types::action::nearest;
use fleet_types::document::procedure::{Procedure, StepKind, UndoStep, With};
use fleet_types::document::profile::Profile;
use fleet_types::document::{Id, Key, Value};

use crate::known::Known;
use crate::profile_lint::{check_facts, check_procedure, unknown_document, unknown_id};
use crate::reporter::Reporter;
use crate::text_check::{did_you_mean, quoted};
use crate::walk::Reference;
use crate::{params_lint, step_lint};

pub(crate) fn check(
    reporter: &mut Reporter<'_>,
    procedure: &Procedure,
    known: &Known<'_>,
    references: &[Reference],
) {
    let profile = known.profiles.get(procedure.profile.as_str()).copied();
    match profile {
        Some(profile) => check_references(reporter, procedure, profile, references),
        None if known.complete => {
            unknown_document(
                reporter,
                "profile",
                "profile",
                procedure.profile.as_str(),
                known.profiles.keys().copied(),
            );
        }
        None => {}
    }
    if procedure.steps.is_empty() && !reporter.places.has("step") {
        reporter.error("name", "missing-key", "the procedure has no steps".to_owned(), "add a [[step]]");
    }
    check_ids(reporter, procedure);
    params_lint::declared(reporter, &procedure.params, "params", "");
    for name in procedure.params.keys() {
        if profile.is_some_and(|profile| profile.vars.contains_key(name)) {
            let message = format!("parameter \"{name}\" has the name of a variable of the profile");
            reporter.error(&format!("params/{name}"), "duplicate-id", message, "give it another name");
        }
    }
    check_conditions(reporter, procedure, profile);
    check_called(reporter, procedure, profile, known);
    check_time(reporter, procedure, known);
    step_lint::check(reporter, procedure, profile, known);
}

fn check_references(
    reporter: &mut Reporter<'_>,
    procedure: &Procedure,
    profile: &Profile,
    references: &[Reference],
) {
    for reference in references {
        let ids = profile.ids(reference.table);
        if !ids.contains(&reference.id.as_str()) {
            unknown_id(reporter, &reference.path, reference.table.as_str(), &reference.id, &ids);
        }
    }
    let owner = procedure.document.as_ref().and_then(|paper| paper.owner.as_ref());
    if let Some(owner) = owner
        && !profile.contacts.contains_key(owner)
    {
        let ids: Vec<&str> = profile.contacts.keys().map(Id::as_str).collect();
        unknown_id(reporter, "document/owner", "contact", owner.as_str(), &ids);
    }
}

/// A step, or an entry of the way back or of what runs last.
struct Part<'p> {
    path: String,
    id: &'p Id,
    uses: &'p str,
    with: &'p With,
}

/// All that a procedure may carry out; a manual step uses nothing.
fn parts(procedure: &Procedure) -> impl Iterator<Item = Part<'_>> {
    let steps = procedure.steps.iter().enumerate().map(|(n, step)| {
        let uses = step.uses.as_deref().unwrap_or_default();
        Part { path: format!("step/{n}"), id: &step.id, uses, with: &step.with }
    });
    let entries = [("rollback", &procedure.rollback), ("finally", &procedure.finally)];
    let entries = entries.into_iter().flat_map(|(list, entries)| {
        entries.iter().enumerate().map(move |(n, entry)| {
            let path = format!("{list}/{n}");
            Part { path, id: &entry.id, uses: &entry.uses, with: &entry.with }
        })
    });
    steps.chain(entries)
}

fn check_ids(reporter: &mut Reporter<'_>, procedure: &Procedure) {
    let mut seen = BTreeSet::new();
    for Part { path, id, .. } in parts(procedure) {
        if !seen.insert(id) {
            let message = format!("the id {} stands twice in this procedure", quoted(id.as_str()));
            let fix = "give each step and entry its own id";
            reporter.error(&format!("{path}/id"), "duplicate-id", message, fix);
        }
    }
    for (index, entry) in procedure.rollback.iter().enumerate() {
        if entry.undoes.is_empty() && !reporter.places.has(&format!("rollback/{index}/undoes")) {
            let message = format!("[[rollback]] {} has no \"undoes\"", quoted(entry.id.as_str()));
            reporter.error(
                &format!("rollback/{index}"),
                "undoes-unknown",
                message,
                "add undoes = [\"<step>\"]",
            );
        }
        check_undoes(reporter, procedure, entry, &format!("rollback/{index}"));
    }
    for (index, entry) in procedure.finally.iter().enumerate() {
        check_undoes(reporter, procedure, entry, &format!("finally/{index}"));
    }
}

fn check_undoes(reporter: &mut Reporter<'_>, procedure: &Procedure, entry: &UndoStep, path: &str) {
    for (index, id) in entry.undoes.iter().enumerate() {
        if procedure.step(id.as_str()).is_none() {
            let steps = procedure.steps.iter().map(|step| step.id.as_str());
            let otherwise = || "write the id of a step of this procedure".to_owned();
            let fix = did_you_mean(id.as_str(), steps, otherwise);
            let message = format!(
                "{} undoes {}, which is no step of this procedure",
                quoted(entry.id.as_str()),
                quoted(id.as_str())
            );
            reporter.error(&format!("{path}/undoes/{index}"), "undoes-unknown", message, fix);
        }
    }
}

/// Conditions name parameters and facts that exist.
fn check_conditions(reporter: &mut Reporter<'_>, procedure: &Procedure, profile: Option<&Profile>) {
    for (index, step) in procedure.steps.iter().enumerate() {
        let Some(when) = &step.when else { continue };
        if let Some(profile) = profile {
            check_facts(reporter, &format!("step/{index}/when"), when, profile);
        }
        for name in when.expr().params() {
            if !procedure.params.contains_key(name) {
                let names = procedure.params.keys().map(Key::as_str);
                let fix = nearest(name, names).map_or_else(
                    || "declare it in [params]".to_owned(),
                    |meant| format!("did you mean params.{meant}?"),
                );
                let message = format!(
                    "the condition of {} names the parameter {}, which is not declared",
                    quoted(step.id.as_str()),
                    quoted(name)
                );
                reporter.error(&format!("step/{index}/when"), "bad-condition", message, fix);
            }
        }
    }
}

/// Parameters given to commands, and procedures that are named.
fn check_called(
    reporter: &mut Reporter<'_>,
    procedure: &Procedure,
    profile: Option<&Profile>,
    known: &Known<'_>,
) {
    for Part { path, uses, with, .. } in parts(procedure) {
        let named = |key: &str| with.get(key).and_then(Value::as_str);
        if let (true, Some(name)) = (matches!(uses, "procedure.run" | "run.assert"), named("procedure")) {
            check_procedure(reporter, &format!("{path}/with/procedure"), name, known);
        }
        if let ("report.render", Some(profile), Some(report)) = (uses, profile, named("report"))
            && report != "run_summary"
            && !profile.reports.contains_key(report)
        {
            let ids: Vec<&str> = profile.reports.keys().map(Id::as_str).collect();
            unknown_id(reporter, &format!("{path}/with/report"), "report", report, &ids);
        }
        if let ("patch.assess", true, Some(policy)) = (uses, known.complete, named("policy")) {
            let message =
                format!("this build does not read rollout policies; {} was not looked for", quoted(policy));
            reporter.warn(&format!("{path}/with/policy"), "kind-not-read", message, "");
        }
        let specs = match (uses, profile) {
            ("procedure.run", _) => {
                named("procedure").and_then(|name| Some((&known.procedures.get(name)?.params, name)))
            }
            ("command.run", Some(profile)) => {
                named("command").and_then(|id| Some((&profile.commands.get(id)?.params, id)))
            }
            _ => None,
        };
        let Some((specs, name)) = specs else { continue };
        if known
            .procedures
            .get(name)
            .is_some_and(|called| uses == "procedure.run" && calls(called, procedure.name.as_str(), known, 0))
        {
            let message = format!("{} calls this procedure again", quoted(name));
            let fix = "procedures do not call in circles";
            reporter.error(&format!("{path}/with/procedure"), "unknown-document", message, fix);
        }
        let given = with.get("params").and_then(Value::as_table).into_iter().flatten();
        let given = given.map(|(name, value)| (name.as_str(), value));
        params_lint::given(reporter, specs, given, (&format!("{path}/with"), name), true);
    }
}

fn calls(procedure: &Procedure, name: &str, known: &Known<'_>, depth: u32) -> bool {
    // Sixteen deep is a circle that does not go through the first procedure.
    depth >= 16
        || procedure.name.as_str() == name
        || procedure.steps.iter().filter(|step| step.uses.as_deref() == Some("procedure.run")).any(|step| {
            let called = step
                .with
                .get("procedure")
                .and_then(Value::as_str)
                .and_then(|name| known.procedures.get(name));
            called.is_some_and(|called| calls(called, name, known, depth + 1))
        })
}

/// The limits of all steps and the longest `confirm_within` fit into the timeout.
fn check_time(reporter: &mut Reporter<'_>, procedure: &Procedure, known: &Known<'_>) {
    let steps: Duration = procedure
        .steps
        .iter()
        .filter(|step| step.kind != StepKind::Manual)
        .map(|step| known.time_limit(step))
        .sum();
    let guard = procedure
        .steps
        .iter()
        .filter_map(|step| Some(step.guard.as_ref()?.confirm_within.length()))
        .max()
        .unwrap_or_default();
    if steps + guard > procedure.timeout.length() {
        let message = format!(
            "the limits of the steps and the longest confirm_within are {} minutes, more than the timeout of {}",
            (steps + guard).as_secs().div_ceil(60),
            procedure.timeout
        );
        reporter.error(
            "timeout",
            "steps-over-timeout",
            message,
            "raise the timeout, or lower the limits of steps",
        );
    }
}
