//! From wire to types and back. Errors name the field; text from the wire is cut before it is shown.
//!
//! Called at the edges only: controller/edge, the agent's link, the executor's socket, the CLI's client.

use std::time::Duration;

use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, RunId};
use fleet_types::job::{JobLimits, JobState};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pb;

/// A field of a message is missing or not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field}: {why}")]
pub struct FieldError {
    /// Path of the field in the message.
    pub field: &'static str,
    /// What is wrong.
    pub why: String,
}

impl FieldError {
    /// An error at `field`.
    pub fn new(field: &'static str, why: impl std::fmt::Display) -> Self {
        Self { field, why: why.to_string().chars().take(300).collect() }
    }
}

/// Reads strict JSON from a field.
pub fn json<T: DeserializeOwned>(field: &'static str, bytes: &[u8]) -> Result<T, FieldError> {
    canonical::from_slice(bytes).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|s| format!(": {s}")).unwrap_or_default();
        FieldError::new(field, format!("{error}{cause}"))
    })
}

/// Writes a value as JSON for a field that is not signed content (states, proofs, views).
pub fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    // The types of the project have string keys and no failing serialisers.
    serde_json::to_vec(value).unwrap_or_default()
}

/// Reads 32 bytes.
pub fn digest(field: &'static str, bytes: &[u8]) -> Result<Digest, FieldError> {
    Digest::from_slice(bytes).map_err(|error| FieldError::new(field, error))
}

/// Reads an id or name.
pub fn text<T: std::str::FromStr>(field: &'static str, value: &str) -> Result<T, FieldError>
where
    T::Err: std::fmt::Display,
{
    value.parse().map_err(|error| FieldError::new(field, error))
}

/// Takes a message out of an optional field.
pub fn required<T>(field: &'static str, value: Option<T>) -> Result<T, FieldError> {
    value.ok_or_else(|| FieldError::new(field, "is missing"))
}

/// A job's state on a node, as it crosses the wire and the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobUpdate {
    /// The run.
    pub run: RunId,
    /// The attempt.
    pub attempt: Attempt,
    /// The state.
    pub state: JobState,
    /// Newest journal frame that it stands in.
    pub journal_sequence: u64,
    /// Digest of the report of a finished job.
    pub report: Option<Digest>,
    /// The request it was accepted for; none where the node refused before reading it.
    pub request: Option<Digest>,
    /// How long it may still take; none of a job that has ended, and from nodes that do not say.
    pub limits: Option<JobLimits>,
}

fn optional_digest(field: &'static str, bytes: &[u8]) -> Result<Option<Digest>, FieldError> {
    if bytes.is_empty() { Ok(None) } else { digest(field, bytes).map(Some) }
}

impl TryFrom<&pb::JobUpdate> for JobUpdate {
    type Error = FieldError;

    fn try_from(wire: &pb::JobUpdate) -> Result<Self, FieldError> {
        Ok(Self {
            run: text("job.run", &wire.run)?,
            attempt: Attempt(wire.attempt),
            state: state(&wire.state)?,
            journal_sequence: wire.journal_sequence,
            report: optional_digest("job.report_digest", &wire.report_digest)?,
            request: optional_digest("job.request_digest", &wire.request_digest)?,
            limits: limits(wire)?,
        })
    }
}

/// A newer node may have states, fields and outcomes that this build does not know: what has a word is a state.
fn state(bytes: &[u8]) -> Result<JobState, FieldError> {
    #[derive(serde::Deserialize)]
    struct Word {
        #[serde(rename = "state")]
        _word: String,
    }
    json("job.state", bytes)
        .or_else(|error| json::<Word>("job.state", bytes).map_or(Err(error), |_| Ok(JobState::Unknown)))
}

fn limits(wire: &pb::JobUpdate) -> Result<Option<JobLimits>, FieldError> {
    if wire.job_left_ms == 0 {
        return Ok(None);
    }
    let behind = if wire.behind.is_empty() { None } else { Some(text("job.behind", &wire.behind)?) };
    Ok(Some(JobLimits {
        phase_left: Duration::from_millis(wire.phase_left_ms),
        job_left: Duration::from_millis(wire.job_left_ms),
        behind,
    }))
}

/// At least one millisecond, since zero means that nothing is said.
fn millis(left: Duration) -> u64 {
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl From<&JobUpdate> for pb::JobUpdate {
    fn from(update: &JobUpdate) -> Self {
        let bytes = |digest: &Option<Digest>| digest.map(|d| d.as_bytes().to_vec()).unwrap_or_default();
        Self {
            run: update.run.to_string(),
            attempt: update.attempt.0,
            state: to_json(&update.state),
            journal_sequence: update.journal_sequence,
            report_digest: bytes(&update.report),
            request_digest: bytes(&update.request),
            phase_left_ms: update.limits.as_ref().map_or(0, |limits| millis(limits.phase_left)),
            job_left_ms: update.limits.as_ref().map_or(0, |limits| millis(limits.job_left)),
            behind: update
                .limits
                .as_ref()
                .and_then(|l| l.behind)
                .map(|run| run.to_string())
                .unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_a_newer_node_is_unknown_and_no_error() {
        let read = |text: &str| state(text.as_bytes());
        assert_eq!(read(r#"{"state":"accepted","since":7}"#), Ok(JobState::Accepted), "a field more");
        for newer in [
            r#"{"state":"handing_over","to":"fw-b"}"#,
            r#"{"state":"ended","outcome":"superseded","reason":"x"}"#,
            r#"{"state":"running","step":7}"#,
        ] {
            assert_eq!(read(newer), Ok(JobState::Unknown), "{newer}");
        }
        for broken in ["", "[]", "7", r#"{"state":7}"#, r#"{"step":"x"}"#, r#"{"state":"x","state":"y"}"#] {
            assert_eq!(read(broken).unwrap_err().field, "job.state", "{broken}");
        }
    }
}
