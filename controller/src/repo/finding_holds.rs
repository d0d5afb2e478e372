//! Holds and waivers of findings, as they were signed. Decides nothing; called by `service/finding_holds` and retention.

use fleet_types::digest::Digest;
use fleet_types::id::Name;
use fleet_types::label::Selector;
use fleet_types::seal::Envelope;
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::codec::record;
use super::keys::{Made, make};

/// A hold of a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingHoldRecord {
    /// As it was signed.
    pub envelope: Envelope,
    /// The operator, at the time.
    pub signed_by: Name,
    /// When it ends.
    pub until: Timestamp,
}
record!(FindingHoldRecord, "hold of a finding", 1);

/// Prefix of all of them.
pub const ALL: &str = "finding-hold/";

/// The hold of a finding on a selection: there is one, which a later one replaces.
pub fn key(finding: &str, selector: &Selector) -> Made {
    let of = Digest::of_parts(&[finding.as_bytes(), b"\n", selector.to_string().trim().as_bytes()]);
    make(format!("{ALL}{of}"))
}
