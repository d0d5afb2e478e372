//! Views of documents: as they are listed and shown, and what an apply did. Called like [`super`].

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::seal::Envelope;
use crate::time::Timestamp;

/// A document in lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentItem {
    /// `profile`, `procedure`, `schedule`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The store's number of it under this name, from 1.
    pub revision: u32,
    /// Its version as written, where the kind has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Its digest.
    pub digest: Digest,
    /// Its description.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// When it was applied.
    pub applied: Timestamp,
    /// Who signed it.
    pub signed_by: String,
}

/// One document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentView {
    /// `fleet/v1/document`.
    pub schema: String,
    /// As in lists.
    #[serde(flatten)]
    pub item: DocumentItem,
    /// Its content, for reading.
    pub content: serde_json::Value,
    /// The signed bytes: what is hashed and believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Envelope>,
    /// Its TOML source, unsigned.
    pub source: String,
}

/// What an apply did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyView {
    /// `fleet/v1/apply`.
    pub schema: String,
    /// Nothing was stored.
    pub dry_run: bool,
    /// One entry a document.
    pub items: Vec<ApplyItem>,
    /// What is worth knowing.
    pub warnings: Vec<String>,
}

/// One document of an apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyItem {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// `created`, `updated`, `unchanged`.
    pub action: String,
    /// The revision it has now.
    pub revision: u32,
    /// Its digest.
    pub digest: Digest,
}
