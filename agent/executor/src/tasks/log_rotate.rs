//! `log.rotate`: rotates logs by the rules that `log.configure` put in place. Rows: Z12, W01, W07.
//!
//! The node's own logrotate does it, with its own state, so that this and the timer never rotate one log twice. Each log
//! that it says it rotated is looked at afterwards.

use std::path::{Path, PathBuf};

use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;

use super::args;
use super::contract::{Change, RetryKind, Reversal, TaskContext, TaskError, TaskPlan};
use super::log_rotation::{Rule, call, dry_run, due, errors, is_rooted, on_machine, rules};
use super::part::{bounded, change, number, problem, sample};
use super::programs;
use super::tuning_setting::text_file;
use crate::host::{Activity, Exit, FileKind, FileProblem, Purpose, Stat, UnitName};

/// Another logrotate holds the state (`logrotate(8)`, "EXIT STATUS").
const LOCKED: Exit = Exit::Status(3);
/// Where a root of its own has its state; a machine has its own.
const STATE: &str = "/var/lib/logrotate/status";

/// The task.
pub(super) struct LogRotate;

/// The options beside the rules.
fn options(context: &TaskContext<'_>, first: &str) -> Result<Vec<String>, TaskError> {
    let mut options = vec![first.to_owned()];
    if !args::flag(context, "only_due", true)? {
        options.push("-f".to_owned());
    }
    let files = context.host.files();
    if is_rooted(files) {
        options.extend(["-s".to_owned(), on_machine(files, Path::new(STATE)).display().to_string()]);
    }
    Ok(options)
}

/// Rules that are not in place as the profile has them.
fn out_of_place(context: &TaskContext<'_>, rules: &[Rule<'_>]) -> Result<Vec<String>, TaskError> {
    let mut out = Vec::new();
    for rule in rules {
        let there = text_file(context.host.files(), &rule.path)
            .map_err(|why| TaskError::Declared(format!("log {}: {why}", rule.id)))?;
        if there.as_deref() != Some(rule.content.as_str()) {
            out.push(rule.id.to_string());
        }
    }
    Ok(out)
}

fn paths<'r>(rules: &'r [Rule<'_>]) -> Vec<&'r Path> {
    rules.iter().map(|rule| rule.path.as_path()).collect()
}

fn first_rotated(path: &Path) -> String {
    format!("{}.1", path.display())
}

impl Change for LogRotate {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let rules = rules(context)?;
        let options = options(context, "-d")?;
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let argv = call(context, &options, &paths(&rules)).argv;
        let mut plan = TaskPlan { commands: vec![argv], ..TaskPlan::default() };
        let out = out_of_place(context, &rules)?;
        if !out.is_empty() {
            // An earlier step of the same procedure may put them in place.
            plan.summary =
                format!("what is due is not known before log.configure has written: {}", out.join(", "));
            return Ok(plan);
        }
        let outcome = dry_run(context, &options, &paths(&rules))
            .map_err(|error| programs::broken(&error, TaskReport::default()))?;
        for path in due(context.host.files(), &outcome.output) {
            let before =
                stat(context, &path)?.map_or_else(String::new, |stat| format!("{} bytes", stat.size));
            plan.changes.push(change(path.display().to_string(), "rotated", before, first_rotated(&path)));
        }
        plan.summary = format!("{} logs would be rotated", plan.changes.len());
        Ok(plan)
    }

    fn reversal(&self) -> Reversal {
        // Nothing is lost that the rule keeps.
        Reversal::Stays
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let rules = rules(context)?;
        let out = out_of_place(context, &rules)?;
        if !out.is_empty() {
            let message =
                format!("not in place as the profile has them: {}; run log.configure first", out.join(", "));
            return Err(TaskError::failed(message, TaskReport::default()));
        }
        let failed = |why: String| TaskError::failed(why, TaskReport::default());
        if is_rooted(context.host.files()) {
            let folder = Path::new(STATE).parent().unwrap_or(Path::new("/"));
            context.host.files().make_directories(folder, 0o755).map_err(|e| failed(e.to_string()))?;
        }
        let listed = context.host.clock().now();
        let mut before: Vec<(PathBuf, Stat)> = Vec::new();
        for glob in rules.iter().flat_map(|rule| &rule.logs) {
            let found = crate::host::walk(context.host.files(), glob).map_err(|e| failed(e.to_string()))?;
            let regular = found.into_iter().filter(|one| one.stat.kind == FileKind::Regular);
            before.extend(regular.map(|one| (one.declared, one.stat)));
        }
        let options = options(context, "-v")?;
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let name = UnitName::new(context.step, "logrotate");
        let outcome =
            programs::run(context, &call(context, &options, &paths(&rules)), Purpose::Effect(&name))
                .map_err(|error| programs::broken(&error, TaskReport::default()))?;
        let mut report = TaskReport { output_tail: programs::tail(&outcome.output), ..TaskReport::default() };
        // The program of an earlier life of the agent had ended by then: what is listed is what it left.
        let before = (outcome.started >= listed).then_some(before);
        for path in due(context.host.files(), &outcome.output) {
            rotated(context, before.as_deref(), &path, &mut report)?;
        }
        report.summary = format!("{} logs were rotated", report.changes.len());
        report.samples.push(sample("logs_rotated", "", number(report.changes.len() as u64), "count"));
        for complaint in errors(&outcome.output) {
            report.problems.push(problem(Severity::High, "rotation_failed", "logrotate", complaint));
        }
        tell(context, &rules, &mut report);
        let message = format!("logrotate: {}", outcome.exit);
        match outcome.exit {
            Exit::Status(0) if report.problems.is_empty() => Ok(bounded(report)),
            Exit::Status(0) => Err(TaskError::failed(first_problem(&report), bounded(report))),
            LOCKED => {
                let message = "another logrotate is at work on this node".to_owned();
                let retry = Some(RetryKind::LockBusy);
                Err(TaskError::Failed { message, report: Box::new(bounded(report)), retry })
            }
            // Ended half-way from outside: which logs it had come to only it knew.
            Exit::TimedOut | Exit::Cancelled => Err(TaskError::OutcomeUnknown {
                message: format!("{message}; nobody knows how far it came"),
                report: Box::new(bounded(report)),
                retry: None,
            }),
            _ => Err(TaskError::failed(format!("{message}; {}", first_problem(&report)), bounded(report))),
        }
    }
}

