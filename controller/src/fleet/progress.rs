//! How far open runs are: the runner notes it after each pass, lists show it.
//!
//! In memory only: a run's record holds the tally of its last phase, and a phase may be long.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use fleet_types::id::RunId;
use fleet_types::run::Tally;

/// Tallies of open runs; as many as there are open runs.
#[derive(Default)]
pub struct Progress(RwLock<HashMap<RunId, Tally>>);

impl Progress {
    /// Notes how far a run is.
    pub fn note(&self, run: RunId, tally: Tally) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(run, tally);
    }

    /// Forgets a run that has ended: its record says how.
    pub fn forget(&self, run: RunId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }

    /// How far a run is, if it is open here.
    pub fn of(&self, run: RunId) -> Option<Tally> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&run).cloned()
    }
}
