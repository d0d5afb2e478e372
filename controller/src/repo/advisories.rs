//! Sources of advisories, and when what they say was first seen on each node. Decides nothing; called by the services.

use std::collections::BTreeMap;

use fleet_advisories::import::Skipped;
use fleet_store::Batch;
use fleet_types::digest::Digest;
use fleet_types::id::NodeId;
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::audited::AuditedCommits;
use super::codec::record;
use super::keys::{Made, make};
use super::reader::{BatchExt as _, Repo};
use crate::error::Result;

/// What was imported last of one source; the advisories themselves lie in a file beside the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Its name.
    pub name: String,
    /// Digest of the file.
    pub digest: Digest,
    /// Advisories, or lines, that it holds.
    pub entries: u64,
    /// Files that were read in the import, those of other sources included.
    pub files: u64,
    /// What was read and not used, the most frequent reasons first.
    pub skipped: Vec<Skipped>,
    /// How often in all.
    pub skipped_count: u64,
    /// The newest instant that stands in it.
    pub newest: Option<Timestamp>,
    /// When it was imported.
    pub imported: Timestamp,
    /// By whom.
    pub by: String,
}

/// All sources: one object, so that an import is one change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcesRecord(pub Vec<SourceRecord>);
record!(SourcesRecord, "sources of advisories", 1);

/// When a node's findings were seen first. What is gone is kept for a while, so that an import that lacks it, or a step
/// back to a former package, moves no clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartsRecord {
    /// By the advisory's id.
    pub starts: BTreeMap<String, StartRecord>,
}
record!(StartsRecord, "first seen", 1);

/// The instants of one finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRecord {
    /// When the origin published it; the earliest that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Timestamp>,
    /// When the node's archive had the fix for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<Timestamp>,
    /// When it was found on the node.
    pub found: Timestamp,
    /// When it was not found any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Timestamp>,
}

fn all_sources() -> Made {
    make("meta/advisory-sources".to_owned())
}

fn starts(node: NodeId) -> Made {
    make(format!("first-seen/{node}"))
}

/// All sources, by name.
pub async fn sources(repo: &Repo) -> Result<Vec<SourceRecord>> {
    let record: Option<SourcesRecord> = repo.object_record(&all_sources()?).await?;
    Ok(record.unwrap_or_default().0)
}

/// Puts all sources in place.
pub fn put_sources(batch: Batch, sources: Vec<SourceRecord>) -> Result<Batch> {
    batch.put_object_record(&all_sources()?, &SourcesRecord(sources))
}

/// When a node's findings were seen first.
pub async fn first_seen(repo: &Repo, node: NodeId) -> Result<StartsRecord> {
    Ok(repo.object_record(&starts(node)?).await?.unwrap_or_default())
}

/// Keeps it.
pub async fn keep_first_seen(commits: &AuditedCommits, node: NodeId, record: &StartsRecord) -> Result<()> {
    let batch = commits.batch().put_object_record(&starts(node)?, record)?;
    commits.commit(batch, vec![]).await.map(drop)
}

/// Adds the removal of a node's.
pub async fn remove_first_seen(repo: &Repo, batch: Batch, node: NodeId) -> Result<Batch> {
    Ok(fleet_store::chunks::delete_object(repo.store().as_ref(), batch, &starts(node)?).await?)
}
