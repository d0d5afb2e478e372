//! An advisory. Pure; made by the importer, asked by the matching and by whoever shows it.

use fleet_types::package_version::PackageFormat;
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::range::Range;
use super::{Cve, Distribution, GivenScore};

/// A published vulnerability, as its origin tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advisory {
    /// The origin's id: `DSA-3029-1`, `ALSA-2025:0743`.
    pub id: String,
    /// The CVEs that it is about, sorted.
    pub cves: Vec<Cve>,
    /// One line, cut where it is long.
    pub summary: String,
    /// The file that it was read from.
    pub file: String,
    /// When it was published, where the origin says so.
    pub published: Option<Timestamp>,
    /// When it was changed last.
    pub modified: Option<Timestamp>,
    /// When its origin took it back: it is kept, and matches nothing.
    pub withdrawn: Option<Timestamp>,
    /// Scores that stand in it.
    pub scores: Vec<GivenScore>,
    /// Words that origins use where they give no score.
    pub vendor_word: Option<String>,
    /// The packages, in the order of the file.
    pub affected: Vec<Affected>,
}

/// A package that is affected, in one release of one distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Affected {
    /// Whose.
    pub distribution: Distribution,
    /// How its versions are ordered.
    pub format: PackageFormat,
    /// Its name.
    pub package: String,
    /// What the name means.
    pub known_by: KnownBy,
    /// Versions in a range are affected.
    pub ranges: Vec<Range>,
    /// So are these, besides.
    pub versions: Vec<String>,
}

/// What an origin calls a package by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownBy {
    /// The source package, whose version all of its binary packages share: dpkg.
    Source,
    /// The binary package: rpm.
    Binary,
}

impl Affected {
    /// Whether this version is affected.
    pub fn holds(&self, version: &str) -> bool {
        self.ranges.iter().any(|range| range.holds(version, self.format))
            || self.versions.iter().any(|listed| self.format.order(version, listed).is_eq())
    }

    /// The fix for a version that is affected: the end of the range that it is in. None where no fix is known.
    pub fn fix_for(&self, version: &str) -> Option<&str> {
        match self.ranges.as_slice() {
            // The most frequent form; there is nothing to choose.
            [only] if self.versions.is_empty() => only.fixed(),
            ranges => ranges.iter().find(|range| range.holds(version, self.format)).and_then(Range::fixed),
        }
    }
}
