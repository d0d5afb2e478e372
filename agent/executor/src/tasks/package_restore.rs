//! The way back of an upgrade: the exact former packages, their configuration, marks and services; and that it is so.
//!
//! Doing it twice changes nothing the second time. It is never chosen by versions: what was noted comes back. Called by
//! `package.upgrade` (its stored undo) and `package.downgrade`.

use std::path::{Path, PathBuf};

use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;

use super::contract::{TaskContext, TaskError};
use super::package_note::{Note, beside, there};
use super::package_upgrade::{mend, rehearse, unfinished, unknown};
use super::packages::{changing, failed, plain, reported, steady};
use super::part::{bounded, change, problem};
use super::programs::{left, part};
use crate::host::{
    Activity, Direction, FileProblem, InstalledPackages, PackageChange, PackageError, PackageFault, SetAside,
    Standing,
};

/// Puts back what these notes say, the newest first.
pub(super) fn restore(context: &TaskContext<'_>, notes: &[Note]) -> Result<TaskReport, TaskError> {
    let mut report = TaskReport::default();
    let mut failures = Vec::new();
    for (index, note) in notes.iter().rev().enumerate() {
        packages(context, note, index, &mut report)?;
        // Each thing is put back that can be: what is left is one thing less for a person.
        failures.extend(files(context, note, &mut report));
        failures.extend(marks(context, note, index));
        failures.extend(units(context, note, &mut report));
    }
    if failures.is_empty() {
        report.summary = match report.changes.len() {
            0 => "the former packages are there already".to_owned(),
            _ => "the former packages, their configuration and services are back".to_owned(),
        };
        return Ok(bounded(report));
    }
    let message = format!("not put back: {}", failures.join("; "));
    Err(TaskError::failed(message, bounded(report)))
}

/// What has to change so that the noted former packages are there.
fn back(note: &Note, installed: &InstalledPackages) -> Vec<PackageChange> {
    let one = |noted: &PackageChange| {
        let now = there(installed, &noted.name);
        let direction = match (now, &noted.from) {
            (None, None) => return None,
            (Some((build, true)), Some(former)) if build == former => return None,
            (Some((build, _)), Some(former)) if build.version == former.version => Direction::Reinstalled,
            (Some(_), Some(_)) => Direction::Downgraded,
            (Some(_), None) => Direction::Removed,
            (None, Some(_)) => Direction::Added,
        };
        Some(PackageChange {
            name: noted.name.clone(),
            from: now.map(|(build, _)| build.clone()),
            to: noted.from.clone(),
            direction,
            origins: Vec::new(),
            security: false,
            archive_bytes: 0,
            installed_bytes: 0,
        })
    };
    note.changes.iter().filter_map(one).collect()
}

/// Puts the packages back and verifies it.
fn packages(
    context: &TaskContext<'_>,
    note: &Note,
    index: usize,
    report: &mut TaskReport,
) -> Result<(), TaskError> {
    let packages = context.host.packages();
    let take = |report: &mut TaskReport| std::mem::take(report);
    mend(context, packages, &format!("mend-{index}"), report);
    let installed = packages.installed(steady(context)).map_err(plain)?;
    let wanted = back(note, &installed);
    let mut error = None;
    if !wanted.is_empty() {
        rehearse(context, packages, &wanted)?;
        let changed = packages.change(&wanted, &part(context, &format!("back-{index}")), changing(context));
        if changed.is_err() {
            mend(context, packages, &format!("mend-after-{index}"), report);
        }
        error = changed.err();
    }
    let installed = packages.installed(steady(context)).map_err(|error| unknown(&error))?;
    // What came in anew goes with its configuration.
    let is_left = |change: &&PackageChange| {
        change.from.is_none()
            && !note.removed.contains(&change.name)
            && installed.get(&change.name).is_some_and(|known| known.standing == Standing::Removed)
    };
    let left: Vec<String> = note.changes.iter().filter(is_left).map(|change| change.name.clone()).collect();
    if !left.is_empty()
        && let Err(error) = packages.purge(&left, &part(context, &format!("purge-{index}")), steady(context))
    {
        return Err(failed(&error, take(report)));
    }
    let still = back(note, &installed);
    let done = |change: &&PackageChange| !still.iter().any(|one| one.name == change.name);
    report.changes.extend(wanted.iter().filter(done).map(reported));
    let wrong = unfinished(context, packages, report)?;
    if still.is_empty() && wrong == 0 {
        if let Some(error) = error {
            // Told, since a script of a package failed on the way.
            report.problems.push(problem(Severity::Medium, error.fault.code(), "packages", error.message));
        }
        return Ok(());
    }
    let names: Vec<String> = still.iter().map(by_hand).collect();
    let error = error.unwrap_or_else(|| {
        PackageError::new(PackageFault::Interrupted, "the former packages are not all back")
    });
    let message = format!("{}; still to be done: {}", error.message, names.join(", "));
    Err(failed(&PackageError { message, ..error }, take(report)))
}

