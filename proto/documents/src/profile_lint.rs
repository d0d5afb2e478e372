//! Checks of a profile that need more than one of its tables.

use std::collections::BTreeMap;

use fleet_types::action::{Table, nearest};
use fleet_types::document::expr::{AlertRule, When};
use fleet_types::document::profile::{Command, Profile, RotateEvery, ServiceType};
use fleet_types::document::{Id, Key};
use fleet_types::facts;
use serde_json::Value as Json;

use crate::known::Known;
use crate::reporter::Reporter;
use crate::text_check::{did_you_mean, quoted};
use crate::walk::Reference;
use crate::{params_lint, threshold_lint};

/// Ids that are used must be declared. Works on the raw value, so that an object with a mistake in it
/// still counts as declared.
pub(crate) fn check_references(reporter: &mut Reporter<'_>, value: &Json, references: &[Reference]) {
    let declared = |table: &str| -> Vec<&str> {
        let objects = value.get(table).and_then(Json::as_object);
        objects.map(|objects| objects.keys().map(String::as_str).collect()).unwrap_or_default()
    };
    for reference in references {
        let ids = declared(reference.table.as_str());
        if !ids.contains(&reference.id.as_str()) {
            unknown_id(reporter, &reference.path, reference.table.as_str(), &reference.id, &ids);
        }
    }
    let owner = value.get("document").and_then(|paper| paper.get("owner")).and_then(Json::as_str);
    let contacts = declared("contact");
    if let Some(owner) = owner
        && !contacts.contains(&owner)
    {
        unknown_id(reporter, "document/owner", "contact", owner, &contacts);
    }
}

/// Reports an id that its table does not declare.
pub(crate) fn unknown_id(reporter: &mut Reporter<'_>, path: &str, table: &str, id: &str, ids: &[&str]) {
    let fix = did_you_mean(id, ids.iter().copied(), || match ids {
        [] => format!("the profile has no [{table}.*]"),
        _ => format!("declared: {}", ids.join(", ")),
    });
    reporter.error(path, "unknown-reference", format!("no [{table}.*] has the id {}", quoted(id)), fix);
}

pub(crate) fn check(reporter: &mut Reporter<'_>, profile: &Profile, known: &Known<'_>) {
    for (id, check) in &profile.checks {
        reads_only(reporter, profile, check.command.as_ref(), &format!("check/{id}/command"), "a check");
    }
    for (id, validator) in &profile.validators {
        let path = format!("validator/{id}/command");
        reads_only(reporter, profile, validator.command.as_ref(), &path, "a validator");
    }
    for (id, item) in &profile.hardening {
        let path = format!("hardening/{id}/command");
        reads_only(reporter, profile, item.command.as_ref(), &path, "a hardening item");
        if let Some(procedure) = &item.procedure {
            check_procedure(reporter, &format!("hardening/{id}/procedure"), procedure.as_str(), known);
        }
    }
    if let Some(security) = profile.status.as_ref().and_then(|status| status.security.as_ref()) {
        reads_only(reporter, profile, Some(&security.command), "status/security/command", "the status");
    }
    for (id, service) in &profile.services {
        let path = format!("service/{id}");
        if service.service_type == ServiceType::Timer && service.runs.is_none() {
            reporter.error(
                &path,
                "missing-key",
                format!("[service.{id}] is a timer and lacks \"runs\""),
                "add the unit it starts",
            );
        }
    }
    for (id, command) in &profile.commands {
        check_command(reporter, id, command);
    }
    for (id, backup) in &profile.backups {
        if backup.keep.days.is_none() && backup.keep.count.is_none() {
            let path = format!("backup/{id}/keep");
            reporter.error(
                &path,
                "missing-key",
                format!("[backup.{id}] keeps neither days nor a count"),
                "write keep = { days = 30 }",
            );
        }
        if backup.file_name.contains('/') {
            let path = format!("backup/{id}/file_name");
            reporter.error(
                &path,
                "bad-value",
                format!("the file name of [backup.{id}] holds a \"/\""),
                "put the folder into directory",
            );
        }
    }
    for (id, ruleset) in &profile.rulesets {
        if let Some(flaw) = ruleset.flaw() {
            let path = format!("ruleset/{id}/text");
            let fix = "write the whole rule set, as /etc/nftables.conf has it";
            reporter.error(&path, "bad-value", format!("[ruleset.{id}]: {flaw}"), fix);
        }
    }
    for (id, alert) in &profile.alerts {
        if let AlertRule::CheckFailed(check) = alert.when.rule()
            && !profile.checks.contains_key(check)
        {
            let ids = profile.ids(Table::Check);
            unknown_id(reporter, &format!("alert/{id}/when"), "check", check.as_str(), &ids);
        }
        if let Some(name) = alert.runbook.as_deref().and_then(|runbook| runbook.strip_prefix("procedure:")) {
            check_procedure(reporter, &format!("alert/{id}/runbook"), name, known);
        }
    }
    declared_facts(reporter, profile);
    threshold_lint::check(reporter, profile);
    archives(reporter, profile);
    retention(reporter, profile);
}

