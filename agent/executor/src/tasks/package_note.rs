//! What an upgrade notes before it changes anything: the exact list of what changes, and all that its way back needs.
//!
//! The note is journaled as the step's undo. It is made only when the way back exists: the former archives are kept, the
//! contents of configuration files set aside. Shared by `package.upgrade` and `package.downgrade`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fleet_types::report::TaskReport;
use serde::{Deserialize, Serialize};

use super::args;
use super::contract::{TaskContext, TaskError};
use super::deadline::Deadline;
use super::packages::{failed, plain, resolve, work};
use crate::host::{
    Activity, Build, InstalledPackages, Kept, Marks, PackageChange, PackageError, PackageFault, Packages,
    SetAside, Standing,
};

/// Room beside what the packages say that they take: dpkg's own files, and both versions of what is being unpacked.
const SPARE_BYTES: u64 = 64 * 1024 * 1024;
/// Files that dpkg puts beside a configuration file.
const BESIDE: [&str; 3] = [".dpkg-dist", ".dpkg-new", ".dpkg-old"];

/// The note. Fields that are added need a default: journals outlive the agent's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// What changes, with what was there.
    pub(super) changes: Vec<PackageChange>,
    /// Marks of these packages as they were.
    pub(super) marks: Marks,
    /// Those of them that were removed, with their configuration still there.
    pub(super) removed: BTreeSet<String>,
    /// Configuration files as they were, and what lay beside them; none was not there.
    pub(super) files: Vec<(PathBuf, Option<SetAside>)>,
    /// Units of the profile, and whether they ran.
    pub(super) units: Vec<(String, bool)>,
}

impl Note {
    /// Reads a note from the journal.
    pub(super) fn read(undo: &serde_json::Value) -> Result<Self, TaskError> {
        serde_json::from_value(undo.clone())
            .map_err(|e| TaskError::Declared(format!("what the upgrade noted cannot be read: {e}")))
    }

    /// As the journal keeps it.
    pub(super) fn written(&self) -> Result<serde_json::Value, TaskError> {
        serde_json::to_value(self).map_err(|e| TaskError::Declared(e.to_string()))
    }

    /// What of the noted changes is still to be done.
    pub(super) fn pending(&self, installed: &InstalledPackages) -> Vec<PackageChange> {
        let is_done = |change: &&PackageChange| match (&change.to, there(installed, &change.name)) {
            (None, None) => true,
            (Some(to), Some((build, true))) => build == to,
            _ => false,
        };
        self.changes.iter().filter(|change| !is_done(change)).cloned().collect()
    }

    /// A noted change whose package is no more what it was, nor what it is to be.
    pub(super) fn strayed(&self, installed: &InstalledPackages) -> Option<String> {
        self.pending(installed).iter().find_map(|change| {
            let found = there(installed, &change.name).map(|(build, _)| build);
            (found != change.from.as_ref()).then(|| {
                let version = |build: Option<&Build>| {
                    build.map_or_else(|| "not installed".to_owned(), |build| build.version.clone())
                };
                let (now, noted) = (version(found), version(change.from.as_ref()));
                format!("{} is {now} now, when it was planned it was {noted}", change.name)
            })
        })
    }
}

/// The files that dpkg may put beside a configuration file.
pub(super) fn beside(path: &Path) -> impl Iterator<Item = PathBuf> {
    BESIDE.into_iter().map(|ending| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    })
}

/// What is there of a package, and whether its installation ended.
pub(super) fn there<'a>(installed: &'a InstalledPackages, name: &str) -> Option<(&'a Build, bool)> {
    let known = installed.get(name).filter(|known| known.standing != Standing::Removed)?;
    Some((&known.build, known.standing == Standing::Installed))
}

/// Is the database consistent? What an earlier installation left is not built upon.
pub(super) fn check_consistent(context: &TaskContext<'_>) -> Result<(), TaskError> {
    let found = context.host.packages().audit(work(context)).map_err(plain)?;
    if found.is_empty() {
        return Ok(());
    }
    let message = "the node's database of packages is not consistent; nothing was changed";
    let error = PackageError {
        fault: PackageFault::Unfinished,
        message: message.to_owned(),
        evidence: found.join("; "),
    };
    Err(plain(error))
}

/// Works out what changes and keeps all that the change and its way back need.
pub(super) fn prepare(context: &TaskContext<'_>) -> Result<Note, TaskError> {
    check_consistent(context)?;
    let packages = context.host.packages();
    let changes = resolve(context)?;
    let installed = packages.installed(work(context)).map_err(plain)?;
    let automatic = packages.automatic(work(context)).map_err(plain)?;
    let names: BTreeSet<String> = changes.iter().map(|change| change.name.clone()).collect();
    let asked: BTreeSet<&str> =
        super::packages::declared(context)?.iter().map(|(_, package)| package.name.as_str()).collect();
    let held = |name: &&String| installed.get(*name).is_some_and(|known| known.held);
    // What comes in for others only is marked as such, as the package manager would by itself.
    let is_automatic = |change: &&PackageChange| match &change.from {
        Some(_) => automatic.contains(&change.name),
        None => change.to.is_some() && !asked.contains(change.name.as_str()),
    };
    let marks = Marks {
        held: names.iter().filter(held).cloned().collect(),
        automatic: changes.iter().filter(is_automatic).map(|change| change.name.clone()).collect(),
        names: names.clone(),
    };
    let removed =
        |name: &&String| installed.get(*name).is_some_and(|known| known.standing == Standing::Removed);
    let removed = names.iter().filter(removed).cloned().collect();
    check_space(context, &changes)?;
    keep(context, packages, &changes)?;
    let files = set_aside(context, packages, &changes)?;
    Ok(Note { changes, marks, removed, files, units: units(context) })
}

