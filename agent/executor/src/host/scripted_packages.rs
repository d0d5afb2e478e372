//! Packages of the scripted machine: none, and a database that is as consistent as the test says. What packages do is
//! tested with the real programs. For the tests of this crate.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fleet_types::packages::{Available, Package};

use super::packages::{
    Build, InstalledPackages, Kept, Marks, PackageChange, PackageError, PackageFault, PackageResult,
    PackageWork, Packages, SetAside, Wanted,
};
use super::scripted::ScriptedHost;

fn none<T>() -> PackageResult<T> {
    Err(PackageError::new(PackageFault::NoManager, "this machine is scripted and has no packages"))
}

impl Packages for ScriptedHost {
    fn manager(&self) -> Option<&'static str> {
        self.script().package_manager
    }

    fn damage(&self) -> Option<String> {
        self.script().package_damage.clone()
    }

    fn installed(&self, _work: PackageWork<'_>) -> PackageResult<InstalledPackages> {
        none()
    }

    fn listed(&self) -> PackageResult<Vec<Package>> {
        Ok(self.script().packages.clone())
    }

    fn available(&self, _work: PackageWork<'_>) -> PackageResult<BTreeMap<String, Available>> {
        none()
    }

    fn owners(&self, paths: &BTreeSet<String>) -> BTreeMap<String, String> {
        paths.iter().map(|path| (path.clone(), "old".to_owned())).collect()
    }

    fn automatic(&self, _work: PackageWork<'_>) -> PackageResult<BTreeSet<String>> {
        none()
    }

    fn audit(&self, _work: PackageWork<'_>) -> PackageResult<Vec<String>> {
        none()
    }

    fn refresh(&self, _work: PackageWork<'_>) -> PackageResult<()> {
        none()
    }

    fn resolve(&self, _wanted: &Wanted, _work: PackageWork<'_>) -> PackageResult<Vec<PackageChange>> {
        none()
    }

    fn kept(&self, _build: &Build) -> PackageResult<Option<Kept>> {
        none()
    }

    fn keep(&self, _build: &Build, _fetch: bool, _work: PackageWork<'_>) -> PackageResult<Kept> {
        none()
    }

    fn config_files(&self, _builds: &[Build], _work: PackageWork<'_>) -> PackageResult<BTreeSet<PathBuf>> {
        none()
    }

    fn set_aside(&self, _path: &Path) -> PackageResult<Option<SetAside>> {
        none()
    }

    fn put_back(&self, _path: &Path, _content: &SetAside) -> PackageResult<()> {
        none()
    }

    fn rehearse(
        &self,
        _changes: &[PackageChange],
        _work: PackageWork<'_>,
    ) -> PackageResult<Vec<PackageChange>> {
        none()
    }

    fn change(&self, _changes: &[PackageChange], _part: &str, _work: PackageWork<'_>) -> PackageResult<()> {
        none()
    }

    fn purge(&self, _names: &[String], _part: &str, _work: PackageWork<'_>) -> PackageResult<()> {
        none()
    }

    fn repair(&self, _part: &str, _work: PackageWork<'_>) -> PackageResult<()> {
        none()
    }

    fn mark(&self, _marks: &Marks, _part: &str, _work: PackageWork<'_>) -> PackageResult<()> {
        none()
    }
}
