//! The trust bundle: which authorities and keys a fleet believes in, signed by its root keys.
//!
//! Nodes keep the root keys and the highest version seen, and refuse lower ones
//! (security-and-delivery §1.2, §1.3). The controller stores and hands out bundles; it cannot make one.

use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::canonical::{self, CanonicalError};
use crate::digest::Digest;
use crate::id::{ControllerId, FleetId, Name, NodeId, OperatorId};
use crate::seal::{Envelope, KeyId, Kind, PublicKey, SealError, SigningKey, base64_bytes};
use crate::time::Timestamp;

/// Schema of the bundles of this release.
pub const BUNDLE_SCHEMA: &str = "fleet/v1/trust-bundle";

/// What an operator may do at most with what their key signs; scoped further in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorRole {
    /// Reads.
    Viewer,
    /// Reads the audit log and exports it.
    Auditor,
    /// Applies documents and starts runs.
    Operator,
    /// Approves what others submit.
    Approver,
    /// Changes roles, keys and trust.
    SecurityAdmin,
}

impl OperatorRole {
    /// The word as written and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::SecurityAdmin => "security-admin",
        }
    }

    /// May a document or request signed by such a key take effect on a node?
    pub const fn may_sign_work(self) -> bool {
        matches!(self, Self::Operator | Self::Approver | Self::SecurityAdmin)
    }
}

/// What the root keys sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustBundle {
    /// [`BUNDLE_SCHEMA`].
    pub schema: String,
    /// The fleet.
    pub fleet: FleetId,
    /// Rises with every bundle.
    pub version: u64,
    /// When it was made.
    pub issued: Timestamp,
    /// Authorities whose certificates controllers bear.
    pub controller_authorities: Vec<Authority>,
    /// Authorities whose certificates agents bear.
    pub agent_authorities: Vec<Authority>,
    /// Authorities whose certificates operators bear.
    pub operator_authorities: Vec<Authority>,
    /// Operators' keys for documents and requests.
    pub content_keys: Vec<ContentKey>,
    /// Key of the audit log's checkpoints.
    pub audit_key: PublicKey,
    /// Nodes whose fence begins anew, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fence_resets: Vec<FenceReset>,
}

/// A node forgets the highest store generation and link epoch that it has seen, once: somebody had raised them, or they
/// are of a store that is gone for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FenceReset {
    /// The node.
    pub node: NodeId,
    /// Version of the bundle that asked for it first; a node takes each one once.
    pub version: u64,
}

/// Resets that a bundle keeps: it goes to every node, and a node that was away for longer is reset again by hand.
pub const MAX_FENCE_RESETS: usize = 100;

/// A certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// The certificate, DER.
    #[serde(with = "base64_bytes")]
    pub certificate: Vec<u8>,
    /// Its P-256 public key, uncompressed point (SEC 1 §2.3.3), 65 bytes.
    #[serde(with = "base64_bytes")]
    pub public_key: Vec<u8>,
}

/// An operator's key for content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentKey {
    /// The key.
    pub key: PublicKey,
    /// The operator that it belongs to.
    pub operator: OperatorId,
    /// His name, for people.
    pub person: Name,
    /// His highest role.
    pub role: OperatorRole,
}

/// A bundle with the root keys' signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedBundle {
    /// Canonical JSON of a [`TrustBundle`].
    #[serde(with = "base64_bytes")]
    pub payload: Vec<u8>,
    /// One entry a root key that signed.
    pub signatures: Vec<RootSignature>,
}

/// One root key's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootSignature {
    /// Which root key.
    pub key: KeyId,
    /// Ed25519 signature over kind `trust_bundle`, fleet and the payload's digest.
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
}

/// The root keys of a fleet and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootKeys {
    /// Distinct keys.
    pub keys: Vec<PublicKey>,
    /// How many of them must sign.
    pub threshold: usize,
}