/// Keeps the archives of both sides.
fn keep(
    context: &TaskContext<'_>,
    packages: &dyn Packages,
    changes: &[PackageChange],
) -> Result<Vec<Kept>, TaskError> {
    let fetch = !args::flag(context, "offline", true)?;
    let mut kept = Vec::new();
    for change in changes {
        let sides = [(change.to.as_ref(), fetch), (change.from.as_ref(), fetch)];
        for (build, fetch) in sides.into_iter().filter_map(|(build, fetch)| Some((build?, fetch))) {
            if let Err(halt) = Deadline::of(context).check() {
                return Err(halt.end(TaskReport::default()));
            }
            let one = packages.keep(build, fetch, work(context)).map_err(|error| {
                let is_former = change.from.as_ref() == Some(build);
                let message = if is_former && error.fault == PackageFault::NotKept {
                    format!("{}; there would be no way back, so nothing was changed", error.message)
                } else {
                    error.message.clone()
                };
                failed(&PackageError { message, ..error }, TaskReport::default())
            })?;
            kept.push(one);
        }
    }
    Ok(kept)
}

/// Sets the configuration of both sides aside.
fn set_aside(
    context: &TaskContext<'_>,
    packages: &dyn Packages,
    changes: &[PackageChange],
) -> Result<Vec<(PathBuf, Option<SetAside>)>, TaskError> {
    let builds: Vec<Build> =
        changes.iter().flat_map(|change| [&change.from, &change.to]).flatten().cloned().collect();
    let mut files = Vec::new();
    for path in packages.config_files(&builds, work(context)).map_err(plain)? {
        // What dpkg puts beside is noted where it is there already; the way back takes away what is not noted.
        for path in beside(&path) {
            if let Some(found) = packages.set_aside(&path).map_err(plain)? {
                files.push((path, Some(found)));
            }
        }
        let found = packages.set_aside(&path).map_err(plain)?;
        files.push((path, found));
    }
    Ok(files)
}

/// Which units of the profile run. One that cannot be asked is not noted, and left alone by the way back.
fn units(context: &TaskContext<'_>) -> Vec<(String, bool)> {
    let units = context.host.units();
    let of_profile: BTreeSet<&str> =
        context.profile.services.values().map(|service| service.unit.as_str()).collect();
    let state = |unit: &str| Some((unit.to_owned(), units.state(unit).ok()?.activity == Activity::Active));
    of_profile.into_iter().filter_map(state).collect()
}

/// Is there room for what the packages install?
fn check_space(context: &TaskContext<'_>, changes: &[PackageChange]) -> Result<(), TaskError> {
    if changes.is_empty() {
        return Ok(());
    }
    let needed = changes.iter().map(|change| change.installed_bytes).sum::<u64>() + SPARE_BYTES;
    let space =
        context.host.files().space(Path::new("/usr")).or_else(|_| context.host.files().space(Path::new("/")));
    let free =
        space.map_err(|e| plain(PackageError::new(PackageFault::LittleSpace, e.to_string())))?.available;
    if free >= needed {
        return Ok(());
    }
    let message =
        format!("the packages need {needed} bytes at most, {free} are free on /usr; nothing was changed");
    Err(plain(PackageError::new(PackageFault::LittleSpace, message)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Direction, InstalledPackage};

    fn build(version: &str) -> Build {
        Build { name: "fw".into(), version: version.into(), architecture: "amd64".into() }
    }

    fn installed(version: &str, standing: Standing) -> InstalledPackages {
        let known = InstalledPackage { build: build(version), standing, held: false };
        InstalledPackages::from([("fw".to_owned(), known)])
    }

    #[test]
    fn what_is_pending_and_what_has_strayed_is_told_by_what_is_installed() {
        let note = Note {
            changes: vec![PackageChange {
                name: "fw".into(),
                from: Some(build("1.0")),
                to: Some(build("1.1")),
                direction: Direction::Upgraded,
                origins: Vec::new(),
                security: false,
                archive_bytes: 0,
                installed_bytes: 0,
            }],
            marks: Marks::default(),
            removed: BTreeSet::new(),
            files: Vec::new(),
            units: Vec::new(),
        };
        assert_eq!(note.pending(&installed("1.0", Standing::Installed)).len(), 1);
        assert_eq!(note.pending(&installed("1.1", Standing::Installed)), []);
        let half = installed("1.1", Standing::Unfinished("half-configured".into()));
        assert_eq!(note.pending(&half).len(), 1);
        assert_eq!(note.strayed(&installed("1.0", Standing::Installed)), None);
        let strayed = note.strayed(&installed("1.05", Standing::Installed)).unwrap();
        assert_eq!(strayed, "fw is 1.05 now, when it was planned it was 1.0");
        assert!(note.strayed(&InstalledPackages::new()).unwrap().contains("not installed now"));
        assert_eq!(Note::read(&note.written().unwrap()).unwrap(), note);
    }
}
