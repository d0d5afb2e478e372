//! Why a call was refused or failed, for programs and people.

use serde::{Deserialize, Serialize};

/// Metadata key of [`ErrorDetail`] in the status of a call.
pub const ERROR_DETAIL_KEY: &str = "fleet-error-bin";

/// Details of a refused or failed call, as JSON in the metadata key [`ERROR_DETAIL_KEY`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// Stable code, such as `no-target` or `not-allowed`.
    pub code: String,
    /// What happened.
    pub message: String,
    /// Causes, one a line.
    #[serde(default)]
    pub causes: Vec<String>,
    /// What to do.
    #[serde(default)]
    pub fix: String,
    /// Request id, to be found in the controller's log.
    #[serde(default)]
    pub id: String,
    /// The same call is of no use before this is over; 0 where nobody knows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_ms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Codes that say: it is the caller's certificate that is not accepted, and another one of theirs may be.
pub const CERTIFICATE_REFUSED: [&str; 3] = ["certificate-retired", "certificate-expired", "revoked"];
