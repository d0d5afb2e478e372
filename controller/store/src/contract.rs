//! The contract of every store backend.
//!
//! What it is for: the controller's state, in a form that an embedded file, one `PostgreSQL` and several
//! controllers can all keep. What it must never do: learn what a key means, or hide that a write may have
//! happened. Who may call it: the controller's `repo` layer; leases, locks and queues are built on top of it.
//!
//! # What a backend promises
//!
//! * **Durable.** When [`KvStore::commit`] returns `Ok`, the batch survives a kill of the process and a loss of
//!   power. What [`KvStore::get`] and [`KvStore::scan`] return is durable too: nobody acts on a state that a
//!   crash could take back.
//! * **Atomic.** A batch is written whole or not at all, its log records included.
//! * **Conditional.** All preconditions hold at the instant of the write, or nothing is written and the error is
//!   [`StoreError::Conflict`] with the key. Preconditions are not ordered; any failing one may be named.
//! * **Isolated failures.** Backends gather concurrent requests into one durable group. Each request of a
//!   group passes or fails alone, judged against the state that the earlier ones of the group left.
//! * **Honest.** Every error but [`StoreError::OutcomeUnknown`] means that the batch was certainly not written
//!   ([`StoreError::certainly_not_written`]). After `OutcomeUnknown` the caller reads back before it goes on
//!   ([`crate::resolve_outcome`]): each key that a batch puts, and each log record, carries its write id.
//! * **Ordered.** Keys are compared as bytes. A scan is paged; a page is consistent in itself, the pages of one
//!   scan are not a snapshot.
//! * **Logs are contiguous.** Records of a log are numbered from 0 in the order of their commits, without gaps;
//!   a request that fails uses no number. The next number is kept by the backend in the same atomic write.
//!
//! A commit whose future is dropped may still be written: treat it like `OutcomeUnknown`.

use async_trait::async_trait;

use crate::batch::{Batch, Committed, WriteId};
use crate::error::StoreError;
use crate::key::{Key, LogName};

/// The longest key in bytes (DESIGN "Store").
pub const MAX_KEY_BYTES: usize = 512;
/// The longest value in bytes, without the backend's envelope. sled keeps values of this size inside its log;
/// larger ones would go to separate files (security-and-delivery §4.6).
pub const MAX_VALUE_BYTES: usize = 7 * 1024;
/// The longest log record in bytes (security-and-delivery §3.1).
pub const MAX_RECORD_BYTES: usize = 4 * 1024;
/// The most puts, deletes and appends of one batch together. The same number bounds its preconditions.
pub const MAX_BATCH_OPERATIONS: usize = 1024;
/// The most bytes of keys, values, preconditions and log records of one batch together.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// The most entries of one page of a scan.
pub const MAX_SCAN_ENTRIES: usize = 1000;

/// A stored value with the id of the commit that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The id that the writing batch carried; the token for [`crate::Precondition::WriteIdIs`].
    pub write_id: WriteId,
    /// The caller's bytes, as they were put.
    pub value: Vec<u8>,
}

/// Which end of the key order a scan begins at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    Ascending,
    /// Largest key first: the newest first where keys end in a time or an index.
    Descending,
}

/// Ordered bytes with one atomic, conditional commit. The promises are in the module's text.
#[async_trait]
pub trait KvStore: Send + Sync + 'static {
    /// The entry of a key, or `None` when it is absent.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// One page of the keys that begin with `prefix`, in the given direction.
    ///
    /// `after` is the last key of the page before (exclusive; it need not exist any more): ascending pages
    /// continue above it, descending ones below it. `limit` is 1 to [`MAX_SCAN_ENTRIES`]. A page shorter than
    /// `limit` is the last one. An empty prefix means every key.
    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<(Key, Entry)>, StoreError>;

    /// Writes a batch atomically and durably, or not at all.
    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError>;

    /// How many records the log has: the index its next record will get. 0 for a log nobody has written.
    async fn log_len(&self, log: &LogName) -> Result<u64, StoreError>;

    /// Whether the store can answer right now. It does not say that a write would succeed.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Waits until the store has failed for good, and says why. From then on every call answers
    /// [`StoreError::Unavailable`], and the process must exit with code 75 so that its supervisor starts it anew
    /// (security-and-delivery §4.3). Never returns for a store that cannot fail this way.
    async fn failed(&self) -> StoreError {
        std::future::pending().await
    }

    /// Lets accepted commits end, makes everything durable and gives the store back. Later calls answer
    /// [`StoreError::Unavailable`].
    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Refuses a page size outside 1 to [`MAX_SCAN_ENTRIES`]; for backends.
pub(crate) fn check_scan_limit(limit: usize) -> Result<(), StoreError> {
    if (1..=MAX_SCAN_ENTRIES).contains(&limit) {
        return Ok(());
    }
    Err(StoreError::Invalid {
        reason: format!(
            "a page of {limit} entries was asked for; ask for 1 to {MAX_SCAN_ENTRIES} and read on by key"
        ),
    })
}
