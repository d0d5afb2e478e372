//! Certificate serial numbers: drawn here, compared in the deny list.

use std::fmt;
use std::str::FromStr;

use fleet_types::digest::{hex, unhex};
use ring::rand::SecureRandom;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// RFC 5280 §4.1.2.2: at most 20 octets.
const MAX_BYTES: usize = 20;

/// A positive serial number, big-endian without leading zeros; shown as lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Box<[u8]>);

/// Not a serial number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate serial: expected 1 to 20 bytes in lower-case hexadecimal, not zero")]
pub struct SerialError;

impl Serial {
    /// A random serial of 16 bytes: 126 random bits, so that two certificates never share one and
    /// nobody can predict the next (which is what keeps chosen-prefix collisions out).
    pub fn random(random: &dyn SecureRandom) -> Result<Self, ring::error::Unspecified> {
        let mut bytes = [0u8; 16];
        random.fill(&mut bytes)?;
        // Positive (top bit clear) and always 16 bytes long (next bit set).
        bytes[0] = bytes[0] & 0x3f | 0x40;
        Ok(Self(bytes.into()))
    }

    /// Takes the content octets of the DER integer.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SerialError> {
        let start = bytes.iter().position(|b| *b != 0).ok_or(SerialError)?;
        let trimmed = &bytes[start..];
        // A set top bit without a zero octet before it is a negative number.
        if trimmed.len() > MAX_BYTES || (start == 0 && trimmed[0] & 0x80 != 0) {
            return Err(SerialError);
        }
        Ok(Self(trimmed.into()))
    }

    /// The bytes, big-endian.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex(&self.0))
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, SerialError> {
        let bytes = unhex(text).ok_or(SerialError)?;
        if bytes.first().is_none_or(|b| *b == 0) || bytes.len() > MAX_BYTES {
            return Err(SerialError);
        }
        Ok(Self(bytes.into()))
    }
}

impl Serialize for Serial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Serial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_positive_and_have_one_spelling() {
        let random = ring::rand::SystemRandom::new();
        let one = Serial::random(&random).unwrap();
        assert_ne!(one, Serial::random(&random).unwrap());
        assert_eq!((one.as_bytes().len(), one.as_bytes()[0] & 0xc0), (16, 0x40));
        assert_eq!(one.to_string().parse::<Serial>().unwrap(), one);
        assert_eq!(Serial::from_bytes(&[0, 0x80, 1]).unwrap().to_string(), "8001");
        for bad in [&[][..], &[0, 0], &[0x80], &[1; 21]] {
            assert!(Serial::from_bytes(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "00", "0x1", "A1", "001f"] {
            assert!(bad.parse::<Serial>().is_err(), "{bad:?}");
        }
    }
}
