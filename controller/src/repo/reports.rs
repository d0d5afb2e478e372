//! Reports of nodes, chain by chain. Decides nothing; called by the services.

use fleet_store::Key;
use fleet_types::digest::Digest;
use fleet_types::id::NodeId;
use fleet_types::seal::base64_bytes;
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::codec::record;
use super::keys::{Made, make};

/// Where a report is stored: its number in the node's chain, and its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredReport {
    /// The chain that it is in.
    #[serde(default)]
    pub chain: u32,
    /// The node's own number of it.
    pub sequence: u64,
    /// Digest of its bytes.
    pub digest: Digest,
}

/// A stored report with the node's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRecord {
    /// JSON of the report, as the node made it.
    #[serde(with = "base64_bytes")]
    pub payload: Vec<u8>,
    /// The node's signature.
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
    /// When it arrived.
    pub received: Timestamp,
    /// Newest journal frame that the node had told of by then.
    #[serde(default)]
    pub journal_sequence: u64,
}
record!(ReportRecord, "report", 1);

/// Prefix of all reports, node by node and chain by chain.
pub const ALL: &str = "report/";

/// Prefix of the reports of one chain of a node. The first chain has no number, as stores had it before there were
/// others.
pub fn of_chain(node: NodeId, chain: u32) -> String {
    match chain {
        0 => format!("{ALL}{node}/"),
        chain => format!("{ALL}{node}/chain-{chain:010}/"),
    }
}

/// A node's report by its number in a chain, an object.
pub fn key(node: NodeId, chain: u32, sequence: u64) -> Made {
    make(format!("{}{sequence:020}", of_chain(node, chain)))
}

/// Node and chain of the report that a key below [`ALL`] belongs to.
pub fn chain_in(key: &Key) -> Option<(NodeId, u32)> {
    let mut parts = key.as_bytes().strip_prefix(ALL.as_bytes())?.split(|byte| *byte == b'/');
    let mut next = || std::str::from_utf8(parts.next()?).ok();
    let node = next()?.parse().ok()?;
    let chain = next()?.strip_prefix("chain-").map_or(Some(0), |number| number.parse().ok())?;
    Some((node, chain))
}

/// A place behind all reports of a chain, and before those of the next.
pub fn behind_chain(node: NodeId, chain: u32) -> Made {
    make(format!("{}:", of_chain(node, chain)))
}

/// A place behind the parts of a report, and before the next one.
pub fn behind(node: NodeId, chain: u32, sequence: u64) -> Made {
    make(format!("{}{sequence:020}:", of_chain(node, chain)))
}

/// The number of the report that a key of a chain, or of a part of a report, belongs to.
pub fn sequence_in(key: &Key, prefix: &str) -> Option<u64> {
    let number = key.as_bytes().strip_prefix(prefix.as_bytes())?.get(..20)?;
    std::str::from_utf8(number).ok()?.parse().ok()
}