/// Why a bundle or a statement is refused.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Malformed.
    #[error("the trust bundle cannot be read")]
    Malformed(#[source] CanonicalError),
    /// Another schema.
    #[error("trust bundle schema {0:?} is not known here")]
    Schema(String),
    /// Another fleet.
    #[error("the trust bundle is of fleet {0}")]
    OtherFleet(FleetId),
    /// Not enough distinct root keys signed it.
    #[error("the trust bundle bears {found} valid root signatures of {needed}")]
    Threshold {
        /// Valid signatures of distinct keys.
        found: usize,
        /// Needed.
        needed: usize,
    },
    /// Older than one seen before.
    #[error("the trust bundle has version {found}, version {seen} was seen before")]
    Older {
        /// Version of the bundle.
        found: u64,
        /// Highest version seen.
        seen: u64,
    },
    /// The dispatch statement is not signed by a listed controller authority, or for another fleet or time.
    #[error("the dispatch key's statement is refused: {0}")]
    Dispatch(&'static str),
}

impl RootKeys {
    /// The pin of a join token: SHA-256 over threshold and the sorted keys.
    pub fn pin(&self) -> Digest {
        let mut keys: Vec<_> = self.keys.iter().map(PublicKey::as_bytes).collect();
        keys.sort_unstable();
        let threshold = (self.threshold as u64).to_be_bytes();
        let mut parts: Vec<&[u8]> = vec![b"fleet/v1/root-keys\n", &threshold];
        parts.extend(keys.into_iter().map(<[u8; 32]>::as_slice));
        Digest::of_parts(&parts)
    }
}

impl TrustBundle {
    /// The canonical bytes with one root key's signature.
    pub fn sign(&self, root: &SigningKey) -> Result<SignedBundle, CanonicalError> {
        let payload = canonical::to_vec(self)?;
        let signature = root.sign(Kind::TrustBundle, self.fleet, Digest::of(&payload));
        Ok(SignedBundle { payload, signatures: vec![RootSignature { key: root.public().id(), signature }] })
    }

    /// The listed content key with this id.
    pub fn content_key(&self, id: &KeyId) -> Option<&ContentKey> {
        self.content_keys.iter().find(|entry| entry.key.id() == *id)
    }

    /// The version in which this node's fence was reset last.
    pub fn fence_reset(&self, node: NodeId) -> Option<u64> {
        self.fence_resets.iter().filter(|reset| reset.node == node).map(|reset| reset.version).max()
    }

    /// The next bundle, in which the fence of a node begins anew.
    #[must_use]
    pub fn with_fence_reset(mut self, node: NodeId, now: Timestamp) -> Self {
        self.version += 1;
        self.issued = now;
        self.fence_resets.retain(|reset| reset.node != node);
        self.fence_resets.push(FenceReset { node, version: self.version });
        let too_many = self.fence_resets.len().saturating_sub(MAX_FENCE_RESETS);
        self.fence_resets.drain(..too_many);
        self
    }

    /// Checks an operator's signature: the key is listed, may sign work, and did sign this.
    pub fn verify_content(&self, sealed: &Envelope, kind: Kind) -> Result<&ContentKey, SealError> {
        let entry = self.content_key(&sealed.key).filter(|entry| entry.role.may_sign_work());
        let entry = entry.ok_or(SealError::UnknownKey(sealed.key))?;
        sealed.verify(kind, self.fleet, &entry.key)?;
        Ok(entry)
    }
}

impl SignedBundle {
    /// Reads the bundle if enough distinct root keys signed it and it is not older than `seen_version`.
    pub fn open(
        &self,
        roots: &RootKeys,
        fleet: FleetId,
        seen_version: u64,
    ) -> Result<TrustBundle, TrustError> {
        let digest = Digest::of(&self.payload);
        // Each root key counts once, however often it signed or is listed.
        let mut signed: Vec<&PublicKey> = Vec::new();
        for key in &roots.keys {
            let id = key.id();
            let good = self
                .signatures
                .iter()
                .filter(|s| s.key == id)
                .any(|s| key.verify(Kind::TrustBundle, fleet, digest, &s.signature).is_ok());
            if good && !signed.contains(&key) {
                signed.push(key);
            }
        }
        let needed = roots.threshold.max(1);
        if signed.len() < needed {
            return Err(TrustError::Threshold { found: signed.len(), needed });
        }
        let bundle: TrustBundle = canonical::from_signed(&self.payload).map_err(TrustError::Malformed)?;
        if bundle.schema != BUNDLE_SCHEMA {
            return Err(TrustError::Schema(bundle.schema.chars().take(64).collect()));
        }
        if bundle.fleet != fleet {
            return Err(TrustError::OtherFleet(bundle.fleet));
        }
        if bundle.version < seen_version {
            return Err(TrustError::Older { found: bundle.version, seen: seen_version });
        }
        Ok(bundle)
    }
}

/// What the controller authority says of a dispatch key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DispatchStatement {
    /// The fleet.
    pub fleet: FleetId,
    /// The controller that holds the key.
    pub controller: ControllerId,
    /// The key that signs waves.
    pub key: PublicKey,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
}

/// A dispatch statement with the controller authority's P-256 signature (ASN.1 DER).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedDispatch {
    /// Canonical JSON of a [`DispatchStatement`].
    #[serde(with = "base64_bytes")]
    pub payload: Vec<u8>,
    /// Signature over [`dispatch_signed_bytes`].
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
}