fn by_hand(change: &PackageChange) -> String {
    match &change.to {
        Some(to) => format!("install {to}"),
        None => format!("remove {}", change.name),
    }
}

/// Puts configuration back as it was before the upgrade.
fn files(context: &TaskContext<'_>, note: &Note, report: &mut TaskReport) -> Vec<String> {
    let mut failures = Vec::new();
    let noted = |path: &PathBuf| note.files.iter().any(|(noted, _)| noted == path);
    let left = note.files.iter().flat_map(|(path, _)| beside(path)).filter(|path| !noted(path));
    let left: Vec<PathBuf> = left.collect();
    let all = note.files.iter().map(|(path, before)| (path, before.as_ref()));
    for (path, before) in all.chain(left.iter().map(|path| (path, None))) {
        match put_back(context, path, before) {
            Ok(None) => {}
            Ok(Some(done)) => {
                let after = if before.is_some() { "as before the upgrade" } else { "not there" };
                report.changes.push(change(
                    path.display().to_string(),
                    done,
                    "as the package left it",
                    after,
                ));
            }
            Err(why) => failures.push(why),
        }
    }
    failures
}

/// Puts one file back; none when it is as it was.
fn put_back(
    context: &TaskContext<'_>,
    path: &Path,
    before: Option<&SetAside>,
) -> Result<Option<&'static str>, String> {
    let packages = context.host.packages();
    let files = context.host.files();
    let Some(before) = before else {
        return match files.remove_file(path) {
            Ok(()) => Ok(Some("removed")),
            Err(error) if error.problem == FileProblem::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        };
    };
    // The content that is there is set aside too: whoever looks for it later finds it.
    let now = packages.set_aside(path).map_err(|e| e.to_string())?;
    let same = |now: &SetAside| {
        (now.sha256, now.mode, now.uid, now.gid) == (before.sha256, before.mode, before.uid, before.gid)
    };
    if now.as_ref().is_some_and(same) {
        return Ok(None);
    }
    packages.put_back(path, before).map(|()| Some("restored")).map_err(|e| e.to_string())
}

fn marks(context: &TaskContext<'_>, note: &Note, index: usize) -> Option<String> {
    let marked =
        context.host.packages().mark(&note.marks, &part(context, &format!("mark-{index}")), steady(context));
    marked.err().map(|error| format!("marks of packages: {}", error.message))
}

/// Starts what ran and stops what did not.
fn units(context: &TaskContext<'_>, note: &Note, report: &mut TaskReport) -> Vec<String> {
    let units = context.host.units();
    let mut failures = Vec::new();
    for (unit, ran) in &note.units {
        let now = match units.state(unit) {
            Ok(state) => state.activity,
            Err(error) => {
                failures.push(error.to_string());
                continue;
            }
        };
        let (done, word) = match (ran, now) {
            (true, Activity::Active)
            | (false, Activity::Inactive | Activity::Failed | Activity::NotFound) => {
                continue;
            }
            (true, _) => (units.start(unit, left(context)), "started"),
            (false, _) => (units.stop(unit, left(context)), "stopped"),
        };
        match done {
            Ok(()) => report.changes.push(change(
                unit,
                word,
                now.as_str(),
                if *ran { "active" } else { "inactive" },
            )),
            Err(error) => failures.push(error.to_string()),
        }
    }
    failures
}
