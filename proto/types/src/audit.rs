//! Audit records: one leaf for each operator action, refusal, run phase, wave and terminal job state.
//!
//! The bytes are canonical JSON, made once when the store's writer assigns the index, stored and hashed
//! verbatim (security-and-delivery §3.1). Free text is committed to by a salted hash and kept aside, so
//! that it can be erased without touching the log.

use std::collections::BTreeMap;

use serde::ser::Error as _;
use serde::{Deserialize, Serialize};

use crate::canonical::{self, CanonicalError};
use crate::digest::Digest;
use crate::id::{Attempt, ControllerId, FleetId, Generation, JobId, RecordId};
use crate::job::Outcome;
use crate::time::Timestamp;

/// Version of the records of this release. Version 1 had no `detail`; both are read.
pub const RECORD_VERSION: u32 = 2;
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
    /// What the digests stand for, in words, each cut to a fixed length: the digests count.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<String, String>,
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

/// A record's canonical bytes without its place. The store's one writer gives places, and must not spend its time
/// on anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unnumbered {
    before: Vec<u8>,
    after: Vec<u8>,
}

/// What stands around the place 0. Within a text the quotes would be escaped.
const PLACE: &str = ",\"index\":0,";

impl AuditRecord {
    /// The record's bytes but for its place, whatever that is now.
    pub fn unnumbered(mut self) -> Result<Unnumbered, CanonicalError> {
        self.index = 0;
        let bytes = canonical::to_vec(&self)?;
        let place = bytes.windows(PLACE.len()).position(|part| part == PLACE.as_bytes());
        let place = place.ok_or_else(|| CanonicalError::Json(serde_json::Error::custom("no place in it")))?;
        let (before, rest) = bytes.split_at(place + PLACE.len() - "0,".len());
        Ok(Unnumbered { before: before.to_vec(), after: rest["0".len()..].to_vec() })
    }
}

impl Unnumbered {
    /// The canonical bytes of the record at this place.
    pub fn at(&self, index: u64) -> Vec<u8> {
        let index = index.to_string();
        [self.before.as_slice(), index.as_bytes(), self.after.as_slice()].concat()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gets_its_place_as_if_it_had_been_written_with_it() {
        let hostile = "\",\"index\":0,\"x\":\"";
        let full = AuditRecord {
            version: RECORD_VERSION,
            log: FleetId::from_uuid(uuid::Uuid::from_u128(1)),
            index: 77,
            id: RecordId::from_uuid(uuid::Uuid::from_u128(2)),
            time: "2026-11-27T04:00:00Z".parse().unwrap(),
            controller: ControllerId::from_uuid(uuid::Uuid::from_u128(3)),
            generation: Generation(1),
            actor: Actor {
                role: hostile.to_owned(),
                id: hostile.to_owned(),
                name: hostile.to_owned(),
                certificate: None,
                address: hostile.to_owned(),
            },
            action: "run.start".to_owned(),
            object: hostile.to_owned(),
            decision: Decision::Refused,
            reason: hostile.to_owned(),
            idempotency_key: Some(hostile.to_owned()),
            subject_digest: Some(Digest::of(b"x")),
            job: None,
            attempt: Some(Attempt(1)),
            outcome: Some(Outcome::Failed),
            nodes: None,
            detail: BTreeMap::new(),
            text: None,
            report: None,
            report_signature: Some(hostile.to_owned()),
        };
        let bare = AuditRecord {
            reason: String::new(),
            idempotency_key: None,
            subject_digest: None,
            attempt: None,
            outcome: None,
            report_signature: None,
            ..full.clone()
        };
        for record in [full, bare] {
            let unnumbered = record.clone().unnumbered().unwrap();
            for index in [0, 9, 10, 123_456_789, canonical::MAX_INTEGER] {
                let numbered = AuditRecord { index, ..record.clone() };
                assert_eq!(unnumbered.at(index), canonical::to_vec(&numbered).unwrap());
            }
        }
    }
}
