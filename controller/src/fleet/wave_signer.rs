//! Signs waves of assignments: one signature a wave, a proof each (security-and-delivery §1.15).

use std::sync::{Arc, PoisonError, RwLock};

use fleet_types::assignment::{Assignment, WaveProof, sign_wave};
use fleet_types::id::FleetId;
use fleet_types::seal::SigningKey;
use fleet_types::trust::SignedDispatch;

/// The controller's dispatch key with the authority's statement about it.
pub struct WaveSigner {
    fleet: FleetId,
    key: SigningKey,
    statement: RwLock<Arc<SignedDispatch>>,
}

impl WaveSigner {
    /// From a key and the statement that vouches for it.
    pub fn new(fleet: FleetId, key: SigningKey, statement: SignedDispatch) -> Self {
        Self { fleet, key, statement: RwLock::new(Arc::new(statement)) }
    }

    /// What agents check the key by.
    pub fn statement(&self) -> Arc<SignedDispatch> {
        Arc::clone(&self.statement.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The authority vouches for the key anew: agents that connect from now on are told so.
    pub fn renew(&self, statement: SignedDispatch) {
        *self.statement.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(statement);
    }

    /// Signs assignments as one wave; each comes back with its proof, in order.
    pub fn sign(&self, assignments: Vec<Assignment>) -> Vec<(Assignment, WaveProof)> {
        let proofs = sign_wave(&assignments, self.fleet, &self.key);
        assignments.into_iter().zip(proofs).collect()
    }
}
