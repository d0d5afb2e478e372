//! What the scheduler waits for, by lane, in words: written by each of its turns, read by the views of schedules.
//!
//! In memory alone: after a restart the first turn says it anew. Decides nothing.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use crate::repo::ticks::Lane;

/// Lanes that wait. Bounded by the number of lanes.
#[derive(Debug, Default)]
pub struct WaitingTicks(RwLock<BTreeMap<Lane, String>>);

impl WaitingTicks {
    /// What waits now.
    pub fn set(&self, waiting: BTreeMap<Lane, String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = waiting;
    }

    /// What the lanes of a schedule wait for.
    pub fn of(&self, is_it: impl Fn(&Lane) -> bool) -> Vec<String> {
        let waiting = self.0.read().unwrap_or_else(PoisonError::into_inner);
        waiting.iter().filter(|(lane, _)| is_it(lane)).map(|(_, why)| why.clone()).collect()
    }
}
