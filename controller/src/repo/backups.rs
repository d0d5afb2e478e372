//! Archives that reports named, and their encrypted copies. The copies' bytes are in [`super::copy_files`]. Decides
//! nothing; called by the services.

use fleet_store::Key;
use fleet_types::digest::Digest;
use fleet_types::id::{Name, NodeId, RunId};
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::codec::record;
use super::keys::{Made, make};

/// An archive that a report named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRecord {
    /// The node.
    pub node: NodeId,
    /// Its name at the time.
    pub node_name: Name,
    /// The backup's id.
    pub backup: String,
    /// Path on the node.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Digest of the archive.
    pub sha256: Digest,
    /// When it was made.
    pub made: Timestamp,
    /// Verified after writing?
    pub verified: bool,
    /// The run.
    pub run: RunId,
    /// The newest run in whose output its listing may stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed_in: Option<RunId>,
    /// Its encrypted copy, as the report named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyRecord>,
}
record!(BackupRecord, "backup", 1);

impl BackupRecord {
    /// Is its copy here?
    pub fn has_copy(&self) -> bool {
        self.copy.as_ref().is_some_and(|copy| copy.stored.is_some() && copy.gone.is_none())
    }
}

/// An encrypted copy of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRecord {
    /// Digest of the encrypted file.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
    /// Days that it is kept.
    pub keep_days: Option<u32>,
    /// Copies that are kept.
    pub keep_count: Option<u32>,
    /// When it was here whole.
    pub stored: Option<Timestamp>,
    /// When it was given up by its retention.
    pub gone: Option<Timestamp>,
}

/// Prefix of all backup archives, by node.
pub const ALL: &str = "backup/";

/// Prefix of the archives of one node.
pub fn of_node(node: NodeId) -> String {
    format!("{ALL}{node}/")
}

/// What follows the prefix in the key of an archive: the place where a page ended, as callers hold it.
pub fn cursor(key: &Key) -> Option<String> {
    let tail = key.as_bytes().strip_prefix(ALL.as_bytes())?;
    String::from_utf8(tail.to_vec()).ok()
}

/// The key at which a page of archives ended.
pub fn at_cursor(cursor: &str) -> Made {
    make(format!("{ALL}{cursor}"))
}

/// An archive on a node.
pub fn key(node: NodeId, made_ms: i64, sha256: &Digest) -> Made {
    make(format!("{ALL}{node}/{made_ms:014}-{}", sha256.short()))
}
