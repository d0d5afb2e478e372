//! Which packages a step means, what would change, and how a failure is told. Shared by the tasks on packages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use fleet_types::document::ids::Id;
use fleet_types::document::profile::{Package, PackageManager};
use fleet_types::report::{Change as ReportedChange, Problem, TaskReport};
use fleet_types::severity::Severity;

use super::args;
use super::contract::{CancelFlag, RetryKind, TaskContext, TaskError};
use super::part::{bounded, change, problem};
use crate::host::{
    InstalledPackages, KeptFrom, PackageChange, PackageError, PackageFault, PackageWork, Packages, Wanted,
};

/// The name that stands for all packages but those on hold.
const ALL: &str = "*";
/// The origin that stands for the node's own distribution.
const DISTRIBUTION: &str = "distribution";

/// Time to finish what a change left, and to look at the outcome.
const JUDGING: Duration = Duration::from_mins(1);

/// The work of this step.
pub(super) fn work<'a>(context: &'a TaskContext<'a>) -> PackageWork<'a> {
    PackageWork {
        step: context.step,
        output: context.output,
        cancel: context.cancel,
        until: context.deadline,
    }
}

/// Work that is not ended by a cancel: a change of packages, and what is asked about it afterwards
/// (security-and-delivery §2.11).
pub(super) fn steady<'a>(context: &'a TaskContext<'a>) -> PackageWork<'a> {
    static NEVER: LazyLock<CancelFlag> = LazyLock::new(CancelFlag::default);
    PackageWork { cancel: &NEVER, ..work(context) }
}

/// The same for the change itself: it ends so long before the step that there is time to see how it ended.
pub(super) fn changing<'a>(context: &'a TaskContext<'a>) -> PackageWork<'a> {
    let left = context.deadline.saturating_duration_since(context.host.clock().instant());
    let until = context.deadline.checked_sub(JUDGING.min(left / 5)).unwrap_or(context.deadline);
    PackageWork { until, ..steady(context) }
}

/// The packages that a step names.
pub(super) fn declared<'a>(context: &TaskContext<'a>) -> Result<Vec<(&'a Id, &'a Package)>, TaskError> {
    let packages = args::ids(context, "packages", &context.profile.packages, false)?;
    match packages.iter().find(|(_, package)| package.manager != PackageManager::Apt) {
        Some((id, _)) => Err(TaskError::Declared(format!(
            "package {id}: this build handles packages of the node's distribution (apt) alone"
        ))),
        None => Ok(packages),
    }
}

/// Does a change belong to a package that the step names?
pub(super) fn is_meant(declared: &[(&Id, &Package)], change: &PackageChange) -> bool {
    declared.iter().any(|(_, package)| package.name == change.name || package.name == ALL)
}

/// What would change, by the lists on the node; held against the profile and the owner's rules.
pub(super) fn resolve(context: &TaskContext<'_>) -> Result<Vec<PackageChange>, TaskError> {
    let declared = declared(context)?;
    let packages = context.host.packages();
    let version = args::text(context, "version")?;
    let mut wanted: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (id, package) in &declared {
        if package.name == ALL {
            if version.is_some() {
                let message = format!("package {id} means many packages, which have no version in common");
                return Err(TaskError::Declared(message));
            }
            wanted.extend(updates(context, packages, package)?);
        }
    }
    let named = declared.iter().filter(|(_, package)| package.name != ALL);
    wanted.extend(named.map(|(_, package)| (package.name.clone(), version.map(str::to_owned))));
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let installed = packages.installed(work(context)).map_err(plain)?;
    let changes =
        packages.resolve(&Wanted::Named(wanted.into_iter().collect()), work(context)).map_err(plain)?;
    check_holds(&declared, &installed, &changes)?;
    for (id, package) in declared.iter().filter(|(_, package)| package.name != ALL) {
        let mut own = changes.iter().filter(|change| change.name == package.name);
        if let Some(change) = own.find(|change| !is_of(context, package, change)) {
            let message = format!(
                "package {id}: {} is of {}, the profile asks for {}",
                change.name,
                origins(change),
                package.origin.as_deref().unwrap_or_default()
            );
            return Err(TaskError::Declared(message));
        }
    }
    match context.job.packages.against(&changes) {
        Some(refusal) => Err(TaskError::Declared(refusal.reason())),
        None => Ok(changes),
    }
}