/// What the profile declares as facts, and the conditions that read facts.
fn declared_facts(reporter: &mut Reporter<'_>, profile: &Profile) {
    for (name, fact) in &profile.facts {
        let path = format!("fact/{name}");
        if fact.program.is_none() && fact.path.is_none() && !reporter.places.has(&format!("{path}/path")) {
            let message = format!("[fact.{name}] has neither a program nor a path");
            reporter.error(&path, "missing-key", message, "add program = \"…\" or path = \"/…\"");
        }
        if facts::known().any(|known| known == name.as_str()) {
            let message = format!("every node has a fact {name}");
            reporter.error(&path, "duplicate-id", message, "give this one another name");
        }
    }
    let backups = profile.backups.iter().map(|(id, b)| (format!("backup/{id}/when"), b.when.as_ref()));
    let databases = profile.databases.iter().map(|(id, d)| (format!("database/{id}/when"), d.when.as_ref()));
    for (path, when) in backups.chain(databases) {
        when.inspect(|when| check_facts(reporter, &path, when, profile));
    }
}

/// The facts of a condition are those of every node, or declared by the profile: another one would be a slip that
/// no node could ever make true.
pub(crate) fn check_facts(reporter: &mut Reporter<'_>, path: &str, when: &When, profile: &Profile) {
    let mut known: Vec<&str> = facts::known().collect();
    known.extend(profile.facts.keys().map(Key::as_str));
    for name in when.expr().facts().into_iter().filter(|name| !known.contains(name)) {
        let fix = nearest(name, known.iter().copied()).map_or_else(
            || format!("declare it: [fact.{name}] with a program or a path; known: {}", known.join(", ")),
            |meant| format!("did you mean facts.{meant}?"),
        );
        let message = format!("no node has a fact {}", quoted(name));
        reporter.error(path, "unknown-fact", message, fix);
    }
}

/// Archives of two backups, or of two runs of one, must not have the same name.
fn archives(reporter: &mut Reporter<'_>, profile: &Profile) {
    let mut seen: BTreeMap<(&str, &str), &Id> = BTreeMap::new();
    for (id, backup) in &profile.backups {
        let path = format!("backup/{id}/file_name");
        if let Some(other) = seen.insert((&backup.directory, &backup.file_name), id) {
            let message = format!("[backup.{id}] and [backup.{other}] write the same files");
            reporter.error(
                &path,
                "retention-conflict",
                message,
                "give one of them another file_name or directory",
            );
        }
        if !["{timestamp}", "{run.id}", "{job.id}"].iter().any(|name| backup.file_name.contains(name)) {
            let message = format!("two archives of [backup.{id}] may have the same name");
            reporter.error(&path, "bad-value", message, "put {timestamp} into file_name");
        }
    }
}

/// A command that runs where nothing may change must not change anything.
fn reads_only(reporter: &mut Reporter<'_>, profile: &Profile, command: Option<&Id>, path: &str, place: &str) {
    if let Some(id) = command
        && profile.commands.get(id).is_some_and(|command| command.changes)
    {
        let message = format!("{place} runs the command {}, which changes the node", quoted(id.as_str()));
        reporter.error(path, "changing-command", message, "use a command with changes = false");
    }
}

/// Programs that read commands from an argument after `-c`.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "ksh", "zsh", "busybox"];

