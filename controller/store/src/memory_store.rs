//! The reference backend: a sorted map behind one lock.
//!
//! For tests and for trying things out; it keeps nothing when the process ends. The smallest code that meets the
//! contract, so that other backends can be compared with it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::batch::{Batch, Committed};
use crate::commit_plan::{GroupPlan, StoredView, counter_key, read_counter};
use crate::contract::{Direction, Entry, KvStore, check_scan_limit};
use crate::envelope;
use crate::error::StoreError;
use crate::key::{Key, LogName};
use crate::scan_range::ScanRange;

type Stored = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    stored: Mutex<Stored>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    // No code under the lock can leave the map half changed, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoredView for Stored {
    fn stored(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.get(key).cloned())
    }
}

#[async_trait]
impl KvStore for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let stored = self.lock();
        stored.get(key.as_bytes()).map(|sealed| envelope::open(key.as_bytes(), sealed)).transpose()
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<(Key, Entry)>, StoreError> {
        check_scan_limit(limit)?;
        let Some(range) = ScanRange::new(prefix, after, direction) else { return Ok(Vec::new()) };
        let stored = self.lock();
        let found = stored.range::<[u8], _>(range.bounds());
        let open = |(key, sealed): (&Vec<u8>, &Vec<u8>)| {
            Ok((Key::from_stored(key.clone()), envelope::open(key, sealed)?))
        };
        match direction {
            Direction::Ascending => found.take(limit).map(open).collect(),
            Direction::Descending => found.rev().take(limit).map(open).collect(),
        }
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        let mut stored = self.lock();
        let mut plan = GroupPlan::new(&*stored);
        let committed = plan.add(batch)?;
        for (key, sealed) in plan.into_writes() {
            match sealed {
                Some(sealed) => stored.insert(key, sealed),
                None => stored.remove(&key),
            };
        }
        Ok(committed)
    }

    async fn log_len(&self, log: &LogName) -> Result<u64, StoreError> {
        let counter = counter_key(log);
        read_counter(&counter, self.lock().get(&counter).map(Vec::as_slice))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
