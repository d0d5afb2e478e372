//! Which versions are affected. Pure; made by the importer, asked by the matching.

use std::cmp::Ordering;

use fleet_types::package_version::{PackageFormat, VersionProblem, rpm};
use serde::{Deserialize, Serialize};

/// Versions from `introduced` until `end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The first version that is affected; none: from the beginning.
    pub introduced: Option<String>,
    /// Where it ends.
    pub end: End,
}

/// How a range ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The first version that is not affected any more.
    Fixed(String),
    /// The last version that is.
    LastAffected(String),
    /// No end is known: there is no fix yet.
    Open,
}

/// Why a list of events makes no ranges.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeProblem {
    /// A version that the package manager does not take.
    #[error("version {version:?}: {problem}")]
    Version {
        /// The version.
        version: String,
        /// What is wrong with it.
        problem: VersionProblem,
    },
    /// An end that has no beginning before it.
    #[error("{0:?} ends a range that nothing before it begins")]
    NoBeginning(String),
}

/// One event of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Introduced(String),
    Fixed(String),
    LastAffected(String),
}

impl Event {
    fn version(&self) -> &str {
        match self {
            Self::Introduced(version) | Self::Fixed(version) | Self::LastAffected(version) => version,
        }
    }
}

impl Range {
    /// Ranges from events in any order, as OSV has them. `0` is the beginning of all versions.
    pub(crate) fn from_events(
        mut events: Vec<Event>,
        format: PackageFormat,
    ) -> Result<Vec<Self>, RangeProblem> {
        let is_start = |event: &Event| matches!(event, Event::Introduced(version) if version == "0");
        for event in events.iter().filter(|event| !is_start(event)) {
            let version = event.version();
            format
                .check(version)
                .map_err(|problem| RangeProblem::Version { version: version.to_owned(), problem })?;
        }
        events.sort_by(|a, b| {
            let by_version = || format.order(a.version(), b.version());
            // What ends at a version comes before what begins there.
            let begins = |event: &Event| matches!(event, Event::Introduced(_));
            is_start(b).cmp(&is_start(a)).then_with(by_version).then_with(|| begins(a).cmp(&begins(b)))
        });
        let mut ranges = Vec::new();
        let mut open: Option<Option<String>> = None;
        for event in events {
            let end = match event {
                Event::Introduced(version) => {
                    // A second beginning within a range says nothing new.
                    open.get_or_insert_with(|| (version != "0").then_some(version));
                    continue;
                }
                Event::Fixed(version) => End::Fixed(version),
                Event::LastAffected(version) => End::LastAffected(version),
            };
            let (End::Fixed(version) | End::LastAffected(version)) = &end else { continue };
            let Some(introduced) = open.take() else {
                return Err(RangeProblem::NoBeginning(version.clone()));
            };
            ranges.push(Self { introduced, end });
        }
        if let Some(introduced) = open {
            ranges.push(Self { introduced, end: End::Open });
        }
        Ok(ranges)
    }

    /// Whether it has this version.
    pub fn holds(&self, version: &str, format: PackageFormat) -> bool {
        let begun = self.introduced.as_deref().is_none_or(|from| format.order(version, from).is_ge());
        begun
            && match &self.end {
                End::Fixed(fixed) => format.order(version, fixed).is_lt(),
                End::LastAffected(last) => order_of_last(version, last, format).is_le(),
                End::Open => true,
            }
    }

    /// The version that ends it, where a fix is known.
    pub fn fixed(&self) -> Option<&str> {
        match &self.end {
            End::Fixed(version) => Some(version),
            End::LastAffected(_) | End::Open => None,
        }
    }
}

/// A last version without a release means all releases of it: rpm alone orders every release after it.
fn order_of_last(version: &str, last: &str, format: PackageFormat) -> Ordering {
    if format == PackageFormat::Rpm && !rpm::has_release(last) {
        return format.order(rpm::without_release(version), last);
    }
    format.order(version, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(events: &[(&str, &str)], format: PackageFormat) -> Result<Vec<Range>, RangeProblem> {
        let events = events.iter().map(|(kind, version)| match *kind {
            "introduced" => Event::Introduced((*version).to_owned()),
            "fixed" => Event::Fixed((*version).to_owned()),
            _ => Event::LastAffected((*version).to_owned()),
        });
        Range::from_events(events.collect(), format)
    }

    #[test]
    fn events_in_any_order_make_the_same_ranges() {
        let events = [("introduced", "0"), ("fixed", "1.0-1"), ("introduced", "2.0-1"), ("fixed", "2.5-1")];
        let expected = ranges(&events, PackageFormat::Dpkg).unwrap();
        for turn in 1..events.len() {
            let mut turned = events;
            turned.rotate_left(turn);
            assert_eq!(ranges(&turned, PackageFormat::Dpkg).unwrap(), expected);
        }
        let affected = |version: &str| expected.iter().any(|range| range.holds(version, PackageFormat::Dpkg));
        for (version, is) in [
            ("0~1-1", true),
            ("1.0-1", false),
            ("1.9-1", false),
            ("2.0-1", true),
            ("2.5-1~rc1", true),
            ("2.5-1", false),
        ] {
            assert_eq!(affected(version), is, "{version}");
        }
    }

    #[test]
    fn a_last_version_without_a_release_has_all_of_its_releases() {
        let range = ranges(&[("introduced", "0"), ("last_affected", "1.2")], PackageFormat::Rpm).unwrap();
        for (version, is) in [("1.2-9.el9", true), ("1.2", true), ("1.2.1-1.el9", false), ("1:0.1-1", false)]
        {
            assert_eq!(range[0].holds(version, PackageFormat::Rpm), is, "{version}");
        }
        assert_eq!(range[0].fixed(), None);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let told = |events: &[(&str, &str)]| ranges(events, PackageFormat::Dpkg).unwrap_err().to_string();
        assert_eq!(told(&[("fixed", "1.0")]), "\"1.0\" ends a range that nothing before it begins");
        assert_eq!(
            told(&[("introduced", "2.0"), ("fixed", "1.0")]),
            "\"1.0\" ends a range that nothing before it begins"
        );
        assert!(told(&[("introduced", "0"), ("fixed", "a1")]).starts_with("version \"a1\""));
        assert_eq!(ranges(&[("introduced", "1.0")], PackageFormat::Dpkg).unwrap()[0].end, End::Open);
    }
}
