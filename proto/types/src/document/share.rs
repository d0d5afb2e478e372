//! So many of a number of nodes: a number, or a percentage such as `25%`.
//!
//! A percentage is rounded down and is never less than one: what is allowed to go must be able to go. Must never hold a
//! fraction: documents are JSON without floats.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::value::Value;

/// A number of nodes from 1, or 1 to 100 percent of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// So many.
    Nodes(NonZeroU32),
    /// So many of a hundred.
    Percent(u32),
}

/// What stands there is no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a number of nodes from 1 nor a percentage from \"1%\" to \"100%\"")]
pub struct ShareError(String);

impl Share {
    /// How many of `nodes` that are: rounded down, at least one.
    pub fn of(self, nodes: u32) -> NonZeroU32 {
        match self {
            Self::Nodes(number) => number,
            Self::Percent(percent) => NonZeroU32::new(percent_of(percent, nodes)).unwrap_or(NonZeroU32::MIN),
        }
    }
}

/// So many percent of a number of nodes, rounded down.
pub fn percent_of(percent: u32, nodes: u32) -> u32 {
    u32::try_from(u64::from(percent) * u64::from(nodes) / 100).unwrap_or(u32::MAX)
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let bad = || ShareError(text.chars().filter(|c| !c.is_control()).take(64).collect());
        let digits = text.strip_suffix('%').ok_or_else(bad)?;
        // No sign and no space: a share is written one way.
        let percent: u32 =
            digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit())).ok_or_else(bad)?;
        if (1..=100).contains(&percent) { Ok(Self::Percent(percent)) } else { Err(bad()) }
    }
}

impl TryFrom<i64> for Share {
    type Error = ShareError;

    fn try_from(number: i64) -> Result<Self, ShareError> {
        let number = u32::try_from(number).ok().and_then(NonZeroU32::new);
        number.map(Self::Nodes).ok_or_else(|| ShareError("0 or less, or too many".to_owned()))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(number) => write!(f, "{number}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nodes(number) => serializer.serialize_u32(number.get()),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Integer(number) => Self::try_from(number).map_err(D::Error::custom),
            Value::String(text) => text.parse().map_err(D::Error::custom),
            other => Err(D::Error::custom(ShareError(other.to_string()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_rounded_down_and_is_at_least_one_node() {
        for (percent, nodes, expected) in [
            ("10%", 3, 1),
            ("10%", 0, 1),
            ("10%", 19, 1),
            ("10%", 20, 2),
            ("25%", 7, 1),
            ("25%", 8, 2),
            ("99%", 100, 99),
            ("99%", 10, 9),
            ("100%", 7, 7),
            ("100%", u32::MAX, u32::MAX),
        ] {
            let share: Share = percent.parse().unwrap();
            assert_eq!(share.of(nodes).get(), expected, "{percent} of {nodes}");
        }
        assert_eq!(Share::try_from(3).unwrap().of(1).get(), 3);
    }

    #[test]
    fn it_is_written_one_way() {
        for text in ["3", "\"25%\"", "\"100%\""] {
            let share: Share = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&share).unwrap(), text);
        }
        for bad in
            ["0", "-1", "\"0%\"", "\"101%\"", "\"+5%\"", "\"5 %\"", "\"5\"", "\"%\"", "true", "4294967296"]
        {
            assert!(serde_json::from_str::<Share>(bad).is_err(), "{bad}");
        }
    }
}
