//! Packages of a node, for people.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::Name;
use crate::time::Timestamp;

/// What packages a node has; a page of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePackages {
    /// `fleet/v1/node-packages`.
    pub schema: String,
    /// The node.
    pub node: Name,
    /// Its distribution.
    pub os: String,
    /// Its release.
    pub os_version: String,
    /// What the list is known by: equal on nodes with equal packages.
    pub digest: Digest,
    /// Since when it is as it is.
    pub since: Timestamp,
    /// When the node said so last.
    pub heard: Timestamp,
    /// The kernel that runs.
    pub running_kernel: Option<String>,
    /// The package of the newest kernel that is installed.
    pub newest_kernel: Option<String>,
    /// Whether something waits for a reboot.
    pub reboot_pending: bool,
    /// Why it is not known what the node's archives have; absent where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archives_unknown: Option<String>,
    /// Packages of which an archive of the node has a newer version.
    pub newer: u32,
    /// Packages in all.
    pub count: u32,
    /// The packages, by name.
    pub items: Vec<PackageItem>,
    /// Where the next page begins; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageItem {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
    /// The source package that it was built from.
    pub source: String,
    /// The version of that.
    pub source_version: String,
    /// A newer version in one of the node's archives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<String>,
    /// Who publishes that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// Services that still run files which this package has replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub old_files_in: Vec<String>,
}
