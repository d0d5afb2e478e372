//! What the store keeps about itself with every group: its number and how many keys there are.
//!
//! The number shows a store that has gone back in time (see `mark`), the count one that has lost something in the
//! middle. Both change in the same atomic batch as the keys. Stored under [`GROUP_KEY`] as two numbers of eight bytes,
//! big endian; the key itself and the schema version are not counted.

use crate::commit_plan::{GROUP_KEY, SCHEMA_KEY, STORE_WRITE_ID, Writes};
use crate::envelope;
use crate::error::StoreError;

/// Number of the last durable group, and the keys after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct GroupState {
    pub(crate) number: u64,
    pub(crate) keys: u64,
}

impl GroupState {
    /// The state after a group that replaces `before` with `writes` (the same keys in both).
    pub(crate) fn after(self, before: &Writes, writes: &Writes) -> Self {
        let present = |values: &Writes| values.values().flatten().count() as u64;
        // A count below zero would mean that it was wrong before; it then stays wrong and the next probe says so.
        let keys = (self.keys + present(writes)).saturating_sub(present(before));
        Self { number: self.number + 1, keys }
    }

    /// The stored form.
    pub(crate) fn seal(self) -> Vec<u8> {
        let body = [self.number.to_be_bytes(), self.keys.to_be_bytes()].concat();
        envelope::seal(GROUP_KEY, STORE_WRITE_ID, &body)
    }

    /// Reads the stored form; a store without it has had no group.
    pub(crate) fn open(sealed: Option<&[u8]>) -> Result<Self, StoreError> {
        let Some(sealed) = sealed else { return Ok(Self::default()) };
        let body = envelope::open(GROUP_KEY, sealed)?.value;
        let damaged =
            || StoreError::Corrupt { what: "the state of the last group cannot be read".to_owned() };
        let (number, rest) = body.split_first_chunk::<8>().ok_or_else(damaged)?;
        let keys: [u8; 8] = rest.try_into().map_err(|_| damaged())?;
        Ok(Self { number: u64::from_be_bytes(*number), keys: u64::from_be_bytes(keys) })
    }
}

/// Reads every value, checks its checksum, and compares the number of keys with the count. It reads the whole store.
pub(crate) fn check_all_keys(db: &sled::Db, expected: GroupState) -> sled::Result<Result<u64, StoreError>> {
    let mut keys = 0;
    for found in db.iter() {
        let (key, sealed) = found?;
        if let Err(error) = envelope::open(&key, &sealed) {
            return Ok(Err(error));
        }
        if key != SCHEMA_KEY && key != GROUP_KEY {
            keys += 1;
        }
    }
    if keys == expected.keys {
        return Ok(Ok(keys));
    }
    Ok(Err(StoreError::Corrupt {
        what: format!("{keys} keys were found where there should be {}", expected.keys),
    }))
}
