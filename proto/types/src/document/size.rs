//! Sizes in bytes as operators write them: `512MiB`. Kept as written, compared by bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes as it was written: `0`, `64KiB`, `512MiB`, `2GiB`, `1TiB`.
#[derive(Debug, Clone)]
pub struct Size {
    text: String,
    bytes: u64,
}

/// The text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a size: write a whole number and a unit, such as 64KiB, 512MiB or 2GiB (at most 1024TiB)"
)]
pub struct SizeError(String);

impl Size {
    /// The number of bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let bad = || SizeError(text.chars().filter(|c| !c.is_control()).take(64).collect());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().map_err(|_| bad())?;
        let shift = match &text[digits..] {
            "" if number == 0 => 0,
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return Err(bad()),
        };
        // 1024 TiB is 2^50 bytes: within the integers that JSON keeps.
        let bytes = number.checked_mul(1 << shift).filter(|bytes| *bytes <= 1 << 50).ok_or_else(bad)?;
        Ok(Self { text: text.to_owned(), bytes })
    }
}

impl PartialEq for Size {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Size {}

impl PartialOrd for Size {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Size {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.bytes.cmp(&other.bytes)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_their_text() {
        assert_eq!("512MiB".parse::<Size>().unwrap().bytes(), 512 << 20);
        assert_eq!("0".parse::<Size>().unwrap().bytes(), 0);
        for bad in ["", "5", "MiB", "1.5MiB", "1MB", "2000TiB", "-1KiB", "1 KiB", "99999999999999999999B"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }
}
