//! What packages a node has: its own word, as it crosses the wire and is kept.
//!
//! The list is one value for all nodes that have the same packages, known by the digest of its bytes; what differs from
//! node to node with the same packages stands beside it. For: the agent, which makes both, and the controller, which
//! keeps and matches them. Pure. Must never: be trusted; it is what a node says of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::package_version::PackageFormat;

/// Packages of one node. A full desktop has 3,000.
pub const MAX_PACKAGES: usize = 20_000;
/// Bytes of a list before it is packed: [`MAX_PACKAGES`] at 300 bytes each, twice what they have.
pub const MAX_LIST_BYTES: usize = 6 * 1024 * 1024;
/// Bytes of a packed list: one object of the store, with room beside it. Lists pack to a tenth.
pub const MAX_PACKED_BYTES: usize = 768 * 1024;
/// Bytes of what stands beside the list: a thousand upgradable packages have half of it.
pub const MAX_STATE_BYTES: usize = 256 * 1024;

/// The packages of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageList {
    /// The package manager.
    pub format: PackageFormat,
    /// `ID` of os-release.
    pub os: String,
    /// `VERSION_ID` of os-release; empty where it has none.
    pub os_version: String,
    /// In order, none twice: equal packages make equal bytes.
    pub packages: Vec<Package>,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// The source package that it was built from; for rpm that name without version.
    pub source: String,
    /// The version of the source package: binary packages may have another (`+b1`, another epoch).
    pub source_version: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
}

/// What else a node says, beside its packages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeState {
    /// The running kernel, as `uname -r` has it.
    pub running_kernel: Option<String>,
    /// Whether something waits for a reboot.
    pub reboot_pending: bool,
    /// Packages whose former files services still have open, by name.
    pub old_files: BTreeMap<String, OldFiles>,
    /// What the node's own archives have, by name: the newest version of each that is newer than the installed.
    pub available: BTreeMap<String, Available>,
    /// Why that is not known; none where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archives_unknown: Option<String>,
}

/// Services that still run what a package had before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldFiles {
    /// The source version that they were started from, where the node knows it.
    pub source_version: Option<String>,
    /// Their names.
    pub services: Vec<String>,
}

/// A newer version in one of the node's archives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Available {
    /// Its version.
    pub version: String,
    /// The version of its source package.
    pub source_version: String,
    /// The archive, as the node's owner names it.
    pub origin: String,
}

impl PackageList {
    /// Puts the packages in order.
    pub fn new(format: PackageFormat, os: String, os_version: String, mut packages: Vec<Package>) -> Self {
        packages.sort();
        packages.dedup();
        Self { format, os, os_version, packages }
    }

    /// The bytes that its digest is of.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_packages_make_equal_bytes_in_whatever_order_they_are_found() {
        let package = |name: &str| Package {
            source: name.to_owned(),
            source_version: "1".to_owned(),
            name: name.to_owned(),
            version: "1".to_owned(),
            architecture: "amd64".to_owned(),
        };
        let list = |names: &[&str]| {
            let packages = names.iter().map(|name| package(name)).collect();
            PackageList::new(PackageFormat::Dpkg, "debian".to_owned(), "12".to_owned(), packages)
        };
        let bytes = list(&["b", "a", "b"]).to_bytes().unwrap();
        assert_eq!(bytes, list(&["a", "b"]).to_bytes().unwrap());
        assert_ne!(bytes, list(&["a"]).to_bytes().unwrap());
        // A later agent may say more.
        let later = br#"{"running_kernel":null,"reboot_pending":true,"more":1}"#;
        assert!(serde_json::from_slice::<NodeState>(later).unwrap().reboot_pending);
    }
}
