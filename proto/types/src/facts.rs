//! Facts: what a node reports about itself. They inform; they never authorise or select targets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Largest facts of a node on the wire (security-and-delivery §1.24).
pub const MAX_FACTS_BYTES: usize = 256 * 1024;
/// Most entries of each list and map inside (security-and-delivery §1.24).
pub const MAX_FACTS_ENTRIES: usize = 4096;

/// Reported by the node at connect, and when they change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFacts {
    /// Host name as the kernel has it.
    pub hostname: String,
    /// `ID` of os-release, such as `debian`.
    pub os: String,
    /// `VERSION_ID` of os-release.
    pub os_version: String,
    /// Kernel release.
    pub kernel: String,
    /// Machine architecture.
    pub arch: String,
    /// Logical processors.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Boot id of this boot.
    pub boot_id: String,
    /// When it booted.
    pub booted: Option<Timestamp>,
    /// The agent's version.
    pub agent_version: String,
    /// Where units run: `systemd` or `supervised`.
    pub units: String,
    /// Network interfaces without loopback.
    pub interfaces: Vec<String>,
    /// Flags for `when` expressions, such as `postgresql` or `lvm`.
    pub flags: BTreeMap<String, bool>,
    /// What is simulated on this node, in words; empty on a real one.
    pub simulated: Vec<String>,
}
