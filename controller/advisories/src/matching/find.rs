//! All findings of one node. Pure.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use fleet_types::package_version::PackageFormat;

use super::finding::{Finding, Standing};
use super::index::{Entry, Index, Named, OfRelease, holds};
use super::kernel::{self, Role};
use crate::advisory::KnownBy;
use crate::inventory::{Available, Inventory, NodeState, Package};

/// What is known of a node.
#[derive(Debug)]
pub struct Findings<'a> {
    /// By the advisory's id.
    pub findings: Vec<Finding<'a>>,
    /// Whether advisories for the node's distribution and release are there at all. Where none are, that nothing was
    /// found says nothing.
    pub is_known: bool,
    /// Whether the running kernel is one of the installed packages. Where it is not, each installed kernel counts.
    pub kernel_known: bool,
    /// Services that run old files of which the node does not know the version: no advisory can be told from it.
    pub old_files_unknown: Vec<OldFilesUnknown<'a>>,
}

/// Services that run something of which the version is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldFilesUnknown<'a> {
    /// The package whose files were replaced.
    pub package: &'a str,
    /// The services.
    pub services: &'a [String],
}

/// Matches one node. The cost is that of its packages and of the advisories that name them.
pub fn find<'a>(index: &Index<'a>, inventory: &'a Inventory, state: &'a NodeState) -> Findings<'a> {
    let format = inventory.format();
    let images: Vec<&Package> =
        inventory.packages().iter().filter(|package| kernel::role(package, format) == Role::Image).collect();
    let running = state.running_kernel.as_deref();
    let is_running =
        |package: &Package| running.is_some_and(|running| kernel::is_running(package, format, running));
    let kernel_known = images.iter().any(|image| is_running(image));
    let mut node = Node { format, state, images: &images, found: HashMap::new() };
    let release = index.of(inventory.distribution(), format);
    if let Some(release) = release {
        for package in inventory.packages() {
            match kernel::role(package, format) {
                Role::None => node.package(release, package),
                Role::Image if !kernel_known || is_running(package) => node.kernel(release, package),
                // Another kernel than the one that runs, or what is built with one.
                Role::Image | Role::Beside => {}
            }
        }
    }
    let mut findings: Vec<Finding<'_>> = node.found.into_values().collect();
    findings.sort_unstable_by_key(|finding| finding.advisory.id.as_str());
    Findings {
        findings,
        is_known: release.is_some(),
        kernel_known: kernel_known || images.is_empty(),
        old_files_unknown: state
            .old_files
            .iter()
            .filter(|(_, old)| old.source_version.is_none())
            .map(|(package, old)| OldFilesUnknown { package, services: &old.services })
            .collect(),
    }
}

struct Node<'a, 'n> {
    format: PackageFormat,
    state: &'a NodeState,
    images: &'n [&'a Package],
    /// By advisory, so that one with ten packages is one finding.
    found: HashMap<&'a str, Finding<'a>>,
}

impl<'a> Node<'a, '_> {
    fn package(&mut self, release: &OfRelease<'a>, package: &'a Package) {
        let state = self.state;
        let newer = state.available.get_key_value(&package.name);
        // What services still run of it, the package itself being newer.
        let old = state.old_files.get(&package.name).and_then(|old| old.source_version.as_deref());
        for (named, version) in named(release, package) {
            for entry in named.holding(version, self.format) {
                let standing = self.fix(entry, version, newer.into_iter());
                self.note(entry, package, version, standing);
            }
            if let Some(old) = old {
                for entry in named.holding(old, self.format).filter(|entry| !holds(*entry, version)) {
                    self.note(entry, package, version, Standing::ServicesRunOldFiles { running: old });
                }
            }
        }
    }

    fn kernel(&mut self, release: &OfRelease<'a>, package: &'a Package) {
        let held = named(release, package)
            .flat_map(|(named, version)| {
                named.holding(version, self.format).map(move |entry| (entry, version))
            })
            .collect::<Vec<_>>();
        for (entry, version) in held {
            // The newest is booted next.
            let of_this = self.images.iter().filter(|image| match entry.affected.known_by {
                KnownBy::Source => kernel::named(image).0 == entry.affected.package,
                KnownBy::Binary => image.name == entry.affected.package,
            });
            let newest = of_this.max_by(|a, b| self.format.order(&a.version, &b.version));
            let next = newest.filter(|image| !holds(entry, &image.version));
            let standing = next.map_or_else(
                || {
                    let newer = self.state.available.iter();
                    self.fix(entry, version, newer.filter(|(name, _)| kernel::may_bring(name, self.format)))
                },
                |image| Standing::RebootPending { installed: &image.version },
            );
            self.note(entry, package, version, standing);
        }
    }

    /// What would end it: of what the node's archives have that is newer, something that is not affected.
    fn fix(
        &self,
        entry: Entry<'a>,
        version: &str,
        mut newer: impl Iterator<Item = (&'a String, &'a Available)>,
    ) -> Standing<'a> {
        let in_archive = newer.find(|(name, available)| {
            let version = match entry.affected.known_by {
                KnownBy::Source if !kernel::may_bring(name, self.format) => &available.source_version,
                // Kernels of dpkg are signed in a source package of its own: see `kernel::named`.
                KnownBy::Source | KnownBy::Binary => &available.version,
            };
            !holds(entry, version)
        });
        match (in_archive, entry.affected.fix_for(version)) {
            (Some((_, available)), _) => Standing::FixInArchive { available },
            (None, Some(fixed)) => Standing::FixNotInArchive { fixed },
            (None, None) => Standing::NoFix,
        }
    }

    fn note(&mut self, entry: Entry<'a>, package: &'a Package, version: &'a str, standing: Standing<'a>) {
        let Entry { advisory, affected } = entry;
        let archives_known = self.state.archives_unknown.is_none();
        let finding = Finding { advisory, affected, package, version, standing, archives_known };
        match self.found.entry(advisory.id.as_str()) {
            Slot::Vacant(room) => {
                room.insert(finding);
            }
            Slot::Occupied(mut there) => {
                if there.get().standing.rank() < standing.rank() {
                    there.insert(finding);
                }
            }
        }
    }
}

/// The entries that name a package, with the version of it that they speak of.
fn named<'r, 'a>(
    release: &'r OfRelease<'a>,
    package: &'a Package,
) -> impl Iterator<Item = (&'r Named<'a>, &'a str)> {
    let (source, source_version) = kernel::named(package);
    let by_source = release.of_source(&source).map(|named| (named, source_version));
    let by_binary = release.of_binary(&package.name).map(|named| (named, package.version.as_str()));
    by_source.into_iter().chain(by_binary)
}
