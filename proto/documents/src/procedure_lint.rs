//! Checks of a procedure: ids, parameters, references into its profile, time. Rules about single steps
//! are in `step_lint`.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_types::action::nearest;
use fleet_types::document::Value;
use fleet_types::document::procedure::{Procedure, StepKind, UndoStep};
use fleet_types::document::profile::Profile;

use crate::known::{Known, declared};
use crate::profile_lint::{check_facts, unknown_document, unknown_id};
use crate::reporter::Reporter;
use crate::step_lint;
use crate::text_check::quoted;
use crate::walk::Reference;

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
    for (name, spec) in &procedure.params {
        if let Err(error) = spec.check_declaration() {
            reporter.error(
                &format!("params/{name}"),
                "bad-parameter",
                format!("parameter \"{name}\": {error}"),
                "",
            );
        }
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
        let ids = declared(profile, reference.table);
        if !ids.contains(&reference.id.as_str()) {
            unknown_id(reporter, &reference.path, reference.table.as_str(), &reference.id, &ids);
        }
    }
    let owner = procedure.document.as_ref().and_then(|paper| paper.owner.as_ref());
    if let Some(owner) = owner
        && !profile.contacts.contains_key(owner)
    {
        let ids: Vec<&str> = profile.contacts.keys().map(fleet_types::document::Id::as_str).collect();
        unknown_id(reporter, "document/owner", "contact", owner.as_str(), &ids);
    }
}

fn check_ids(reporter: &mut Reporter<'_>, procedure: &Procedure) {
    let mut seen = BTreeSet::new();
    let all = (procedure
        .steps
        .iter()
        .map(|step| &step.id)
        .enumerate()
        .map(|(i, id)| (format!("step/{i}/id"), id)))
    .chain(procedure.rollback.iter().enumerate().map(|(i, entry)| (format!("rollback/{i}/id"), &entry.id)))
    .chain(procedure.finally.iter().enumerate().map(|(i, entry)| (format!("finally/{i}/id"), &entry.id)));
    for (path, id) in all {
        if !seen.insert(id) {
            let message = format!("the id {} stands twice in this procedure", quoted(id.as_str()));
            reporter.error(&path, "duplicate-id", message, "give each step and entry its own id");
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
            let fix = nearest(id.as_str(), steps).map_or_else(
                || "write the id of a step of this procedure".to_owned(),
                |meant| format!("did you mean \"{meant}\"?"),
            );
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
                let names = procedure.params.keys().map(fleet_types::document::Key::as_str);
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
    let steps = procedure
        .steps
        .iter()
        .enumerate()
        .filter_map(|(i, s)| Some((format!("step/{i}"), s.uses.as_deref()?, &s.with)));
    let undo = (procedure
        .rollback
        .iter()
        .enumerate()
        .map(|(i, e)| (format!("rollback/{i}"), e.uses.as_str(), &e.with)))
    .chain(
        procedure.finally.iter().enumerate().map(|(i, e)| (format!("finally/{i}"), e.uses.as_str(), &e.with)),
    );
    for (path, uses, with) in steps.chain(undo) {
        let named = |key: &str| with.get(key).and_then(Value::as_str);
        if let (true, Some(name)) = (matches!(uses, "procedure.run" | "run.assert"), named("procedure"))
            && known.complete
            && !known.procedures.contains_key(name)
        {
            unknown_document(
                reporter,
                &format!("{path}/with/procedure"),
                "procedure",
                name,
                known.procedures.keys().copied(),
            );
        }
        if let ("report.render", Some(profile), Some(report)) = (uses, profile, named("report"))
            && report != "run_summary"
            && !profile.reports.contains_key(report)
        {
            let ids: Vec<&str> = profile.reports.keys().map(fleet_types::document::Id::as_str).collect();
            unknown_id(reporter, &format!("{path}/with/report"), "report", report, &ids);
        }
        if let ("patch.assess", true, Some(policy)) = (uses, known.complete, named("policy")) {
            let message =
                format!("this build does not read rollout policies; {} was not looked for", quoted(policy));
            reporter.warn(&format!("{path}/with/policy"), "kind-not-read", message, "");
        }
        if uses == "procedure.run" {
            let called = named("procedure").and_then(|name| known.procedures.get(name));
            if let Some(called) = called
                && calls(called, procedure.name.as_str(), known, 0)
            {
                let message = format!("{} calls this procedure again", quoted(called.name.as_str()));
                reporter.error(
                    &format!("{path}/with/procedure"),
                    "unknown-document",
                    message,
                    "procedures do not call in circles",
                );
            }
            if let Some(called) = called {
                check_params(reporter, &called.params, with.get("params"), &path, called.name.as_str());
            }
        }
        if let ("command.run", Some(profile)) = (uses, profile)
            && let Some(id) = named("command")
            && let Some(command) = profile.commands.get(id)
        {
            check_params(reporter, &command.params, with.get("params"), &path, id);
        }
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

fn check_params(
    reporter: &mut Reporter<'_>,
    declared: &std::collections::BTreeMap<fleet_types::document::Key, fleet_types::document::ParamSpec>,
    given: Option<&Value>,
    path: &str,
    of: &str,
) {
    let empty = std::collections::BTreeMap::new();
    let given = given.and_then(Value::as_table).unwrap_or(&empty);
    for (name, value) in given {
        let at = format!("{path}/with/params/{name}");
        match declared.get(name.as_str()) {
            None => {
                let names = declared.keys().map(fleet_types::document::Key::as_str);
                let fix = nearest(name, names)
                    .map_or_else(String::new, |meant| format!("did you mean \"{meant}\"?"));
                reporter.error(
                    &at,
                    "unknown-parameter",
                    format!("{} has no parameter {}", quoted(of), quoted(name)),
                    fix,
                );
            }
            // A placeholder gets its value when the run is made, and is checked then.
            Some(_) if value.as_str().is_some_and(|text| text.contains('{')) => {}
            Some(spec) => {
                if let Err(error) = spec.check(value) {
                    reporter.error(
                        &at,
                        "bad-parameter",
                        format!("parameter {} of {}: {error}", quoted(name), quoted(of)),
                        "",
                    );
                }
            }
        }
    }
    // Outside of a dry run a parameter without a value has no place to come from: the profile is signed.
    for (name, spec) in declared {
        if spec.default.is_none() && !given.contains_key(name.as_str()) {
            let message = format!("{} needs the parameter \"{name}\"", quoted(of));
            let fix = format!("add params = {{ {name} = … }} ({})", spec.param_type.as_str());
            if spec.required {
                reporter.error(&format!("{path}/with"), "missing-parameter", message, fix);
            }
        }
    }
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
