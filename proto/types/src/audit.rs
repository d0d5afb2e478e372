//! Audit records: one leaf for each operator action, refusal, run phase, wave and terminal job state.
//!
//! The bytes are canonical JSON, made once when the store's writer assigns the index, stored and hashed
//! verbatim (security-and-delivery §3.1). Free text is committed to by a salted hash and kept aside, so
//! that it can be erased without touching the log.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{Attempt, ControllerId, FleetId, Generation, JobId, RecordId};
use crate::job::Outcome;
use crate::time::Timestamp;

/// Version of the records of this release.
pub const RECORD_VERSION: u32 = 1;
/// Largest record (security-and-delivery §3.1).
pub const MAX_RECORD_BYTES: usize = 4096;

/// One leaf of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRecord {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// The log: the fleet whose log it is.
    pub log: FleetId,
    /// Place in the log, from 0 without a gap.
    pub index: u64,
    /// Names the record apart from its place.
    pub id: RecordId,
    /// When, on the controller's clock.
    pub time: Timestamp,
    /// Which controller wrote it.
    pub controller: ControllerId,
    /// The store's generation.
    pub generation: Generation,
    /// Who acted.
    pub actor: Actor,
    /// What was done, such as `run.start` or `job.ended`.
    pub action: String,
    /// To what, such as `run/r-…` or `node/fw-1`.
    pub object: String,
    /// Was it allowed?
    pub decision: Decision,
    /// Why refused, or how it came; a stable phrase, never free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The caller's idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Digest of the signed request or document concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_digest: Option<Digest>,
    /// The job concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// Its attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// How a job ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Merkle root of the nodes of a run or wave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Digest>,
    /// SHA-256 of salt and text, where free text belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Digest>,
    /// Digest of the node's report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Digest>,
    /// The node's signature over its report, base 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_signature: Option<String>,
}

/// Who acted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// `operator`, `agent`, `controller` or `nobody` (an unauthenticated caller).
    pub role: String,
    /// UUID in the certificate; empty for `nobody`.
    pub id: String,
    /// Name that people know, at the time.
    pub name: String,
    /// SHA-256 of the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Digest>,
    /// Address that it came from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
}

/// Was it allowed?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Done.
    Allowed,
    /// Refused, with a reason.
    Refused,
}

/// The commitment to a free text: SHA-256 of 32 bytes of salt and the text.
pub fn text_commitment(salt: &[u8; 32], text: &str) -> Digest {
    Digest::of_parts(&[salt, text.as_bytes()])
}
