//! Answers to idempotency keys, so that a repeated call gets the same one. Decides nothing; called by
//! `service/idempotency.rs` and retention.

use fleet_store::Key;
use fleet_types::digest::Digest;
use fleet_types::id::OperatorId;
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::codec::record;
use super::keys::{Made, make};

/// The answer to a mutating call, kept so that a repeated call gets the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRecord {
    /// Digest of the call's arguments: the same key with another digest is an error.
    pub arguments: Digest,
    /// The answer's JSON.
    pub answer: Value,
    /// When; kept 30 days.
    pub at: Timestamp,
}
record!(IdempotencyRecord, "idempotency", 1);

/// Prefix of all answers to idempotency keys, objects.
pub const ALL: &str = "idempotency/";

/// An idempotency key of an operator.
pub fn key(operator: OperatorId, text: &Digest) -> Made {
    make(format!("{ALL}{operator}/{text}"))
}

/// Is it the head of such an answer, and none of the parts behind it?
pub fn is_head(key: &Key) -> bool {
    key.as_bytes().split(|byte| *byte == b'/').count() == 3
}
