//! A store that fails by seed, around any other store; for tests only.
//!
//! It reaches the rare branches on purpose (examples, habit 31): not available before a commit, outcome unknown after
//! it was written or without, slow answers. The faults follow from the seed and the order of the calls alone. Delays
//! use the runtime's clock, so that a test with a paused clock does not wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use fleet_store::batch::{Batch, Committed};
use fleet_store::contract::{Direction, Entry, KvStore};
use fleet_store::error::StoreError;
use fleet_store::key::{Key, LogName};

/// How often which fault happens, in percent of the calls; the first three add up to at most 100.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Any call answers [`StoreError::Unavailable`]; a commit was not written.
    pub unavailable_percent: u64,
    /// A commit is written and answers [`StoreError::OutcomeUnknown`].
    pub unknown_written_percent: u64,
    /// A commit is not written and answers [`StoreError::OutcomeUnknown`].
    pub unknown_lost_percent: u64,
    /// Each call takes a random time up to this one before it does anything.
    pub delay_up_to: Duration,
}

/// What was done to the callers so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Calls that were told the store is not available.
    pub unavailable: u64,
    /// Commits that were written and answered "outcome unknown".
    pub unknown_written: u64,
    /// Commits that were not written and answered "outcome unknown".
    pub unknown_lost: u64,
}

/// The wrapper.
pub struct FaultyStore {
    inner: Arc<dyn KvStore>,
    state: Mutex<State>,
    unavailable: AtomicU64,
    unknown_written: AtomicU64,
    unknown_lost: AtomicU64,
}

struct State {
    faults: Faults,
    random: u64,
}

/// What this call gets.
enum Fate {
    Good,
    Unavailable,
    UnknownWritten,
    UnknownLost,
}

impl FaultyStore {
    /// Wraps a store. The same seed and the same calls give the same faults.
    pub fn new(inner: Arc<dyn KvStore>, seed: u64, faults: Faults) -> Self {
        Self {
            inner,
            state: Mutex::new(State { faults, random: seed }),
            unavailable: AtomicU64::new(0),
            unknown_written: AtomicU64::new(0),
            unknown_lost: AtomicU64::new(0),
        }
    }

    /// Changes the faults from now on; `Faults::default()` heals the store.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).faults = faults;
    }

    /// What was done so far.
    pub fn counts(&self) -> FaultCounts {
        FaultCounts {
            unavailable: self.unavailable.load(Ordering::Relaxed),
            unknown_written: self.unknown_written.load(Ordering::Relaxed),
            unknown_lost: self.unknown_lost.load(Ordering::Relaxed),
        }
    }

    /// Draws the delay and the fate of a call, always both, so that the sequence does not depend on the settings.
    async fn draw(&self) -> Fate {
        let (faults, percent, delay_permille) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let percent = next_random(&mut state.random) % 100;
            let delay_permille = next_random(&mut state.random) % 1001;
            (state.faults, percent, u32::try_from(delay_permille).unwrap_or(0))
        };
        if !faults.delay_up_to.is_zero() {
            // The delay is the fault that a test asks for; with a paused clock it costs nothing.
            #[allow(clippy::disallowed_methods)]
            tokio::time::sleep(faults.delay_up_to * delay_permille / 1000).await;
        }
        let lost_below = faults.unavailable_percent + faults.unknown_lost_percent;
        if percent < faults.unavailable_percent {
            Fate::Unavailable
        } else if percent < lost_below {
            Fate::UnknownLost
        } else if percent < lost_below + faults.unknown_written_percent {
            Fate::UnknownWritten
        } else {
            Fate::Good
        }
    }

    /// Reads are good or not available.
    async fn before_read(&self) -> Result<(), StoreError> {
        match self.draw().await {
            Fate::Unavailable => Err(self.unavailable()),
            _ => Ok(()),
        }
    }

    fn unavailable(&self) -> StoreError {
        self.unavailable.fetch_add(1, Ordering::Relaxed);
        StoreError::Unavailable { reason: "the faulty store says so by its seed".to_owned() }
    }
}

#[async_trait]
impl KvStore for FaultyStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.before_read().await?;
        self.inner.get(key).await
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<(Key, Entry)>, StoreError> {
        self.before_read().await?;
        self.inner.scan(prefix, after, limit, direction).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        let write_id = batch.write_id;
        let unknown = |how: &str| StoreError::OutcomeUnknown { write_id, reason: how.to_owned() };
        match self.draw().await {
            Fate::Good => self.inner.commit(batch).await,
            Fate::Unavailable => Err(self.unavailable()),
            Fate::UnknownLost => {
                self.unknown_lost.fetch_add(1, Ordering::Relaxed);
                Err(unknown("the request was lost by seed"))
            }
            Fate::UnknownWritten => {
                self.inner.commit(batch).await?;
                self.unknown_written.fetch_add(1, Ordering::Relaxed);
                Err(unknown("the answer was lost by seed"))
            }
        }
    }

    async fn log_len(&self, log: &LogName) -> Result<u64, StoreError> {
        self.before_read().await?;
        self.inner.log_len(log).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.before_read().await?;
        self.inner.ping().await
    }

    async fn failed(&self) -> StoreError {
        self.inner.failed().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}

/// `SplitMix64`: good enough for faults, and the same on every machine.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
