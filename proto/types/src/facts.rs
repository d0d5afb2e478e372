//! Facts: what a node reports about itself. They inform; they never authorise or select targets.
//!
//! The facts that a condition may name are declared: those of every node here, those of a product in its profile.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::document::Value;
use crate::time::Timestamp;

/// Largest facts of a node on the wire (security-and-delivery §1.24).
pub const MAX_FACTS_BYTES: usize = 256 * 1024;
/// Most entries of each list and map inside (security-and-delivery §1.24).
pub const MAX_FACTS_ENTRIES: usize = 4096;

/// Facts of every node that are texts; true in a condition, because a node that cannot tell one does not know it.
pub const TEXTS: [&str; 7] = ["hostname", "os", "os_version", "kernel", "arch", "units", "package_manager"];
/// Facts of every node that are flags, with the programs of which any makes them true.
pub const FLAGS: [(&str, &[&str]); 9] = [
    ("postgresql", &["psql", "postgres", "pg_ctl"]),
    ("lvm", &["lvm"]),
    ("nftables", &["nft"]),
    ("iptables", &["iptables"]),
    ("keepalived", &["keepalived"]),
    ("systemd", &["systemctl"]),
    ("apt", &["apt-get"]),
    ("python3", &["python3"]),
    ("logrotate", &["logrotate"]),
];

/// The flag of a node that a package has asked to reboot; not known where the node cannot see it.
pub const REBOOT_REQUIRED: &str = "reboot_required";
/// The package manager of a node that has none.
pub const NO_PACKAGE_MANAGER: &str = "none";

/// The facts that conditions may name without a declaration in the profile.
pub fn known() -> impl Iterator<Item = &'static str> {
    TEXTS.into_iter().chain(FLAGS.into_iter().map(|(flag, _)| flag)).chain([REBOOT_REQUIRED])
}

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
    /// Package manager that the agent speaks to: `apt` or `none`.
    pub package_manager: String,
    /// Services, else programs, that still run files which an upgrade has replaced.
    pub running_old_files: Vec<String>,
    /// Network interfaces without loopback.
    pub interfaces: Vec<String>,
    /// Flags for `when` expressions, such as `postgresql` or `lvm`.
    pub flags: BTreeMap<String, bool>,
    /// What is simulated on this node, in words; empty on a real one.
    pub simulated: Vec<String>,
}

impl NodeFacts {
    /// The fact that a condition names; none when it is not known on this node.
    pub fn value(&self, name: &str) -> Option<Value> {
        let text = match name {
            "hostname" => &self.hostname,
            "os" => &self.os,
            "os_version" => &self.os_version,
            "kernel" => &self.kernel,
            "arch" => &self.arch,
            "units" => &self.units,
            "package_manager" => &self.package_manager,
            flag => return self.flags.get(flag).copied().map(Value::from),
        };
        (!text.is_empty()).then(|| Value::from(text.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declared_fact_has_its_value_and_what_is_missing_is_not_known() {
        let mut facts: NodeFacts = serde_json::from_value(
            TEXTS.iter().map(|name| ((*name).to_owned(), serde_json::Value::from("x"))).collect(),
        )
        .unwrap();
        facts.flags = FLAGS.iter().map(|(flag, _)| ((*flag).to_owned(), false)).collect();
        facts.flags.insert(REBOOT_REQUIRED.to_owned(), false);
        assert!(known().all(|name| facts.value(name).is_some()));
        facts.os.clear();
        assert_eq!((facts.value("os"), facts.value("edgefw")), (None, None));
    }
}
