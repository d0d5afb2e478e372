//! Keys and the names of logs, checked when they are made.
//!
//! The meaning and the text of keys live in the controller's `repo/keys` file alone; here is only what every
//! backend needs: length, order, and the part of the key space that belongs to the store itself.

use std::fmt;

use crate::contract::MAX_KEY_BYTES;
use crate::error::StoreError;

/// The longest name of a log in bytes: with a separator and eight bytes of index it stays far below a key's limit.
pub const MAX_LOG_NAME_BYTES: usize = 64;

/// First byte of the keys that belong to the store itself (schema version, log counters). Callers cannot make one.
pub(crate) const RESERVED_FIRST_BYTE: u8 = 0;

/// A key: 1 to [`MAX_KEY_BYTES`] bytes, compared as bytes. The first byte is not zero; that range is the store's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// Checks the length and the first byte.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, StoreError> {
        let bytes = bytes.into();
        match bytes.first() {
            None => Err(StoreError::Invalid { reason: "a key is empty".to_owned() }),
            Some(&RESERVED_FIRST_BYTE) => Err(StoreError::Invalid {
                reason: format!("key {} begins with a zero byte", Escaped(&bytes)),
            }),
            Some(_) if bytes.len() > MAX_KEY_BYTES => Err(StoreError::TooLarge {
                what: format!("bytes of key {}…", Escaped(&bytes[..32])),
                actual: bytes.len(),
                limit: MAX_KEY_BYTES,
            }),
            Some(_) => Ok(Self(bytes)),
        }
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes of the key, given away.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A key read back from a backend, which only holds keys that were checked before.
    pub(crate) fn from_stored(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&str> for Key {
    type Error = StoreError;

    fn try_from(text: &str) -> Result<Self, StoreError> {
        Self::new(text)
    }
}

impl TryFrom<Vec<u8>> for Key {
    type Error = StoreError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, StoreError> {
        Self::new(bytes)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.0).fmt(f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", Escaped(&self.0))
    }
}

/// The name of a log: 1 to [`MAX_LOG_NAME_BYTES`] of `a-z 0-9 _ - /`, not ending in `/`.
///
/// The keys `<name>/<index as 8 bytes, big endian>` belong to the log alone: nobody puts them, and pruning
/// deletes from the lowest index upwards but never the last record, so that the counter stays provable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogName(String);

impl LogName {
    /// Checks length and letters.
    pub fn new(name: impl Into<String>) -> Result<Self, StoreError> {
        let name = name.into();
        let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'/');
        if name.is_empty()
            || name.len() > MAX_LOG_NAME_BYTES
            || name.ends_with('/')
            || !name.bytes().all(letters)
        {
            return Err(StoreError::Invalid {
                reason: format!(
                    "log name {name:?} is not 1 to {MAX_LOG_NAME_BYTES} of a-z 0-9 _ - / without a final /"
                ),
            });
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The prefix of all records of this log, for scans.
    pub fn record_prefix(&self) -> Vec<u8> {
        format!("{}/", self.0).into_bytes()
    }

    /// The key of one record.
    pub fn record_key(&self, index: u64) -> Key {
        let mut bytes = self.record_prefix();
        bytes.extend_from_slice(&index.to_be_bytes());
        Key(bytes)
    }

    /// The index in a record's key, or `None` when the key is not one of this log's records.
    pub fn index_of(&self, key: &Key) -> Option<u64> {
        let tail = key.as_bytes().strip_prefix(self.record_prefix().as_slice())?;
        Some(u64::from_be_bytes(tail.try_into().ok()?))
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The smallest byte string above every string that begins with `prefix`, or `None` when there is none.
pub(crate) fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last_below_max = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=last_below_max].to_vec();
    end[last_below_max] += 1;
    Some(end)
}

/// Bytes for people: printable ASCII as it is, the rest as `\xNN`.
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked() {
        assert!(Key::new("").is_err());
        assert!(Key::new(vec![0, 1]).is_err());
        assert!(Key::new(vec![1; MAX_KEY_BYTES]).is_ok());
        assert!(matches!(
            Key::new(vec![b'k'; MAX_KEY_BYTES + 1]),
            Err(StoreError::TooLarge { actual: 513, limit: 512, .. })
        ));
        assert_eq!(Key::new(b"run/\xff\n".to_vec()).unwrap().to_string(), r#""run/\xff\n""#);
    }

    #[test]
    fn log_names_are_checked_and_record_keys_sort_by_index() {
        for bad in ["", "a/", "A", "a b", "a\0", &"x".repeat(65)] {
            assert!(LogName::new(bad).is_err(), "{bad:?}");
        }
        let log = LogName::new("audit/leaf").unwrap();
        assert!(log.record_key(255) < log.record_key(256));
        assert_eq!(log.index_of(&log.record_key(1 << 40)), Some(1 << 40));
        assert_eq!(log.index_of(&Key::new("audit/leaf/x").unwrap()), None);
    }

    #[test]
    fn the_end_of_a_prefix_is_above_all_that_begin_with_it() {
        assert_eq!(end_of_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(end_of_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(end_of_prefix(b"\xff"), None);
        assert_eq!(end_of_prefix(b""), None);
    }
}
