//! Lint rules about steps: guards, gates, the network after a stop, the way back
//! (reference/procedure.toml, head).

use std::collections::BTreeSet;

use fleet_types::action::{BUILT, MEANT_TO_STAY, UNDOES_ITSELF};
use fleet_types::document::Value;
use fleet_types::document::procedure::{OnFailure, Procedure, Step, StepKind};
use fleet_types::document::profile::Profile;

use crate::known::Known;
use crate::reporter::Reporter;
use crate::text_check::quoted;

pub(crate) fn check(
    reporter: &mut Reporter<'_>,
    procedure: &Procedure,
    profile: Option<&Profile>,
    known: &Known<'_>,
) {
    network_after_stop(reporter, procedure);
    upgrade_no_downgrade(reporter, procedure);
    for (index, step) in procedure.steps.iter().enumerate() {
        let path = format!("step/{index}");
        let title = format!("[[step]] {}", quoted(step.id.as_str()));
        if step.kind == StepKind::Manual {
            manual(reporter, step, &path, &title);
            continue;
        }
        let Some(uses) = step.uses.as_deref() else { continue };
        let changes = known.changes(profile, uses, &step.with);
        if changes == Some(true) && !procedure.changes {
            let message = format!("{title} changes the node, and the procedure says changes = false");
            reporter.error(&path, "changes-not-declared", message, "write changes = true at the top");
        }
        if step.kind == StepKind::Gate {
            if changes == Some(true) {
                let message = format!("{title} is a gate and changes the node");
                reporter.error(&path, "gate-changes", message, "make it kind = \"task\"; a gate only asks");
            }
            gate_cannot_fail(reporter, procedure, profile, step, &path, &title);
        }
        if step.guard.is_none() && known.touches_network(profile, uses, &step.with) {
            let message = format!("{title} can cut the node off and has no guard");
            reporter.error(&path, "guard-missing", message, "add guard = { confirm_within = \"10m\" }");
        }
    }
    nothing_undoes(reporter, procedure, profile, known);
}

/// A failure that rolls back promises that what was changed goes back. Where there are `[[rollback]]` entries these are the
/// whole way back, and what none of them names stays; else each action undoes itself that can.
fn nothing_undoes(
    reporter: &mut Reporter<'_>,
    procedure: &Procedure,
    profile: Option<&Profile>,
    known: &Known<'_>,
) {
    let rolls_back = |step: &Step| step.on_failure == OnFailure::Rollback;
    let (Some(first), Some(last)) =
        (procedure.steps.iter().position(rolls_back), procedure.steps.iter().rposition(rolls_back))
    else {
        return;
    };
    let left: Vec<String> = procedure.steps[..=last]
        .iter()
        .filter(|step| !procedure.rollback.iter().any(|entry| entry.undoes.contains(&step.id)))
        .filter_map(|step| Some((step, step.uses.as_deref()?)))
        .filter(|(_, uses)| BUILT.contains(uses) && !MEANT_TO_STAY.contains(uses))
        .filter(|(_, uses)| !procedure.rollback.is_empty() || !UNDOES_ITSELF.contains(uses))
        .filter(|(step, uses)| known.changes(profile, uses, &step.with) == Some(true))
        .map(|(step, uses)| format!("{} ({uses})", quoted(step.id.as_str())))
        .collect();
    if !left.is_empty() {
        let message =
            format!("a failure rolls back, and nothing undoes what these steps change: {}", left.join(", "));
        let fix = "name them in the undoes of a [[rollback]], or write on_failure = \"abort\"";
        reporter.warn(&format!("step/{first}/on_failure"), "nothing-undoes", message, fix);
    }
}

