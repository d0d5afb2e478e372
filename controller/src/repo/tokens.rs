//! Join tokens of nodes and invites of operators. Secrets are kept as hashes only. Decides nothing; called by
//! `init`, enrolment and retention.

use fleet_types::digest::Digest;
use fleet_types::id::{Name, NodeId, OperatorId};
use fleet_types::seal::{PublicKey, base64_bytes};
use fleet_types::time::Timestamp;
use fleet_types::trust::OperatorRole;
use serde::{Deserialize, Serialize};

use super::codec::record;
use super::keys::{Made, make};

/// A join token; its secret is kept as a hash only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The node that it is bound to.
    pub node: NodeId,
    /// SHA-256 of the secret.
    pub secret_hash: Digest,
    /// When it ends.
    pub expires: Timestamp,
    /// Who made it.
    pub created_by: OperatorId,
    /// What it was used for.
    pub used: Option<UsedToken>,
}
record!(TokenRecord, "join token", 1);

/// An invite for an operator; its secret is kept as a hash only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRecord {
    /// Name that the operator will have.
    pub name: Name,
    /// His role.
    pub role: OperatorRole,
    /// SHA-256 of the secret.
    pub secret_hash: Digest,
    /// When it ends.
    pub expires: Timestamp,
    /// What it was used for.
    pub used: Option<UsedToken>,
    /// The operator who came of it.
    pub operator: Option<OperatorId>,
}
record!(InviteRecord, "invite", 1);

/// How a token was used: the same use again gets the same answer (a lost reply).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedToken {
    /// Digest of the certified public key.
    pub public_key: Digest,
    /// Digest of the content or report key that was registered with it.
    pub second_key: PublicKey,
    /// The certificate chain that was given, leaf first, DER.
    pub chain: Vec<Bytes>,
    /// When.
    pub at: Timestamp,
}

/// Bytes as base 64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(#[serde(with = "base64_bytes")] pub Vec<u8>);

/// Prefix of all join tokens.
pub const JOIN_TOKENS: &str = "join-token/";

/// A join token by its public id.
pub fn join_token(id: &str) -> Made {
    make(format!("{JOIN_TOKENS}{id}"))
}

/// Prefix of all invites.
pub const INVITES: &str = "invite/";

/// An operator's invite by its public id.
pub fn invite(id: &str) -> Made {
    make(format!("{INVITES}{id}"))
}
