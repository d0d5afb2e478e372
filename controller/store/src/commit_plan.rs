//! The rules of a commit, once for all backends: from a group of batches to the keys to write.
//!
//! A backend opens a [`GroupPlan`] over its durable state, adds one batch after the other and writes what comes
//! out. A batch that fails leaves no trace in the plan. Pure but for the reads of the view; backends only.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::batch::{Append, Batch, Committed, Op, Precondition, WriteId, check_limit};
use crate::contract::{MAX_BATCH_BYTES, MAX_RECORD_BYTES};
use crate::envelope;
use crate::error::StoreError;
use crate::key::LogName;

/// Key of the store's schema version: four bytes, big endian.
pub(crate) const SCHEMA_KEY: &[u8] = b"\0schema";
/// Prefix of the log counters: `\0log/<name>` holds the next index, eight bytes, big endian.
pub(crate) const LOG_COUNTER_PREFIX: &[u8] = b"\0log/";

/// The write id of what the store writes for itself.
pub(crate) const STORE_WRITE_ID: WriteId = WriteId::from_bytes([0; 16]);
/// Key of what a backend keeps about its last group.
pub(crate) const GROUP_KEY: &[u8] = b"\0group";

/// What is stored now, as sealed envelopes.
pub(crate) trait StoredView {
    /// The sealed bytes under a key.
    fn stored(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
}

/// Keys to write: sealed bytes, or `None` to remove.
pub(crate) type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The key of a log's counter.
pub(crate) fn counter_key(log: &LogName) -> Vec<u8> {
    [LOG_COUNTER_PREFIX, log.as_str().as_bytes()].concat()
}

/// The number in a counter's stored bytes; 0 when nothing is stored.
pub(crate) fn read_counter(key: &[u8], sealed: Option<&[u8]>) -> Result<u64, StoreError> {
    let Some(sealed) = sealed else { return Ok(0) };
    let value = envelope::open(key, sealed)?.value;
    let bytes: [u8; 8] = value.try_into().map_err(|_| StoreError::Corrupt {
        what: format!("counter {} is not a number", key.escape_ascii()),
    })?;
    Ok(u64::from_be_bytes(bytes))
}

/// A group of commits on its way to one durable write.
pub(crate) struct GroupPlan<'v, V> {
    view: &'v V,
    writes: Writes,
}

impl<'v, V: StoredView> GroupPlan<'v, V> {
    pub(crate) fn new(view: &'v V) -> Self {
        Self { view, writes: Writes::new() }
    }

    /// Judges one batch against the view and what earlier batches of the group write. On an error the plan is
    /// as it was before.
    pub(crate) fn add(&mut self, batch: Batch) -> Result<Committed, StoreError> {
        batch.check()?;
        for precondition in &batch.preconditions {
            self.check_precondition(precondition)?;
        }
        let room_for_records = MAX_BATCH_BYTES.saturating_sub(batch.known_bytes());
        let write_id = batch.write_id;
        let (mut own, committed) = self.make_records(batch.appends, write_id, room_for_records)?;
        for op in batch.ops {
            let (key, sealed) = match op {
                Op::Put(key, value) => {
                    let sealed = envelope::seal(key.as_bytes(), write_id, &value);
                    (key, Some(sealed))
                }
                Op::Delete(key) => (key, None),
            };
            if own.contains_key(key.as_bytes()) {
                return Err(StoreError::Invalid {
                    reason: format!("key {key} belongs to a log of the same batch"),
                });
            }
            own.insert(key.into_bytes(), sealed);
        }
        // One by one: joining two maps takes both apart, and the group would cost the square of its size.
        self.writes.extend(own);
        Ok(committed)
    }

    /// What the group writes.
    pub(crate) fn into_writes(self) -> Writes {
        self.writes
    }

    fn current(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.writes.get(key) {
            Some(pending) => Ok(pending.clone()),
            None => self.view.stored(key),
        }
    }

    fn check_precondition(&self, precondition: &Precondition) -> Result<(), StoreError> {
        let key = precondition.key();
        let stored = self.current(key.as_bytes())?;
        let holds = match (precondition, stored) {
            (Precondition::Absent(_), None) => true,
            (Precondition::Absent(_), Some(_)) | (Precondition::WriteIdIs(..), None) => false,
            (Precondition::WriteIdIs(_, seen), Some(sealed)) => {
                envelope::open(key.as_bytes(), &sealed)?.write_id == *seen
            }
        };
        if holds { Ok(()) } else { Err(StoreError::Conflict { key: key.clone() }) }
    }

    /// Numbers the records, makes them, and returns them with the new counters.
    fn make_records(
        &self,
        appends: Vec<Append>,
        write_id: WriteId,
        room_bytes: usize,
    ) -> Result<(Writes, Committed), StoreError> {
        let mut writes = Writes::new();
        let mut appended = Vec::with_capacity(appends.len());
        let mut used_bytes = 0;
        for Append { log, make } in appends {
            let counter = counter_key(&log);
            let index = match writes.get(&counter) {
                Some(sealed) => read_counter(&counter, sealed.as_deref())?,
                None => read_counter(&counter, self.current(&counter)?.as_deref())?,
            };
            let key = log.record_key(index).into_bytes();
            if self.current(&key)?.is_some() {
                return Err(StoreError::Corrupt {
                    what: format!("log {log} has a record {index} above its counter"),
                });
            }
            // A panic in the caller's closure must fail that request, not the writer that serves everybody.
            let record = catch_unwind(AssertUnwindSafe(|| make(index))).map_err(|_| StoreError::Invalid {
                reason: format!("making a record of log {log} panicked"),
            })?;
            check_limit(&format!("bytes of a record of log {log}"), record.len(), MAX_RECORD_BYTES)?;
            used_bytes += key.len() + record.len();
            check_limit("bytes of a batch with its log records", used_bytes, room_bytes)?;
            let sealed_counter = envelope::seal(&counter, write_id, &(index + 1).to_be_bytes());
            let sealed_record = envelope::seal(&key, write_id, &record);
            writes.insert(counter, Some(sealed_counter));
            writes.insert(key, Some(sealed_record));
            appended.push(index);
        }
        Ok((writes, Committed { appended }))
    }
}