/// The bytes under the controller authority's signature.
pub fn dispatch_signed_bytes(payload: &[u8]) -> Vec<u8> {
    [b"fleet/v1/dispatch\n", payload].concat()
}

impl SignedDispatch {
    /// The dispatch key, if a controller authority of the bundle vouches for it now.
    pub fn open(&self, bundle: &TrustBundle, now: Timestamp) -> Result<DispatchStatement, TrustError> {
        let signed = dispatch_signed_bytes(&self.payload);
        let vouched = bundle.controller_authorities.iter().any(|authority| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &authority.public_key)
                .verify(&signed, &self.signature)
                .is_ok()
        });
        if !vouched {
            return Err(TrustError::Dispatch("no controller authority of the trust bundle signed it"));
        }
        let statement: DispatchStatement =
            canonical::from_signed(&self.payload).map_err(TrustError::Malformed)?;
        if statement.fleet != bundle.fleet {
            return Err(TrustError::Dispatch("it is for another fleet"));
        }
        if now < statement.not_before || now >= statement.not_after {
            return Err(TrustError::Dispatch("it is not valid at this time; check the clocks"));
        }
        Ok(statement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn fleet() -> FleetId {
        FleetId::from_uuid(Uuid::from_u128(1))
    }

    fn bundle(version: u64, content: &[(&SigningKey, OperatorRole)]) -> TrustBundle {
        TrustBundle {
            schema: BUNDLE_SCHEMA.to_owned(),
            fleet: fleet(),
            version,
            issued: Timestamp::clamped(1_790_000_000_000),
            controller_authorities: vec![],
            agent_authorities: vec![],
            operator_authorities: vec![],
            content_keys: content
                .iter()
                .map(|(key, role)| ContentKey {
                    key: key.public(),
                    operator: OperatorId::from_uuid(Uuid::from_u128(2)),
                    person: "ada".parse().unwrap(),
                    role: *role,
                })
                .collect(),
            audit_key: SigningKey::generate().unwrap().0.public(),
            fence_resets: vec![],
        }
    }

    #[test]
    fn a_threshold_counts_distinct_keys_each_once() {
        let (a, b) = (SigningKey::generate().unwrap().0, SigningKey::generate().unwrap().0);
        let roots = RootKeys { keys: vec![a.public(), b.public(), a.public()], threshold: 2 };
        let mut signed = bundle(3, &[]).sign(&a).unwrap();
        signed.signatures.push(signed.signatures[0].clone());
        assert!(matches!(
            signed.open(&roots, fleet(), 0),
            Err(TrustError::Threshold { found: 1, needed: 2 })
        ));
        signed.signatures.extend(bundle(3, &[]).sign(&b).unwrap().signatures);
        // The second signature is over another payload (another audit key), so it does not count.
        assert!(signed.open(&roots, fleet(), 0).is_err());
        let signature = b.sign(Kind::TrustBundle, fleet(), Digest::of(&signed.payload));
        signed.signatures.push(RootSignature { key: b.public().id(), signature });
        assert_eq!(signed.open(&roots, fleet(), 3).unwrap().version, 3);
        assert!(matches!(signed.open(&roots, fleet(), 4), Err(TrustError::Older { found: 3, seen: 4 })));
        let mut flipped = signed.clone();
        flipped.payload[10] ^= 1;
        assert!(flipped.open(&roots, fleet(), 0).is_err());
    }

    #[test]
    fn another_form_of_the_same_bundle_is_refused_although_it_is_signed() {
        let root = SigningKey::generate().unwrap().0;
        let roots = RootKeys { keys: vec![root.public()], threshold: 1 };
        let mut signed = bundle(1, &[]).sign(&root).unwrap();
        signed.payload.insert(1, b' ');
        let signature = root.sign(Kind::TrustBundle, fleet(), Digest::of(&signed.payload));
        signed.signatures = vec![RootSignature { key: root.public().id(), signature }];
        let refused = signed.open(&roots, fleet(), 0);
        assert!(matches!(refused, Err(TrustError::Malformed(CanonicalError::Form))), "{refused:?}");
    }

    #[test]
    fn a_viewers_key_signs_no_work() {
        let key = SigningKey::generate().unwrap().0;
        let sealed = key.seal(Kind::Request, fleet(), b"{}".to_vec());
        assert!(bundle(1, &[(&key, OperatorRole::Operator)]).verify_content(&sealed, Kind::Request).is_ok());
        assert!(bundle(1, &[(&key, OperatorRole::Viewer)]).verify_content(&sealed, Kind::Request).is_err());
        assert!(bundle(1, &[]).verify_content(&sealed, Kind::Request).is_err());
    }
}
