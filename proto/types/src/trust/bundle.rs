//! The trust bundle: which authorities and keys a fleet believes in.
//!
//! Nodes keep the root keys and the highest version seen, and refuse lower ones (security-and-delivery §1.2, §1.3). Whether
//! a bundle counts is for `signed` to say.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::canonical::{self, CanonicalError};
use crate::digest::Digest;
use crate::id::{FleetId, Name, NodeId, OperatorId};
use crate::seal::{Envelope, KeyId, Kind, PublicKey, SealError, SigningKey, base64_bytes};
use crate::time::Timestamp;

use super::signed::{RootSignature, SignedBundle};

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

    /// Every role.
    pub const ALL: [Self; 5] =
        [Self::Viewer, Self::Auditor, Self::Operator, Self::Approver, Self::SecurityAdmin];

    /// May a document or request signed by such a key take effect on a node?
    pub const fn may_sign_work(self) -> bool {
        matches!(self, Self::Operator | Self::Approver | Self::SecurityAdmin)
    }
}

impl std::str::FromStr for OperatorRole {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let role = Self::ALL.into_iter().find(|role| role.as_str() == text);
        role.ok_or("expected viewer, auditor, operator, approver or security-admin")
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
    /// To whom the root keys leave the list of operators' keys for a while; nobody when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_key_authority: Option<OperatorKeyAuthority>,
}

/// Security-admins who may change [`TrustBundle::content_keys`] without a root key (security-and-delivery §1.2). They make
/// no security-admins: that stays with the root keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorKeyAuthority {
    /// Their content keys, which the bundle lists with the role of a security-admin.
    pub keys: Vec<KeyId>,
    /// How many of them must sign for a key that is added; to take keys away one is enough.
    pub threshold: usize,
    /// Nothing that is made after this instant counts.
    pub not_after: Timestamp,
}

/// The longest that the list may be left to others (security-and-delivery §1.2).
pub const MAX_DELEGATION: Duration = Duration::from_hours(90 * 24);

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

impl TrustBundle {
    /// The canonical bytes with one root key's signature.
    pub fn sign(&self, root: &SigningKey) -> Result<SignedBundle, CanonicalError> {
        let payload = canonical::to_vec(self)?;
        let signature = root.sign(Kind::TrustBundle, self.fleet, Digest::of(&payload));
        let signatures = vec![RootSignature { key: root.public().id(), signature }];
        Ok(SignedBundle { payload, signatures, base: None })
    }

    /// The next bundle, with other operators' keys; a clock that is behind that of the last signer makes none that is older.
    #[must_use]
    pub fn with_content_keys(self, content_keys: Vec<ContentKey>, now: Timestamp) -> Self {
        Self { version: self.version + 1, issued: now.max(self.issued), content_keys, ..self }
    }

    /// The listed content key with this id.
    pub fn content_key(&self, id: &KeyId) -> Option<&ContentKey> {
        self.content_keys.iter().find(|entry| entry.key.id() == *id)
    }

    /// The listed content key with this id, if what it signs may take effect on a node.
    pub fn signer(&self, id: &KeyId) -> Option<&ContentKey> {
        self.content_key(id).filter(|entry| entry.role.may_sign_work())
    }

    /// The version in which this node's fence was reset last.
    pub fn fence_reset(&self, node: NodeId) -> Option<u64> {
        self.fence_resets.iter().filter(|reset| reset.node == node).map(|reset| reset.version).max()
    }

    /// The next bundle, in which the fence of a node begins anew.
    #[must_use]
    pub fn with_fence_reset(mut self, node: NodeId, now: Timestamp) -> Self {
        self.version += 1;
        self.issued = now.max(self.issued);
        self.fence_resets.retain(|reset| reset.node != node);
        self.fence_resets.push(FenceReset { node, version: self.version });
        let too_many = self.fence_resets.len().saturating_sub(MAX_FENCE_RESETS);
        self.fence_resets.drain(..too_many);
        self
    }

    /// Checks an operator's signature: the key is listed, may sign work, and did sign this.
    pub fn verify_content(&self, sealed: &Envelope, kind: Kind) -> Result<&ContentKey, SealError> {
        let entry = self.signer(&sealed.key).ok_or(SealError::UnknownKey(sealed.key))?;
        sealed.verify(kind, self.fleet, &entry.key)?;
        Ok(entry)
    }
}
