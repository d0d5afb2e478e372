//! Signs waves of assignments: one signature a wave, a proof each (security-and-delivery §1.15).

use fleet_types::assignment::{Assignment, WaveProof, sign_wave};
use fleet_types::id::FleetId;
use fleet_types::seal::SigningKey;
use fleet_types::trust::SignedDispatch;

/// The controller's dispatch key with the authority's statement about it.
pub struct WaveSigner {
    fleet: FleetId,
    key: SigningKey,
    statement: SignedDispatch,
}

impl WaveSigner {
    /// From a key and the statement that vouches for it.
    pub fn new(fleet: FleetId, key: SigningKey, statement: SignedDispatch) -> Self {
        Self { fleet, key, statement }
    }

    /// What agents check the key by.
    pub fn statement(&self) -> &SignedDispatch {
        &self.statement
    }

    /// Signs assignments as one wave; each comes back with its proof, in order.
    pub fn sign(&self, assignments: Vec<Assignment>) -> Vec<(Assignment, WaveProof)> {
        let proofs = sign_wave(&assignments, self.fleet, &self.key);
        assignments.into_iter().zip(proofs).collect()
    }
}