fn manual(reporter: &mut Reporter<'_>, step: &Step, path: &str, title: &str) {
    if step.on_failure == OnFailure::Rollback && step.wait == Some(false) {
        let message = format!("{title} does not wait, and would roll back long after the change");
        reporter.error(
            &format!("{path}/on_failure"),
            "rollback-on-nowait",
            message,
            "write on_failure = \"warn\" or \"abort\", or wait = true",
        );
    }
    if let (Some(expires), Some(deadline)) = (&step.expires, &step.deadline)
        && expires < deadline
        && step.wait != Some(false)
    {
        let message = format!("{title} expires after {expires}, before its deadline of {deadline}");
        reporter.error(
            &format!("{path}/expires"),
            "signoff-too-short",
            message,
            "let it expire no sooner than its deadline",
        );
    }
}

fn gate_cannot_fail(
    reporter: &mut Reporter<'_>,
    procedure: &Procedure,
    profile: Option<&Profile>,
    step: &Step,
    path: &str,
    title: &str,
) {
    if step.on_failure == OnFailure::Warn && !procedure.fail_if_warnings {
        let message = format!(
            "{title} is a gate with on_failure = \"warn\", and the procedure does not say fail_if_warnings"
        );
        reporter.error(
            &format!("{path}/on_failure"),
            "gate-cannot-fail",
            message,
            "write fail_if_warnings = true, or on_failure = \"abort\"",
        );
    }
    let all_checks = matches!(step.with.get("checks"), None | Some(Value::String(_)));
    if step.uses.as_deref() == Some("health.check")
        && all_checks
        && profile.is_some_and(|profile| profile.checks.is_empty())
    {
        let message = format!("{title} asks for all checks, and the profile has none");
        reporter.error(path, "gate-cannot-fail", message, "declare a [check.*] in the profile");
    }
}

/// Network use between a `service.stop` and the `service.start` of the same services.
fn network_after_stop(reporter: &mut Reporter<'_>, procedure: &Procedure) {
    let mut stopped: BTreeSet<&str> = BTreeSet::new();
    for (index, step) in procedure.steps.iter().enumerate() {
        let services = step.with.get("services").and_then(Value::as_strings).unwrap_or_default();
        match step.uses.as_deref() {
            Some("service.stop") => stopped.extend(services),
            Some("service.start" | "service.restart") => services.iter().for_each(|service| {
                stopped.remove(service);
            }),
            Some(uses) if !stopped.is_empty() => {
                let online = uses == "package.upgrade"
                    && step.with.get("offline").and_then(Value::as_bool) == Some(false);
                if online || matches!(uses, "package.refresh" | "package.download" | "package.list_updates") {
                    let names: Vec<&str> = stopped.iter().copied().collect();
                    let message = format!(
                        "[[step]] {} needs the network while {} is stopped",
                        quoted(step.id.as_str()),
                        names.join(", ")
                    );
                    reporter.error(
                        &format!("step/{index}"),
                        "network-after-stop",
                        message,
                        "fetch before you stop",
                    );
                }
            }
            _ => {}
        }
    }
}

/// An upgrade that a later failure rolls back needs an entry that takes the package back.
fn upgrade_no_downgrade(reporter: &mut Reporter<'_>, procedure: &Procedure) {
    for (index, step) in
        procedure.steps.iter().enumerate().filter(|(_, step)| step.uses.as_deref() == Some("package.upgrade"))
    {
        let rolls_back = procedure.steps[index..].iter().any(|later| later.on_failure == OnFailure::Rollback);
        let taken_back = procedure.rollback.iter().chain(&procedure.finally).any(|entry| {
            matches!(entry.uses.as_str(), "package.downgrade" | "snapshot.revert")
                && entry.undoes.contains(&step.id)
        });
        if rolls_back && !taken_back {
            let message = format!(
                "[[step]] {} upgrades a package, and the rollback does not take it back",
                quoted(step.id.as_str())
            );
            let fix = format!(
                "add a [[rollback]] with uses = \"package.downgrade\" and undoes = [\"{}\"]",
                step.id
            );
            reporter.error(&format!("step/{index}"), "upgrade-no-downgrade", message, fix);
        }
    }
}
