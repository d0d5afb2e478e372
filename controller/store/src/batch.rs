//! What one commit asks for: preconditions, puts and deletes, log records.
//!
//! A batch is built by the caller, judged whole by the backend and written whole or not at all. It must never
//! hold two operations on one key: their order would matter and nobody could see it.

use std::collections::BTreeSet;
use std::fmt;

use uuid::Uuid;

use crate::contract::{MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MAX_VALUE_BYTES};
use crate::error::StoreError;
use crate::key::{Key, LogName};

/// The id of one commit, made by the caller and never used for a second one. It is stored with everything the
/// commit writes, so that it can be read back when the outcome is unknown, and serves as the version of a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId([u8; 16]);

impl WriteId {
    /// An id from 16 bytes that the caller drew at random.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl From<Uuid> for WriteId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid.into_bytes())
    }
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Debug for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteId({self})")
    }
}

/// What must be true for a batch to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// The key does not exist.
    Absent(Key),
    /// The key exists and was last written by this commit.
    WriteIdIs(Key, WriteId),
}

impl Precondition {
    /// The key it speaks of.
    pub fn key(&self) -> &Key {
        match self {
            Self::Absent(key) | Self::WriteIdIs(key, _) => key,
        }
    }
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets the value, whether or not the key exists.
    Put(Key, Vec<u8>),
    /// Removes the key; no error when it is absent.
    Delete(Key),
}

impl Op {
    /// The key it changes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

/// Makes the bytes of a log record from the index that the store gave it. It runs inside the commit, on the
/// backend's own thread: it must be quick, must not wait for anything, and must not call the store.
pub type MakeRecord = Box<dyn FnOnce(u64) -> Vec<u8> + Send>;

/// One record to append to a log in the same commit.
pub struct Append {
    /// The log.
    pub log: LogName,
    /// Makes the record; at most [`crate::contract::MAX_RECORD_BYTES`].
    pub make: MakeRecord,
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append").field("log", &self.log).finish_non_exhaustive()
    }
}

/// A commit in the making. Build it with the chained methods, or push to its lists in a loop.
///
/// ```
/// # fn main() -> Result<(), fleet_store::StoreError> {
/// use fleet_store::{Batch, Key, LogName, WriteId};
/// let batch = Batch::new(WriteId::from_bytes([1; 16]))
///     .create(Key::new("run/7")?, b"planned".to_vec())
///     .append(LogName::new("audit/leaf")?, |index| format!("{index}: run 7 was planned").into_bytes());
/// # batch.check()
/// # }
/// ```
#[derive(Debug)]
pub struct Batch {
    /// The id of this commit.
    pub write_id: WriteId,
    /// What must be true.
    pub preconditions: Vec<Precondition>,
    /// What changes.
    pub ops: Vec<Op>,
    /// What is appended to logs, in this order.
    pub appends: Vec<Append>,
    /// Whether the batch may use the reserve below the normal floor of free space: stopping work and storing
    /// reports go on when starting work does not (security-and-delivery §3.4).
    pub from_reserve: bool,
}

/// What a commit brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// The index of each appended record, in the order of [`Batch::appends`].
    pub appended: Vec<u64>,
}

impl Batch {
    /// An empty batch with its id.
    pub fn new(write_id: WriteId) -> Self {
        Self {
            write_id,
            preconditions: Vec::new(),
            ops: Vec::new(),
            appends: Vec::new(),
            from_reserve: false,
        }
    }

    /// Only if the key is absent.
    #[must_use]
    pub fn if_absent(mut self, key: Key) -> Self {
        self.preconditions.push(Precondition::Absent(key));
        self
    }

    /// Only if the key was last written by `seen`.
    #[must_use]
    pub fn if_write_id(mut self, key: Key, seen: WriteId) -> Self {
        self.preconditions.push(Precondition::WriteIdIs(key, seen));
        self
    }

    /// Sets a key, whatever it held.
    #[must_use]
    pub fn put(mut self, key: Key, value: impl Into<Vec<u8>>) -> Self {
        self.ops.push(Op::Put(key, value.into()));
        self
    }

    /// Removes a key, if it is there.
    #[must_use]
    pub fn delete(mut self, key: Key) -> Self {
        self.ops.push(Op::Delete(key));
        self
    }

    /// Sets a key that must be absent.
    #[must_use]
    pub fn create(self, key: Key, value: impl Into<Vec<u8>>) -> Self {
        self.if_absent(key.clone()).put(key, value)
    }

    /// Sets a key that must be as it was `seen`.
    #[must_use]
    pub fn replace(self, key: Key, seen: WriteId, value: impl Into<Vec<u8>>) -> Self {
        self.if_write_id(key.clone(), seen).put(key, value)
    }

    /// Removes a key that must be as it was `seen`.
    #[must_use]
    pub fn remove(self, key: Key, seen: WriteId) -> Self {
        self.if_write_id(key.clone(), seen).delete(key)
    }

    /// Appends a record to a log; see [`MakeRecord`] for what `make` may do.
    #[must_use]
    pub fn append(mut self, log: LogName, make: impl FnOnce(u64) -> Vec<u8> + Send + 'static) -> Self {
        self.appends.push(Append { log, make: Box::new(make) });
        self
    }

    /// Lets this batch use the reserve of free space.
    #[must_use]
    pub fn using_reserve(mut self) -> Self {
        self.from_reserve = true;
        self
    }

    /// Bytes of keys and values known before the commit; log records are counted when they are made.
    pub fn known_bytes(&self) -> usize {
        let ops = self.ops.iter().map(|op| match op {
            Op::Put(key, value) => key.as_bytes().len() + value.len(),
            Op::Delete(key) => key.as_bytes().len(),
        });
        ops.chain(self.preconditions.iter().map(|p| p.key().as_bytes().len())).sum()
    }

    /// Checks all limits that can be checked before the commit. Backends call it first; callers need not.
    pub fn check(&self) -> Result<(), StoreError> {
        let operations = self.ops.len() + self.appends.len();
        if operations == 0 {
            return Err(StoreError::Invalid { reason: "a batch changes nothing".to_owned() });
        }
        check_limit("operations of a batch", operations, MAX_BATCH_OPERATIONS)?;
        check_limit("preconditions of a batch", self.preconditions.len(), MAX_BATCH_OPERATIONS)?;
        check_limit("bytes of a batch", self.known_bytes(), MAX_BATCH_BYTES)?;
        for op in &self.ops {
            if let Op::Put(key, value) = op
                && value.len() > MAX_VALUE_BYTES
            {
                return Err(StoreError::TooLarge {
                    what: format!("bytes of the value of {key}"),
                    actual: value.len(),
                    limit: MAX_VALUE_BYTES,
                });
            }
        }
        check_distinct("operations", self.ops.iter().map(Op::key))?;
        check_distinct("preconditions", self.preconditions.iter().map(Precondition::key))
    }
}

/// Refuses a number over its limit.
pub(crate) fn check_limit(what: &str, actual: usize, limit: usize) -> Result<(), StoreError> {
    if actual <= limit {
        return Ok(());
    }
    Err(StoreError::TooLarge { what: what.to_owned(), actual, limit })
}

fn check_distinct<'a>(what: &str, keys: impl Iterator<Item = &'a Key>) -> Result<(), StoreError> {
    let mut seen = BTreeSet::new();
    for key in keys {
        if !seen.insert(key) {
            return Err(StoreError::Invalid { reason: format!("a batch has two {what} on key {key}") });
        }
    }
    Ok(())
}
