//! `warn` and `critical` of a check: a number or `cores * number` (ACTIONS.md, "Expressions").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::value::MAX_INTEGER;

/// A limit, kept as written. The unit is that of what is measured (percent, a load average, days).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Threshold {
    written: Written,
    amount: Amount,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Written {
    Number(i64),
    Text(String),
}

/// A number in thousandths, perhaps for each core of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// This much, in thousandths.
    Fixed(i64),
    /// This much for each core, in thousandths.
    PerCore(i64),
}

/// The text is no threshold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a threshold: write a number, or \"cores * 2\"")]
pub struct ThresholdError(String);

impl Threshold {
    /// The limit on a node with this many cores, in thousandths of the unit: `80` is 80,000.
    ///
    /// Thousandths, because load averages have a fraction and documents hold no floats.
    pub const fn thousandths(&self, cores: u32) -> i64 {
        self.amount.thousandths(cores)
    }
}

impl Amount {
    /// The limit on a node with this many cores, in thousandths.
    pub const fn thousandths(self, cores: u32) -> i64 {
        match self {
            Self::Fixed(thousandths) => thousandths,
            Self::PerCore(thousandths) => thousandths.saturating_mul(cores as i64),
        }
    }
}

impl From<i64> for Threshold {
    fn from(number: i64) -> Self {
        let number = number.clamp(-MAX_INTEGER, MAX_INTEGER);
        Self { written: Written::Number(number), amount: Amount::Fixed(number.saturating_mul(1000)) }
    }
}

impl FromStr for Amount {
    type Err = ThresholdError;

    /// Reads `number` or `cores * number`.
    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        let bad = || ThresholdError(text.chars().filter(|c| !c.is_control()).take(64).collect());
        let trimmed = text.trim();
        if let Some(rest) = trimmed.strip_prefix("cores") {
            let factor = rest.trim_start().strip_prefix('*').ok_or_else(bad)?;
            return thousandths_of(factor.trim()).map(Self::PerCore).ok_or_else(bad);
        }
        thousandths_of(trimmed).map(Self::Fixed).ok_or_else(bad)
    }
}

/// `12` and `1.5`: at most three digits after the point, at most twelve before it.
fn thousandths_of(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str, most: usize| {
        !part.is_empty() && part.len() <= most && part.bytes().all(|b| b.is_ascii_digit())
    };
    if !digits(whole, 12) || !digits(fraction, 3) {
        return None;
    }
    let thousandths: i64 = format!("{fraction:0<3}").parse().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(1000)?.checked_add(thousandths)
}

impl FromStr for Threshold {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        Ok(Self { written: Written::Text(text.to_owned()), amount: text.parse()? })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.written {
            Written::Number(number) => write!(f, "{number}"),
            Written::Text(text) => f.pad(text),
        }
    }
}

impl Serialize for Threshold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.written {
            Written::Number(number) => serializer.serialize_i64(*number),
            Written::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match super::Value::deserialize(deserializer)? {
            super::Value::Integer(number) => Ok(Self::from(number)),
            super::Value::String(text) => text.parse().map_err(serde::de::Error::custom),
            other => Err(serde::de::Error::custom(format!(
                "expected a number or \"cores * 2\", found {}",
                other.kind()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_multiples_of_cores() {
        let limit = |text: &str| text.parse::<Threshold>().unwrap().thousandths(4);
        assert_eq!(limit("cores * 2"), 8000);
        assert_eq!(limit("cores*1.5"), 6000);
        assert_eq!(limit("90"), 90_000);
        assert_eq!(Threshold::from(80).thousandths(64), 80_000);
        for bad in ["", "cores", "cores * ", "2 * cores", "cores * -1", "1e3", "cores * cores", "1.2345", "."]
        {
            assert!(bad.parse::<Threshold>().is_err(), "{bad}");
        }
        assert_eq!(
            serde_json::to_string(&"cores * 1".parse::<Threshold>().unwrap()).unwrap(),
            "\"cores * 1\""
        );
        assert_eq!(serde_json::to_string(&serde_json::from_str::<Threshold>("80").unwrap()).unwrap(), "80");
    }
}
