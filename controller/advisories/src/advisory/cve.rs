//! The id of a CVE. Pure; anyone may call it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `CVE-2024-3094`: year and number, eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cve {
    year: u16,
    number: u32,
}

/// A text that is no id of a CVE.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no CVE id such as CVE-2024-3094")]
pub struct BadCve(pub String);

impl FromStr for Cve {
    type Err = BadCve;

    fn from_str(text: &str) -> Result<Self, BadCve> {
        let bad = || BadCve(text.chars().take(40).collect());
        let (year, number) =
            text.strip_prefix("CVE-").and_then(|rest| rest.split_once('-')).ok_or_else(bad)?;
        let digits = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
            lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        // A number has four digits, or more without a zero in front: one id has one form.
        let is_plain = number.len() == 4 || !number.starts_with('0');
        if !digits(year, 4..=4) || !digits(number, 4..=9) || !is_plain {
            return Err(bad());
        }
        let (year, number) = (year.parse().map_err(|_| bad())?, number.parse().map_err(|_| bad())?);
        if year < 1999 {
            return Err(bad());
        }
        Ok(Self { year, number })
    }
}

impl fmt::Display for Cve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CVE-{}-{:04}", self.year, self.number)
    }
}

impl Serialize for Cve {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cve {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_has_one_form() {
        for good in ["CVE-1999-0001", "CVE-2024-3094", "CVE-2026-123456789"] {
            assert_eq!(good.parse::<Cve>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "CVE-",
            "cve-2024-3094",
            "CVE-2024-309",
            "CVE-2024-03094",
            "CVE-24-3094",
            "CVE-2024-3094 ",
            "CVE-2024-+094",
        ] {
            assert!(bad.parse::<Cve>().is_err(), "{bad}");
        }
    }
}