fn first_problem(report: &TaskReport) -> String {
    report.problems.first().map(|found| found.message.clone()).unwrap_or_default()
}

fn stat(context: &TaskContext<'_>, path: &Path) -> Result<Option<Stat>, TaskError> {
    match context.host.files().stat(path) {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if error.problem == FileProblem::NotFound => Ok(None),
        Err(error) => Err(TaskError::failed(error.to_string(), TaskReport::default())),
    }
}

/// Has the log given way to a new one, or to none? Where nobody saw it before, its first rotated file must be there.
fn rotated(
    context: &TaskContext<'_>,
    before: Option<&[(PathBuf, Stat)]>,
    path: &Path,
    report: &mut TaskReport,
) -> Result<(), TaskError> {
    let shown = path.display().to_string();
    let (done, was) = if let Some(before) = before {
        let Some((_, was)) = before.iter().find(|(known, _)| known == path) else { return Ok(()) };
        let same = stat(context, path)?.is_some_and(|now| (now.device, now.inode) == (was.device, was.inode));
        (!same, format!("{} bytes", was.size))
    } else {
        let plain = PathBuf::from(first_rotated(path));
        let packed = PathBuf::from(format!("{}.gz", plain.display()));
        (stat(context, &plain)?.is_some() || stat(context, &packed)?.is_some(), String::new())
    };
    if done {
        report.changes.push(change(shown, "rotated", was, first_rotated(path)));
    } else {
        let message = format!("{shown} is due, and was not rotated");
        report.problems.push(problem(Severity::High, "not_rotated", shown, message));
    }
    Ok(())
}

/// Tells units that their logs were rotated, where logrotate cannot.
fn tell(context: &TaskContext<'_>, rules: &[Rule<'_>], report: &mut TaskReport) {
    for rule in rules {
        let covers = |subject: &str| rule.logs.iter().any(|glob| glob.covers(Path::new(subject)));
        if !report.changes.iter().any(|change| covers(&change.subject)) {
            continue;
        }
        // One that does not run opens its logs when it starts.
        let runs = |unit: &&String| {
            context.host.units().state(unit).is_ok_and(|state| state.activity == Activity::Active)
        };
        for unit in rule.reload.iter().filter(runs) {
            if let Err(error) = context.host.units().reload(unit, programs::left(context)) {
                let message = format!("{unit} may still write into the rotated log: {error}");
                report.problems.push(problem(Severity::High, "reload_failed", rule.id.as_str(), message));
            }
        }
    }
}