/// What `*` means: everything newer that is of the package's origin and that no other package of the profile holds.
fn updates(
    context: &TaskContext<'_>,
    packages: &dyn Packages,
    package: &Package,
) -> Result<BTreeMap<String, Option<String>>, TaskError> {
    let held: BTreeSet<&str> =
        context.profile.packages.values().filter(|one| one.hold).map(|one| one.name.as_str()).collect();
    let changes = packages.resolve(&Wanted::AllUpdates, work(context)).map_err(plain)?;
    let meant = changes.into_iter().filter(|change| {
        // What others need comes with them.
        change.from.is_some() && !held.contains(change.name.as_str()) && is_of(context, package, change)
    });
    Ok(meant.map(|change| (change.name, change.to.map(|to| to.version))).collect())
}

/// Is a change published by whom the profile asks for?
fn is_of(context: &TaskContext<'_>, package: &Package, change: &PackageChange) -> bool {
    match package.origin.as_deref() {
        None => true,
        // Distributions publish under their name: `ID=debian` of os-release(5) is `Origin: Debian`.
        Some(DISTRIBUTION) => change.origins.iter().any(|of| of.eq_ignore_ascii_case(&context.facts.os)),
        Some(origin) => change.origins.iter().any(|of| of == origin),
    }
}

/// A hold of the node counts, unless the profile says that this very package is on hold and moved by its procedure.
fn check_holds(
    declared: &[(&Id, &Package)],
    installed: &InstalledPackages,
    changes: &[PackageChange],
) -> Result<(), TaskError> {
    let may = |name: &str| declared.iter().any(|(_, package)| package.hold && package.name == name);
    let held = |change: &&PackageChange| {
        installed.get(&change.name).is_some_and(|known| known.held) && !may(&change.name)
    };
    match changes.iter().find(held) {
        Some(change) => {
            let message = format!("{} is on hold on this node", change.name);
            Err(plain(PackageError::new(PackageFault::Held, message)))
        }
        None => Ok(()),
    }
}

/// Who publishes the new build, in words.
pub(super) fn origins(change: &PackageChange) -> String {
    if change.origins.is_empty() { "an unknown origin".to_owned() } else { change.origins.join(", ") }
}

/// A change as it stands in plans and reports.
pub(super) fn reported(one: &PackageChange) -> ReportedChange {
    let version = |build: &Option<crate::host::Build>| {
        build.as_ref().map_or_else(|| "not installed".to_owned(), |build| build.version.clone())
    };
    let after = match &one.to {
        Some(to) if !one.origins.is_empty() => format!("{} ({})", to.version, origins(one)),
        _ => version(&one.to),
    };
    change(&one.name, one.direction.as_str(), version(&one.from), after)
}

/// How archives were come by, counted, in words.
pub(super) fn come_by(kept: &[KeptFrom]) -> String {
    let count = |from: KeptFrom| kept.iter().filter(|one| **one == from).count();
    [KeptFrom::Publisher, KeptFrom::Cache, KeptFrom::Repacked]
        .into_iter()
        .filter(|from| count(*from) > 0)
        .map(|from| format!("{} {}", count(from), from.as_str()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A failure as a problem of the report.
pub(super) fn finding(error: &PackageError) -> Problem {
    let mut found = problem(Severity::High, error.fault.code(), "packages", error.message.clone());
    found.evidence.clone_from(&error.evidence);
    error.fault.remedy().clone_into(&mut found.remedy);
    found
}

/// The end of a task by this failure, with what is known all the same.
pub(super) fn failed(error: &PackageError, mut report: TaskReport) -> TaskError {
    if error.fault == PackageFault::Cancelled {
        return TaskError::Cancelled(Box::new(bounded(report)));
    }
    let retry = match error.fault {
        PackageFault::LockHeld => Some(RetryKind::LockBusy),
        PackageFault::Unreachable => Some(RetryKind::Network),
        PackageFault::TimedOut => Some(RetryKind::Timeout),
        _ => None,
    };
    report.problems.push(finding(error));
    TaskError::Failed { message: error.message.clone(), report: Box::new(bounded(report)), retry }
}

/// The same with nothing else to say.
#[allow(clippy::needless_pass_by_value)] // stands in map_err
pub(super) fn plain(error: PackageError) -> TaskError {
    failed(&error, TaskReport::default())
}
