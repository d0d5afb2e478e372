//! `package.upgrade`: moves packages to exact versions, with all that they need. Rows: Z07, Z09, Z17, W03, F05.
//!
//! What changes is worked out and noted first, with all that the way back needs; where there is no way back nothing is
//! changed. Then exactly that is carried out, from archives on the node. A cancel does not end it half-way
//! (security-and-delivery §2.11); after an interruption what is installed says how far it came.

use std::path::PathBuf;

use fleet_types::report::{Change as ReportedChange, TaskReport};
use fleet_types::severity::Severity;

use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::deadline::Deadline;
use super::package_note::{Note, beside, check_consistent, prepare, there};
use super::package_restore::restore;
use super::packages::{changing, come_by, failed, finding, plain, reported, resolve, steady};
use super::part::{bounded, problem};
use super::programs::{part, wait_for_own};
use crate::facts::is_reboot_required;
use crate::host::{InstalledPackages, KeptFrom, PackageChange, PackageError, PackageFault, Packages};

/// The task.
pub(super) struct PackageUpgrade;

impl Change for PackageUpgrade {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        check_consistent(context)?;
        let changes = resolve(context)?;
        let packages = context.host.packages();
        let (mut missing, mut former) = (0, Vec::new());
        for change in &changes {
            if let Some(to) = &change.to
                && packages.kept(to).map_err(plain)?.is_none()
            {
                missing += 1;
            }
            if let Some(from) = &change.from {
                // Without an archive it is put together again from what is installed.
                former.push(packages.kept(from).map_err(plain)?.map_or(KeptFrom::Repacked, |kept| kept.from));
            }
        }
        let summary = if changes.is_empty() {
            "the packages are as they should be".to_owned()
        } else {
            let fetched = if missing == 0 {
                "all archives are kept on the node".to_owned()
            } else {
                format!("{missing} archives have to be fetched before (package.download)")
            };
            let back =
                if former.is_empty() { "nothing was there before".to_owned() } else { come_by(&former) };
            let pending = if is_reboot_required(context.host) == Some(true) {
                "; a reboot is pending from before"
            } else {
                ""
            };
            format!("{} packages change; {fetched}; the way back: {back}{pending}", changes.len())
        };
        Ok(TaskPlan { summary, changes: changes.iter().map(reported).collect(), ..TaskPlan::default() })
    }

    fn reversal(&self) -> Reversal {
        Reversal::Stored
    }

    fn undo(&self, context: &TaskContext<'_>) -> Result<serde_json::Value, TaskError> {
        prepare(context)?.written()
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let own = context.job.noted.iter().find(|noted| noted.step == context.step.step);
        let note = own.map_or_else(|| prepare(context), |own| Note::read(&own.undo))?;
        if context.job.resumed {
            wait_for_own(context)?;
        }
        carry_out(context, &note)
    }

    fn revert(&self, context: &TaskContext<'_>, undo: &serde_json::Value) -> Result<TaskReport, TaskError> {
        if context.job.resumed {
            wait_for_own(context)?;
        }
        restore(context, &[Note::read(undo)?])
    }
}

fn carry_out(context: &TaskContext<'_>, note: &Note) -> Result<TaskReport, TaskError> {
    let packages = context.host.packages();
    if let Err(halt) = Deadline::of(context).check() {
        return Err(halt.end(TaskReport::default()));
    }
    let mut report = TaskReport::default();
    if context.job.resumed {
        mend(context, packages, "mend", &mut report);
    }
    let installed = packages.installed(steady(context)).map_err(plain)?;
    let pending = note.pending(&installed);
    if pending.is_empty() {
        return end(context, packages, note, &installed, report, None);
    }
    check_consistent(context)?;
    if let Some(strayed) = note.strayed(&installed) {
        let message = format!("{strayed}; nothing was changed");
        return Err(plain(PackageError::new(PackageFault::Differs, message)));
    }
    rehearse(context, packages, &pending)?;
    let changed = packages.change(&pending, &part(context, "change"), changing(context));
    if changed.is_err() {
        mend(context, packages, "mend-after", &mut report);
    }
    let after = packages.installed(steady(context)).map_err(|error| unknown(&error))?;
    end(context, packages, note, &after, report, changed.err())
}

/// Would the change do what was noted, and nothing else?
pub(super) fn rehearse(
    context: &TaskContext<'_>,
    packages: &dyn Packages,
    wanted: &[PackageChange],
) -> Result<(), TaskError> {
    let would = packages.rehearse(wanted, steady(context)).map_err(plain)?;
    let same = |one: &PackageChange, other: &PackageChange| one.name == other.name && one.to == other.to;
    let more = would.iter().find(|would| !wanted.iter().any(|wanted| same(wanted, would)));
    let less = wanted.iter().find(|wanted| !would.iter().any(|would| same(wanted, would)));
    let message = match (more, less) {
        (None, None) => return Ok(()),
        (Some(more), _) => {
            format!("{} would be {} too, which was not planned", more.name, more.direction.as_str())
        }
        (None, Some(less)) => format!("{} would not be {}", less.name, less.direction.as_str()),
    };
    let message = format!("{message}; nothing was changed");
    Err(plain(PackageError::new(PackageFault::Differs, message)))
}

