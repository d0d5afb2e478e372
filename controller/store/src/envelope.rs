//! The bytes at rest: what a backend stores for one key.
//!
//! ```text
//! byte 0        envelope version (1)
//! bytes 1..5    CRC32C, little endian, over version, key, write id and body
//! bytes 5..21   write id
//! bytes 21..    body, the caller's value
//! ```
//!
//! The checksum covers the key, so that a value found under another key is damage too. Version and checksum keep
//! their places in every version, so that a newer envelope can be told from a damaged one. Backends only.

use crate::batch::WriteId;
use crate::contract::Entry;
use crate::error::StoreError;
use crate::key::Escaped;

/// The version this program writes and the highest it reads.
pub(crate) const ENVELOPE_VERSION: u8 = 1;
/// What an envelope adds to a value.
pub(crate) const ENVELOPE_BYTES: usize = 1 + 4 + 16;

/// Wraps a body for storing under `key`.
pub(crate) fn seal(key: &[u8], write_id: WriteId, body: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(ENVELOPE_BYTES + body.len());
    sealed.push(ENVELOPE_VERSION);
    sealed.extend_from_slice(&[0; 4]);
    sealed.extend_from_slice(write_id.as_bytes());
    sealed.extend_from_slice(body);
    let checksum = checksum(ENVELOPE_VERSION, key, &sealed[5..]);
    sealed[1..5].copy_from_slice(&checksum.to_le_bytes());
    sealed
}

/// Unwraps what was stored under `key`; a wrong checksum is [`StoreError::Corrupt`] and names the key.
pub(crate) fn open(key: &[u8], sealed: &[u8]) -> Result<Entry, StoreError> {
    let damaged =
        |how: &str| StoreError::Corrupt { what: format!("the value of key {} {how}", Escaped(key)) };
    let Some((&[version, c0, c1, c2, c3], rest)) = sealed.split_first_chunk::<5>() else {
        return Err(damaged("is shorter than its envelope"));
    };
    if u32::from_le_bytes([c0, c1, c2, c3]) != checksum(version, key, rest) {
        return Err(damaged("does not match its checksum"));
    }
    if version > ENVELOPE_VERSION {
        return Err(StoreError::NewerVersion { found: version.into(), known: ENVELOPE_VERSION.into() });
    }
    let Some((write_id, body)) = rest.split_first_chunk::<16>() else {
        return Err(damaged("is shorter than its envelope"));
    };
    Ok(Entry { write_id: WriteId::from_bytes(*write_id), value: body.to_vec() })
}

fn checksum(version: u8, key: &[u8], rest: &[u8]) -> u32 {
    let head = crc32c::crc32c_append(crc32c::crc32c(&[version]), key);
    crc32c::crc32c_append(head, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: WriteId = WriteId::from_bytes([9; 16]);

    #[test]
    fn what_was_sealed_opens() {
        let sealed = seal(b"k", ID, b"body");
        assert_eq!(sealed.len(), ENVELOPE_BYTES + 4);
        assert_eq!(open(b"k", &sealed), Ok(Entry { write_id: ID, value: b"body".to_vec() }));
    }

    #[test]
    fn the_bytes_of_version_1_stay_as_they_are() {
        // A kept sample: stored values of this version must open for ever.
        let sample =
            b"\x01\xA1\xA5\x9B\x59\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09planned";
        assert_eq!(seal(b"run/1", ID, b"planned"), sample);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_damage_that_names_the_key() {
        let sealed = seal(b"k", ID, b"body");
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = open(b"k", &flipped).unwrap_err();
            assert!(
                matches!(&error, StoreError::Corrupt { what } if what.contains("\"k\"")),
                "bit {bit}: {error}"
            );
        }
        for cut in 0..sealed.len() {
            assert!(matches!(open(b"k", &sealed[..cut]), Err(StoreError::Corrupt { .. })), "cut at {cut}");
        }
        assert!(
            matches!(open(b"other", &sealed), Err(StoreError::Corrupt { .. })),
            "found under another key"
        );
    }

    #[test]
    fn a_newer_envelope_is_named() {
        let mut newer = seal(b"k", ID, b"body");
        newer[0] = 2;
        let sum = checksum(2, b"k", &newer[5..]);
        newer[1..5].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(open(b"k", &newer), Err(StoreError::NewerVersion { found: 2, known: 1 }));
    }
}
