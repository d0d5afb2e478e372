//! A base score in tenths, and its band. Pure; anyone may call it.

use std::fmt;
use std::str::FromStr;

use fleet_types::severity::Severity;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A base score from 0.0 to 10.0, in tenths: never a float, so that two programs never differ about 6.95.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Score(u8);

/// A text that is no score.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no score; a score is a number from 0.0 to 10.0 with one digit after the point")]
pub struct BadScore(pub String);

/// The band that decides about hours and tests. CVSS 2.0 has three words of its own; here its number is banded as
/// that of the later versions, so that one score has one deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Band {
    /// 0.0: nothing to do.
    None,
    /// 0.1 to 3.9.
    Low,
    /// 4.0 to 6.9.
    Medium,
    /// 7.0 to 8.9.
    High,
    /// 9.0 to 10.0.
    Critical,
}

impl Score {
    /// The lowest: a vector without any impact.
    pub const NONE: Self = Self(0);
    /// The highest.
    pub const MAX: Self = Self(100);

    /// From tenths, 0 to 100.
    pub const fn from_tenths(tenths: u8) -> Option<Self> {
        if tenths <= Self::MAX.0 { Some(Self(tenths)) } else { None }
    }

    /// As tenths, 0 to 100.
    pub const fn tenths(self) -> u8 {
        self.0
    }

    /// Its band.
    pub const fn band(self) -> Band {
        match self.0 {
            0 => Band::None,
            1..=39 => Band::Low,
            40..=69 => Band::Medium,
            70..=89 => Band::High,
            _ => Band::Critical,
        }
    }
}

impl Band {
    /// The word as shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Low => Severity::Low.as_str(),
            Self::Medium => Severity::Medium.as_str(),
            Self::High => Severity::High.as_str(),
            Self::Critical => Severity::Critical.as_str(),
        }
    }

    /// As the severity of a finding; none of 0.0.
    pub const fn severity(self) -> Option<Severity> {
        match self {
            Self::None => None,
            Self::Low => Some(Severity::Low),
            Self::Medium => Some(Severity::Medium),
            Self::High => Some(Severity::High),
            Self::Critical => Some(Severity::Critical),
        }
    }
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

impl FromStr for Score {
    type Err = BadScore;

    /// `9.8`, `10`, `10.0`: digits, at most one after the point. No sign, no exponent, no NaN.
    fn from_str(text: &str) -> Result<Self, BadScore> {
        let bad = || BadScore(text.chars().take(32).collect());
        let (whole, tenth) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str, most: usize| {
            !part.is_empty() && part.len() <= most && part.bytes().all(|b| b.is_ascii_digit())
        };
        if !digits(whole, 2) || !digits(tenth, 1) {
            return Err(bad());
        }
        let tenths: u16 = format!("{whole}{tenth}").parse().map_err(|_| bad())?;
        u8::try_from(tenths).ok().and_then(Self::from_tenths).ok_or_else(bad)
    }
}

/// As text, `"9.8"`: signed and stored documents hold no floats.
impl Serialize for Score {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Score {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tenth_reads_as_itself_and_has_its_band() {
        let mut bands = Vec::new();
        for tenths in 0..=100 {
            let score = Score::from_tenths(tenths).unwrap();
            assert_eq!(score.to_string().parse(), Ok(score));
            if bands.last().is_none_or(|(band, _)| *band != score.band()) {
                bands.push((score.band(), score.to_string()));
            }
        }
        let starts: Vec<String> = bands.iter().map(|(band, from)| format!("{band} {from}")).collect();
        assert_eq!(starts, ["none 0.0", "low 0.1", "medium 4.0", "high 7.0", "critical 9.0"]);
        assert_eq!(Score::from_tenths(101), None);
    }

    #[test]
    fn t40_what_is_no_score_is_refused() {
        for text in [
            "",
            "NaN",
            "nan",
            "inf",
            "-1",
            "-0.0",
            "+1.0",
            "11.0",
            "10.1",
            "9.85",
            "9.",
            ".5",
            "1e1",
            "1,0",
            " 9.8",
            "9.8 ",
            "0x9",
            "99999999999999999999",
            "９.8",
        ] {
            assert!(text.parse::<Score>().is_err(), "{text}");
        }
        assert_eq!("10".parse(), Ok(Score::MAX));
    }
}
