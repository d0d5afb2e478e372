//! Documents: the newest revision of each, all revisions, and what was signed, by its digest. Requests lie among
//! the latter. Decides nothing; called by the services.

use fleet_store::{Batch, WriteId};
use fleet_types::digest::Digest;
use fleet_types::seal::KeyId;
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::codec::record;
use super::keys::{Made, make};
use super::reader::BatchExt as _;
use crate::error::Result;

/// One revision of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentRecord {
    /// `profile`, `procedure`, `schedule`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Number under this name, from 1.
    pub revision: u32,
    /// Its version as written.
    pub version: Option<u64>,
    /// Its digest.
    pub digest: Digest,
    /// Its description.
    pub description: String,
    /// When it was applied.
    pub applied: Timestamp,
    /// Key that signed it.
    pub key: KeyId,
    /// Name of the person, at the time.
    pub signed_by: String,
}
record!(DocumentRecord, "document", 1);

/// A signed document or request by digest: JSON of its envelope, an object.
pub fn content(digest: &Digest) -> Made {
    make(format!("content/{digest}"))
}

/// The TOML source of a document by digest, an object.
pub fn source(digest: &Digest) -> Made {
    make(format!("source/{digest}"))
}

/// Prefix of the newest revisions of all documents.
pub const HEADS: &str = "document-head/";

/// The newest revision of a document.
pub fn head(kind: &str, name: &str) -> Made {
    make(format!("{HEADS}{kind}/{name}"))
}

/// Prefix of the newest revisions of the documents of one kind.
pub fn heads_of(kind: &str) -> String {
    format!("{HEADS}{kind}/")
}

/// One revision of a document.
pub fn revision(kind: &str, name: &str, revision: u32) -> Made {
    make(format!("document/{kind}/{name}/{revision:010}"))
}

/// Writes a revision as the newest one: it follows the head that was seen, or is the first.
pub fn add_revision(
    batch: Batch,
    seen: Option<WriteId>,
    revised: &DocumentRecord,
    envelope: &[u8],
    text: &[u8],
) -> Result<Batch> {
    let DocumentRecord { kind, name, digest, .. } = revised;
    let newest = head(kind, name)?;
    let batch = match seen {
        Some(seen) => batch.replace_record(newest, seen, revised)?,
        None => batch.create_record(newest, revised)?,
    };
    batch
        .create_record(revision(kind, name, revised.revision)?, revised)?
        .put_object(&content(digest)?, envelope)?
        .put_object(&source(digest)?, text)
}

/// Puts another signature in the place of the one on the newest revision.
pub fn sign_again(batch: Batch, seen: WriteId, signed: &DocumentRecord, envelope: &[u8]) -> Result<Batch> {
    let DocumentRecord { kind, name, digest, .. } = signed;
    batch
        .replace_record(head(kind, name)?, seen, signed)?
        .put_record(revision(kind, name, signed.revision)?, signed)?
        .put_object(&content(digest)?, envelope)
}
