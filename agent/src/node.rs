//! What the enrolment said about this node: fleet, id, name, labels. One file, kept by either half.
//!
//! The executor's copy lies in its state: labels decide rings, pairs and scopes, so the node keeps its own where
//! nobody who speaks to the network can change them (security-and-delivery §1.13, §1.16). The core's lies beside
//! the identity, is written before the identity's pointer flips, and names the certificate that it belongs to,
//! so that a crash in between is seen.

use std::path::{Path, PathBuf};

use fleet_certs::files::{FileError, KEY_MODE, read_text, write_atomic};
use fleet_types::digest::Digest;
use fleet_types::id::{FleetId, Name, NodeId};
use fleet_types::label::Labels;
use serde::{Deserialize, Serialize};

const FILE: &str = "node.json";
const SCHEMA: &str = "fleet/v1/node";

/// The node record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The file.
    #[error("node record cannot be used")]
    File(#[from] FileError),
    /// There is none.
    #[error("{} is missing: join with a token first", .0.display())]
    Missing(PathBuf),
    /// Its content.
    #[error("node record {0} cannot be understood: {1}; enrol again")]
    Malformed(String, String),
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRecord {
    schema: String,
    /// The fleet.
    pub fleet: FleetId,
    /// This node.
    pub node: NodeId,
    /// Its name, for people.
    pub name: Name,
    /// Its labels, as an operator assigned them.
    pub labels: Labels,
    /// The join token that was redeemed; not secret.
    pub token_id: String,
    /// SHA-256 of the certificate that came with this record.
    pub certificate: Digest,
}

impl NodeRecord {
    /// A record of the present schema.
    pub fn new(
        (fleet, node): (FleetId, NodeId),
        (name, labels): (Name, Labels),
        token_id: String,
        certificate: Digest,
    ) -> Self {
        Self { schema: SCHEMA.to_owned(), fleet, node, name, labels, token_id, certificate }
    }

    /// Reads the record in a directory.
    pub fn load(directory: &Path) -> Result<Self, NodeError> {
        let path = directory.join(FILE);
        let malformed = |why: String| NodeError::Malformed(path.display().to_string(), why);
        let text = match read_text(&path) {
            Err(FileError::Missing { path }) => return Err(NodeError::Missing(path)),
            other => other?,
        };
        let record: Self = serde_json::from_str(&text).map_err(|e| malformed(e.to_string()))?;
        if record.schema != SCHEMA {
            return Err(malformed(format!("its schema is {:?}, known is {SCHEMA}", record.schema)));
        }
        Ok(record)
    }

    /// Replaces the record in a directory.
    pub fn store(&self, directory: &Path) -> Result<(), NodeError> {
        // The type has string keys and no failing serialisers.
        let bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        Ok(write_atomic(&directory.join(FILE), &bytes, KEY_MODE)?)
    }
}