/// Finishes what was interrupted, where something was. What cannot be finished is told by what is found afterwards.
pub(super) fn mend(context: &TaskContext<'_>, packages: &dyn Packages, name: &str, report: &mut TaskReport) {
    let is_consistent = packages.audit(steady(context)).is_ok_and(|found| found.is_empty());
    if !is_consistent && let Err(error) = packages.repair(&part(context, name), steady(context)) {
        report.problems.push(finding(&error));
    }
}

/// After a change nothing is known without the database.
pub(super) fn unknown(error: &PackageError) -> TaskError {
    let report = TaskReport { problems: vec![finding(error)], ..TaskReport::default() };
    let message = format!("packages were changed, and how they stand cannot be seen: {}", error.message);
    TaskError::OutcomeUnknown { message, report: Box::new(report), retry: None }
}

/// What the database finds wrong, as problems; one that does not answer is unknown.
pub(super) fn unfinished(
    context: &TaskContext<'_>,
    packages: &dyn Packages,
    report: &mut TaskReport,
) -> Result<usize, TaskError> {
    let found = packages.audit(steady(context)).map_err(|error| unknown(&error))?;
    for one in &found {
        let mut found = problem(Severity::High, PackageFault::Unfinished.code(), "packages", one);
        PackageFault::Unfinished.remedy().clone_into(&mut found.remedy);
        report.problems.push(found);
    }
    Ok(found.len())
}

/// Judges by what is installed, and says it.
fn end(
    context: &TaskContext<'_>,
    packages: &dyn Packages,
    note: &Note,
    installed: &InstalledPackages,
    mut report: TaskReport,
    error: Option<PackageError>,
) -> Result<TaskReport, TaskError> {
    let pending = note.pending(installed);
    let done = note.changes.iter().filter(|change| !pending.contains(change));
    report.changes.extend(done.map(reported));
    report.changes.extend(pending.iter().filter_map(|change| half_done(change, installed)));
    let wrong = unfinished(context, packages, &mut report)?;
    if pending.is_empty() && wrong == 0 {
        if let Some(error) = error {
            // It ended badly and was finished afterwards.
            let mut found = finding(&error);
            found.severity = Severity::Medium;
            report.problems.push(found);
        }
        if let Err(error) = packages.mark(&note.marks, &part(context, "mark"), steady(context)) {
            return Err(failed(&error, report));
        }
        kept_config(context, note, &mut report);
        if !note.changes.is_empty() {
            still_old(context, &mut report);
        }
        report.summary = match note.changes.len() {
            0 => "the packages are as they should be".to_owned(),
            count => format!("{count} packages were changed as planned"),
        };
        return Ok(bounded(report));
    }
    // Holds count also for what is half-done.
    if let Err(error) = packages.mark(&note.marks, &part(context, "mark"), steady(context)) {
        report.problems.push(finding(&error));
    }
    let names: Vec<&str> = pending.iter().map(|change| change.name.as_str()).collect();
    let error = error.unwrap_or_else(|| {
        let message = format!("not as planned after the change: {}", names.join(", "));
        PackageError::new(PackageFault::Interrupted, message)
    });
    Err(failed(&error, report))
}

/// A change that came neither to its end nor to nothing.
fn half_done(change: &PackageChange, installed: &InstalledPackages) -> Option<ReportedChange> {
    let (build, is_whole) = there(installed, &change.name)?;
    if Some(build) == change.from.as_ref() && is_whole {
        return None;
    }
    let mut seen = reported(change);
    seen.after = if is_whole { build.version.clone() } else { format!("{}, unfinished", build.version) };
    Some(seen)
}

/// What of the node still runs as it was before: until a restart or a reboot.
fn still_old(context: &TaskContext<'_>, report: &mut TaskReport) {
    for old in context.host.system().running_old_files(context.host.files().root()) {
        let message = "it still runs files that were replaced";
        let mut found = problem(Severity::Medium, "running_old_files", old, message);
        "restart it".clone_into(&mut found.remedy);
        report.problems.push(found);
    }
    if is_reboot_required(context.host) == Some(true) {
        let message = "a package asks for a reboot";
        report.problems.push(problem(Severity::Medium, "reboot_required", "node", message));
    }
}

/// Configuration that a package brought and that lies beside the one in use, because somebody had changed that.
fn kept_config(context: &TaskContext<'_>, note: &Note, report: &mut TaskReport) {
    let noted = |path: &PathBuf| note.files.iter().any(|(noted, _)| noted == path);
    let new = note.files.iter().flat_map(|(path, _)| beside(path)).filter(|path| {
        path.extension().is_some_and(|extension| extension == "dpkg-dist")
            && !noted(path)
            && context.host.files().stat(path).is_ok()
    });
    for path in new {
        let message = "the package has a new version of a configuration file that was changed here; the present one stays";
        let mut found = problem(Severity::Medium, "config_kept", path.display().to_string(), message);
        "compare the two".clone_into(&mut found.remedy);
        report.problems.push(found);
    }
}
