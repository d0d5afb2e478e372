//! Which package manager a version belongs to. Pure; anyone may call it.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{dpkg, rpm};

/// The longest version that is read. The longest of Debian 12 has 47 bytes; a file name ends at 255.
pub const MAX_VERSION_BYTES: usize = 255;

/// A package manager's way of writing and ordering versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackageFormat {
    /// Debian and its relatives.
    Dpkg,
    /// Red Hat, SUSE and their relatives.
    Rpm,
}

/// Why a text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionProblem {
    /// Nothing there.
    #[error("the version is empty")]
    Empty,
    /// Longer than [`MAX_VERSION_BYTES`].
    #[error("the version has {0} bytes; at most {MAX_VERSION_BYTES} are read")]
    TooLong(usize),
    /// What stands before the first colon is no number that the package manager takes.
    #[error("the epoch, what stands before the colon, {0}")]
    Epoch(&'static str),
    /// A part is empty where the format wants one.
    #[error("the {0} is empty")]
    EmptyPart(&'static str),
    /// dpkg wants a digit first.
    #[error("the version does not start with a digit")]
    NoDigitFirst,
    /// A character that the format does not have.
    #[error("character {place} of the version, {character:?}, is not allowed there")]
    Character {
        /// Counted from 1.
        place: usize,
        /// The character.
        character: char,
    },
}

impl PackageFormat {
    /// The word as written in files and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dpkg => "dpkg",
            Self::Rpm => "rpm",
        }
    }

    /// Whether the package manager takes this as a version.
    pub fn check(self, version: &str) -> Result<(), VersionProblem> {
        if version.is_empty() {
            return Err(VersionProblem::Empty);
        }
        if version.len() > MAX_VERSION_BYTES {
            return Err(VersionProblem::TooLong(version.len()));
        }
        match self {
            Self::Dpkg => dpkg::check(version),
            Self::Rpm => rpm::check(version),
        }
    }

    /// The order of two versions that [`Self::check`] took. Any other text gets some order too, and no panic.
    pub fn order(self, a: &str, b: &str) -> Ordering {
        match self {
            Self::Dpkg => dpkg::order(a, b),
            Self::Rpm => rpm::order(a, b),
        }
    }

    /// Checks both, then compares them.
    pub fn compare(self, a: &str, b: &str) -> Result<Ordering, VersionProblem> {
        self.check(a)?;
        self.check(b)?;
        Ok(self.order(a, b))
    }
}

impl fmt::Display for PackageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first character that is not allowed, of a part that starts at byte `offset` of the version.
pub(super) fn only(
    version: &str,
    offset: usize,
    part: &str,
    allowed: impl Fn(char) -> bool,
) -> Result<(), VersionProblem> {
    match part.char_indices().find(|(_, character)| !allowed(*character)) {
        None => Ok(()),
        Some((at, character)) => {
            let place = version.get(..offset + at).map_or(0, |before| before.chars().count()) + 1;
            Err(VersionProblem::Character { place, character })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DPKG: &str = include_str!("../../tests/data/dpkg-versions.csv");
    const DPKG_VALID: &str = include_str!("../../tests/data/dpkg-validate.jsonl");
    const RPM: &str = include_str!("../../tests/data/rpm-versions.csv");

    fn rows(
        text: &'static str,
    ) -> impl Iterator<Item = (&'static str, Ordering, &'static str, &'static str)> {
        text.lines().skip(1).filter(|line| !line.is_empty()).map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let [a, sign, b, kind] = fields.as_slice() else { panic!("{line}") };
            let order = match *sign {
                "<" => Ordering::Less,
                "=" => Ordering::Equal,
                ">" => Ordering::Greater,
                other => panic!("{other}"),
            };
            (*a, order, *b, *kind)
        })
    }

    #[test]
    fn the_order_is_the_one_of_dpkg() {
        let mut count = 0;
        for (a, order, b, _) in rows(DPKG) {
            assert_eq!(PackageFormat::Dpkg.compare(a, b), Ok(order), "{a} {b}");
            assert_eq!(PackageFormat::Dpkg.compare(b, a), Ok(order.reverse()), "{b} {a}");
            count += 1;
        }
        assert_eq!(count, 150);
    }

    #[test]
    fn what_dpkg_refuses_is_refused() {
        let mut count = 0;
        for line in DPKG_VALID.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let version = row["version"].as_str().unwrap();
            let valid = row["valid"].as_bool().unwrap();
            assert_eq!(PackageFormat::Dpkg.check(version).is_ok(), valid, "{line}");
            count += 1;
        }
        assert_eq!(count, 13);
    }

    #[test]
    fn the_order_is_the_one_of_rpm() {
        let mut count = 0;
        for (a, order, b, kind) in rows(RPM) {
            let compare = |a: &str, b: &str| match kind {
                "vercmp" => rpm::segments(a, b),
                _ => PackageFormat::Rpm.compare(a, b).unwrap(),
            };
            assert_eq!(compare(a, b), order, "{a} {b}");
            assert_eq!(compare(b, a), order.reverse(), "{b} {a}");
            count += 1;
        }
        assert_eq!(count, 75);
    }

    #[test]
    fn a_refusal_says_what_and_where() {
        let told = |format: PackageFormat, version: &str| format.check(version).unwrap_err().to_string();
        assert_eq!(
            told(PackageFormat::Dpkg, "1.0é1"),
            "character 4 of the version, 'é', is not allowed there"
        );
        assert_eq!(
            told(PackageFormat::Dpkg, "1:1.0-1_2"),
            "character 8 of the version, '_', is not allowed there"
        );
        assert_eq!(
            told(PackageFormat::Dpkg, "2147483648:1"),
            "the epoch, what stands before the colon, is too large"
        );
        assert_eq!(
            told(PackageFormat::Rpm, "x:1.0"),
            "the epoch, what stands before the colon, is no number"
        );
        assert_eq!(
            told(PackageFormat::Rpm, "1.0 1"),
            "character 4 of the version, ' ', is not allowed there"
        );
        assert_eq!(told(PackageFormat::Rpm, "-"), "the version is empty");
        assert_eq!(told(PackageFormat::Rpm, ""), "the version is empty");
        let long = "1".repeat(MAX_VERSION_BYTES + 1);
        assert!(told(PackageFormat::Dpkg, &long).contains("256 bytes"));
    }

    proptest! {
        /// Sorting by an order that is none may panic, and matching finds and loses holes.
        #[test]
        fn both_orders_are_orders(
            a in "[0-9]{0,2}[a-c~^.+:-]{0,3}[0-9]{0,2}[A-b~^]{0,2}",
            b in "[0-9]{0,2}[a-c~^.+:-]{0,3}[0-9]{0,2}[A-b~^]{0,2}",
            c in "[0-9]{0,2}[a-c~^.+:-]{0,3}[0-9]{0,2}[A-b~^]{0,2}",
        ) {
            for format in [PackageFormat::Dpkg, PackageFormat::Rpm] {
                prop_assert_eq!(format.order(&a, &a), Ordering::Equal);
                prop_assert_eq!(format.order(&a, &b), format.order(&b, &a).reverse());
                if format.order(&a, &b).is_le() && format.order(&b, &c).is_le() {
                    prop_assert!(format.order(&a, &c).is_le(), "{format} {a} {b} {c}");
                }
            }
        }

        #[test]
        fn no_text_makes_a_panic(a in ".{0,24}", b in ".{0,24}") {
            for format in [PackageFormat::Dpkg, PackageFormat::Rpm] {
                let _ = (format.compare(&a, &b), format.order(&a, &b));
            }
        }
    }
}
