//! Affected packages by distribution, release and name, made once for an import. Pure.

use std::collections::HashMap;

use crate::advisory::{Advisory, Affected, Distribution, KnownBy};
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
    by_source: HashMap<&'a str, Vec<Entry<'a>>>,
    by_binary: HashMap<&'a str, Vec<Entry<'a>>>,
}

/// The index of a set. It borrows the set: the texts are there once.
#[derive(Debug)]
pub struct Index<'a> {
    releases: HashMap<&'a Distribution, OfRelease<'a>>,
}

impl<'a> Index<'a> {
    /// Of all advisories that were not taken back.
    pub fn new(set: &'a AdvisorySet) -> Self {
        let mut releases: HashMap<&Distribution, OfRelease<'_>> = HashMap::new();
        for advisory in set.advisories.values().filter(|advisory| advisory.withdrawn.is_none()) {
            for affected in &advisory.affected {
                let release = releases.entry(&affected.distribution).or_default();
                let by = match affected.known_by {
                    KnownBy::Source => &mut release.by_source,
                    KnownBy::Binary => &mut release.by_binary,
                };
                by.entry(affected.package.as_str()).or_default().push(Entry { advisory, affected });
            }
        }
        Self { releases }
    }

    pub(super) fn of(&self, distribution: &Distribution) -> Option<&OfRelease<'a>> {
        self.releases.get(distribution)
    }

    /// Whether any advisory names this release. None does: it is not known whether its nodes are safe.
    pub fn knows(&self, distribution: &Distribution) -> bool {
        self.releases.contains_key(distribution)
    }
}

impl<'a> OfRelease<'a> {
    pub(super) fn of_source(&self, name: &str) -> &[Entry<'a>] {
        self.by_source.get(name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn of_binary(&self, name: &str) -> &[Entry<'a>] {
        self.by_binary.get(name).map_or(&[], Vec::as_slice)
    }
}
