//! The engines of the open runs: the runner drives them, and what operators are shown is read from the same ones, so
//! that a reason shown is the reason acted on.
//!
//! In memory only: a run that the runner has not read yet is not here. Views must never write.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use fleet_rollout::Rollout;
use fleet_types::id::RunId;

/// One run's engine. Its locks are held for one question or one event, never over a wait; a panic in between would
/// leave at most one event half applied, and the run is read anew when its records do not agree.
#[derive(Clone)]
pub struct Engine(Arc<RwLock<Rollout>>);

impl Engine {
    /// Around a rollout.
    pub fn new(rollout: Rollout) -> Self {
        Self(Arc::new(RwLock::new(rollout)))
    }

    /// For questions.
    pub fn read(&self) -> RwLockReadGuard<'_, Rollout> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For events; the runner's alone.
    pub fn write(&self) -> RwLockWriteGuard<'_, Rollout> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As many as there are open runs.
#[derive(Default)]
pub struct OpenRuns(RwLock<HashMap<RunId, Engine>>);

impl OpenRuns {
    /// Shows a run's engine.
    pub fn publish(&self, run: RunId, engine: Engine) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(run, engine);
    }

    /// Forgets a run that has ended: its records say how.
    pub fn forget(&self, run: RunId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }

    /// The engine of a run, if it is open here.
    pub fn of(&self, run: RunId) -> Option<Engine> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&run).cloned()
    }
}