fn check_command(reporter: &mut Reporter<'_>, id: &Id, command: &Command) {
    let path = format!("command/{id}");
    match command.argv.first() {
        None => reporter.error(
            &format!("{path}/argv"),
            "bad-value",
            format!("[command.{id}] has no program"),
            "write argv = [\"program\", …]",
        ),
        Some(program) if program.is_empty() || program.starts_with('-') => {
            let message = format!("{} is no program, in [command.{id}]", quoted(program));
            reporter.error(
                &format!("{path}/argv/0"),
                "bad-value",
                message,
                "write its name or absolute path",
            );
        }
        Some(program) if command.params.keys().any(|key| program.contains(&format!("{{{key}}}"))) => {
            let message = format!("the program of [command.{id}] is a parameter");
            reporter.error(
                &format!("{path}/argv/0"),
                "bad-value",
                message,
                "parameters may be arguments only; declare one command a program",
            );
        }
        Some(program) => {
            let name = program.rsplit('/').next().unwrap_or_default();
            let runs_text =
                |word: &String| word.starts_with('-') && !word.starts_with("--") && word.ends_with('c');
            if SHELLS.contains(&name) && command.argv[1..].iter().any(runs_text) {
                let message = format!("[command.{id}] hands a text to a shell, which splits and expands it");
                let fix = "write the program and its arguments, or keep the script in a file on the node";
                reporter.warn(&format!("{path}/argv"), "shell", message, fix);
            }
        }
    }
    params_lint::declared(
        reporter,
        &command.params,
        &format!("{path}/params"),
        &format!(" of [command.{id}]"),
    );
}

/// Reports a document that is not there.
pub(crate) fn unknown_document<'k>(
    reporter: &mut Reporter<'_>,
    path: &str,
    kind: &str,
    name: &str,
    names: impl Iterator<Item = &'k str>,
) {
    let fix = did_you_mean(name, names, || format!("apply the {kind} in the same set, or before"));
    reporter.error(path, "unknown-document", format!("no {kind} has the name {}", quoted(name)), fix);
}

/// A procedure that is named must be there, where all that are there are known.
pub(crate) fn check_procedure(reporter: &mut Reporter<'_>, path: &str, name: &str, known: &Known<'_>) {
    if known.complete && !known.procedures.contains_key(name) {
        unknown_document(reporter, path, "procedure", name, known.procedures.keys().copied());
    }
}

/// Two rules that keep the same files for different times, as far as their globs are the same text.
fn retention(reporter: &mut Reporter<'_>, profile: &Profile) {
    const DAY_MS: u128 = 86_400_000;
    let mut rotated: BTreeMap<&str, (&Id, u128)> = BTreeMap::new();
    for (id, log) in &profile.logs {
        let Some(rotate) = &log.rotate else { continue };
        let each = match rotate.every {
            RotateEvery::Hourly => DAY_MS / 24,
            RotateEvery::Daily => DAY_MS,
            RotateEvery::Weekly => 7 * DAY_MS,
        };
        for glob in &log.paths {
            rotated.insert(glob, (id, each * u128::from(rotate.keep)));
        }
    }
    let mut deleted: BTreeMap<&str, (&Id, u128)> = BTreeMap::new();
    for (id, log) in &profile.logs {
        let Some(delete) = &log.delete else { continue };
        let path = format!("log/{id}/delete");
        let after = delete.after.length().as_millis();
        let globs = if delete.paths.is_empty() { &log.paths } else { &delete.paths };
        for glob in globs {
            if let Some((other, keep)) = rotated.get(glob.as_str())
                && after < *keep
            {
                let message = format!(
                    "[log.{id}] deletes {} before [log.{other}] has kept them for its time",
                    quoted(glob)
                );
                reporter.warn(
                    &path,
                    "retention-conflict",
                    message,
                    "make both times the same, or exclude the files in one of them",
                );
            }
            if let Some((other, before)) = deleted.insert(glob, (id, after))
                && before != after
            {
                let message =
                    format!("[log.{id}] and [log.{other}] keep {} for different times", quoted(glob));
                reporter.warn(&path, "retention-conflict", message, "leave the files in one of them");
            }
        }
        if let Some(archive) = &log.archive
            && archive.after >= delete.after
        {
            let message = format!("[log.{id}] deletes files before it archives them");
            reporter.warn(&path, "retention-conflict", message, "archive earlier than you delete");
        }
    }
}
