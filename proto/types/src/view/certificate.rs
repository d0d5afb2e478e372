//! Certificates of nodes and operators, for people.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// What a certificate is worth now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateState {
    /// In use.
    InUse,
    /// Issued by a renewal, and not seen yet; the one before it is in use until then.
    Awaited,
    /// Its time is over.
    Ended,
    /// Its holder is shut out for good.
    Revoked,
}

impl CertificateState {
    /// The word as shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InUse => "in_use",
            Self::Awaited => "awaited",
            Self::Ended => "ended",
            Self::Revoked => "revoked",
        }
    }
}

/// A certificate in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateItem {
    /// Whose it is: `node/NAME` or `operator/NAME`.
    pub holder: String,
    /// The holder's id.
    pub id: uuid::Uuid,
    /// Its serial, hexadecimal.
    pub serial: String,
    /// When it ends; absent where an earlier release did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// What it is worth.
    pub state: CertificateState,
}
