//! Affected packages by distribution, release and name, made once for an import. Pure.
//!
//! Most entries say "until this fix": they lie in the order of their fixes, so that those that hold a version are found
//! by halving, however many advisories a package has had.

use std::collections::HashMap;

use fleet_types::package_version::PackageFormat;

use crate::advisory::{Advisory, Affected, Distribution, End, KnownBy, Range};
use crate::import::AdvisorySet;

/// Where an affected package stands in the set: the advisory and its entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub advisory: &'a Advisory,
    pub affected: &'a Affected,
}

/// What one distribution's release has, by the two kinds of names.
#[derive(Debug, Default)]
pub(super) struct OfRelease<'a> {
    by_source: HashMap<&'a str, Named<'a>>,
    by_binary: HashMap<&'a str, Named<'a>>,
}

/// The entries of one name.
#[derive(Debug, Default)]
pub(super) struct Named<'a> {
    /// Affected from the beginning until a fix, in the order of the fixes; outside of modules of rpm, and within.
    until: [Vec<Until<'a>>; 2],
    /// All others.
    others: Vec<Entry<'a>>,
}

#[derive(Debug)]
struct Until<'a> {
    fixed: &'a str,
    entry: Entry<'a>,
}

/// The index of a set. It borrows the set: the texts are there once.
#[derive(Debug)]
pub struct Index<'a> {
    formats: HashMap<PackageFormat, HashMap<&'a Distribution, OfRelease<'a>>>,
}

impl<'a> Index<'a> {
    /// Of all advisories that were not taken back.
    pub fn new(set: &'a AdvisorySet) -> Self {
        let mut formats: HashMap<PackageFormat, HashMap<_, OfRelease<'_>>> = HashMap::new();
        for advisory in set.advisories.values().filter(|advisory| advisory.withdrawn.is_none()) {
            for affected in &advisory.affected {
                let releases = formats.entry(affected.format).or_default();
                let release = releases.entry(&affected.distribution).or_default();
                let by = match affected.known_by {
                    KnownBy::Source => &mut release.by_source,
                    KnownBy::Binary => &mut release.by_binary,
                };
                by.entry(affected.package.as_str()).or_default().add(Entry { advisory, affected });
            }
        }
        for (format, releases) in &mut formats {
            let named = releases
                .values_mut()
                .flat_map(|release| release.by_source.values_mut().chain(release.by_binary.values_mut()));
            for until in named.flat_map(|named| &mut named.until) {
                until.sort_by(|a, b| format.order(a.fixed, b.fixed));
            }
        }
        Self { formats }
    }

    pub(super) fn of(&self, distribution: &Distribution, format: PackageFormat) -> Option<&OfRelease<'a>> {
        self.formats.get(&format)?.get(distribution)
    }
}

impl<'a> OfRelease<'a> {
    pub(super) fn of_source(&self, name: &str) -> Option<&Named<'a>> {
        self.by_source.get(name)
    }

    pub(super) fn of_binary(&self, name: &str) -> Option<&Named<'a>> {
        self.by_binary.get(name)
    }
}

impl<'a> Named<'a> {
    fn add(&mut self, entry: Entry<'a>) {
        match (entry.affected.ranges.as_slice(), entry.affected.versions.as_slice()) {
            ([Range { introduced: None, end: End::Fixed(fixed) }], []) => {
                self.until[usize::from(is_module(entry.affected.format, fixed))].push(Until { fixed, entry });
            }
            _ => self.others.push(entry),
        }
    }

    /// The entries that hold a version.
    pub(super) fn holding<'s>(
        &'s self,
        version: &'s str,
        format: PackageFormat,
    ) -> impl Iterator<Item = Entry<'a>> + use<'a, 's> {
        let until = self.until[usize::from(is_module(format, version))].as_slice();
        let first = until.partition_point(|until| format.order(until.fixed, version).is_le());
        let others = self.others.iter().filter(move |entry| holds(**entry, version)).copied();
        until.iter().skip(first).map(|until| until.entry).chain(others)
    }
}

/// Whether an entry holds a version. A build of a module and one outside of modules are two packages of one name.
pub(super) fn holds(entry: Entry<'_>, version: &str) -> bool {
    let Affected { format, ranges, .. } = entry.affected;
    let fix = ranges.first().and_then(Range::fixed);
    fix.is_none_or(|fix| is_module(*format, fix) == is_module(*format, version))
        && entry.affected.holds(version)
}

fn is_module(format: PackageFormat, version: &str) -> bool {
    format == PackageFormat::Rpm && version.contains(".module")
}
