//! Assignments: what a controller tells a node to work on, in waves signed by its dispatch key.
//!
//! An assignment carries digests only (at most 2 KiB); documents are fetched by digest. One signature
//! covers a wave; each assignment proves that it belongs to it (security-and-delivery §1.15).

use serde::{Deserialize, Serialize};

use crate::authority::Authority;
use crate::digest::Digest;
use crate::id::{Attempt, FleetId, Generation, JobId, LinkEpoch};
use crate::merkle;
use crate::seal::{Kind, PublicKey, SealError, SigningKey};

/// One node's part of a wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: Attempt,
    /// Why it may run.
    #[serde(flatten)]
    pub authority: Authority,
    /// Place of the node in the request's node list, with its path.
    pub node_index: u32,
    /// Inclusion path of the node.
    pub node_path: Vec<Digest>,
    /// Fencing: the store's generation.
    pub generation: Generation,
    /// Fencing: the link over which it is sent.
    pub link_epoch: LinkEpoch,
}

impl Assignment {
    /// The bytes under the wave's tree.
    fn leaf(&self) -> Digest {
        merkle::leaf_hash(
            format!(
                "{}\n{}\n{}\n{}\n{}\n",
                self.job,
                self.attempt.0,
                self.authority.signed_text(),
                self.generation.0,
                self.link_epoch.0
            )
            .as_bytes(),
        )
    }
}

/// Proof that an assignment belongs to a wave that a controller signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveProof {
    /// Place in the wave.
    pub index: u32,
    /// Size of the wave.
    pub size: u32,
    /// Inclusion path.
    pub path: Vec<Digest>,
    /// Dispatch key's signature over the root.
    pub signature: Vec<u8>,
}

/// Signs assignments as one wave; gives each its proof, in order.
pub fn sign_wave(assignments: &[Assignment], fleet: FleetId, key: &SigningKey) -> Vec<WaveProof> {
    let tree = merkle::Tree::new(assignments.iter().map(Assignment::leaf).collect());
    let signature = key.sign(Kind::Wave, fleet, tree.root());
    let size = u32::try_from(assignments.len()).unwrap_or(u32::MAX);
    (0..size)
        .filter_map(|index| {
            let path = tree.proof(index as usize)?;
            Some(WaveProof { index, size, path, signature: signature.clone() })
        })
        .collect()
}

/// Checks that the dispatch key signed a wave with this assignment in it.
pub fn verify_wave(
    assignment: &Assignment,
    proof: &WaveProof,
    fleet: FleetId,
    key: &PublicKey,
) -> Result<(), SealError> {
    let root = merkle::root_from_path(assignment.leaf(), proof.index.into(), proof.size.into(), &proof.path)
        .ok_or(SealError::Signature)?;
    key.verify(Kind::Wave, fleet, root, &proof.signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{NodeId, RunId};

    #[test]
    fn a_proof_is_good_for_its_own_assignment_only() {
        let fleet = FleetId::from_uuid(uuid::Uuid::from_u128(7));
        let key = SigningKey::generate().unwrap().0;
        let assignments: Vec<_> = (0..5u128)
            .map(|n| Assignment {
                job: JobId::first(RunId::from_number(9), NodeId::from_uuid(uuid::Uuid::from_u128(n))),
                attempt: Attempt(1),
                authority: Authority::Request(Digest::of(b"request")),
                node_index: 0,
                node_path: vec![],
                generation: Generation(1),
                link_epoch: LinkEpoch(4),
            })
            .collect();
        let proofs = sign_wave(&assignments, fleet, &key);
        for (n, assignment) in assignments.iter().enumerate() {
            assert_eq!(verify_wave(assignment, &proofs[n], fleet, &key.public()), Ok(()));
            assert!(verify_wave(assignment, &proofs[(n + 1) % 5], fleet, &key.public()).is_err());
            let replayed = Assignment { link_epoch: LinkEpoch(5), ..assignment.clone() };
            assert!(verify_wave(&replayed, &proofs[n], fleet, &key.public()).is_err());
        }
    }
}
