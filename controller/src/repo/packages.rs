//! What packages nodes have: a record a node, and the lists that these name, each kept once however many nodes have it.
//!
//! Keys, records and transitions are here. A list is there before the first record that names it, and goes behind the last;
//! callers take turns (`fleet::package_lists`), so that none goes while another takes it. Decides nothing.

use fleet_store::{Batch, Direction, Key, chunks};
use fleet_types::digest::Digest;
use fleet_types::id::NodeId;
use fleet_types::packages::NodeState;
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::audited::AuditedCommits;
use super::codec::Record;
use super::keys::{Made, make};
use super::reader::{BatchExt as _, PAGE, Repo};
use crate::error::Result;

/// Prefix of the lists.
const LISTS: &str = "package-list/";

/// What packages a node has, as it said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagesRecord {
    /// Digest of its list.
    pub list: Digest,
    /// What stands beside it.
    pub state: NodeState,
    /// Since when both are as they are.
    pub since: Timestamp,
}

impl Record for PackagesRecord {
    const WHAT: &'static str = "packages";
    const VERSION: u8 = 1;
}

/// A node's record, an object.
fn of_node(id: NodeId) -> Made {
    make(format!("packages/{id}"))
}

fn list(digest: &Digest) -> Made {
    make(format!("{LISTS}{digest}"))
}

/// A node's record.
pub async fn get(repo: &Repo, node: NodeId) -> Result<Option<PackagesRecord>> {
    repo.object_record(&of_node(node)?).await
}

/// A list as it was packed.
pub async fn get_list(repo: &Repo, digest: &Digest) -> Result<Option<Vec<u8>>> {
    repo.object(&list(digest)?).await
}

/// Keeps a list.
pub async fn put_list(commits: &AuditedCommits, digest: &Digest, packed: &[u8]) -> Result<()> {
    let batch = commits.batch().put_object(&list(digest)?, packed)?;
    commits.commit(batch, vec![]).await.map(drop)
}

/// Keeps a node's record.
pub async fn put(commits: &AuditedCommits, node: NodeId, record: &PackagesRecord) -> Result<()> {
    let batch = commits.batch().put_object_record(&of_node(node)?, record)?;
    commits.commit(batch, vec![]).await.map(drop)
}

/// Adds the removal of a node's record.
pub async fn remove(repo: &Repo, batch: Batch, node: NodeId) -> Result<Batch> {
    Ok(chunks::delete_object(repo.store().as_ref(), batch, &of_node(node)?).await?)
}

/// Takes a list away that no record names.
pub async fn remove_list(repo: &Repo, commits: &AuditedCommits, digest: &Digest) -> Result<()> {
    let batch = commits.batch().using_reserve();
    let batch = chunks::delete_object(repo.store().as_ref(), batch, &list(digest)?).await?;
    commits.commit(batch, vec![]).await.map(drop)
}

/// The lists that are kept; for starts.
pub async fn lists(repo: &Repo) -> Result<Vec<Digest>> {
    let mut found = Vec::new();
    let mut after: Option<Key> = None;
    loop {
        let prefix = LISTS.as_bytes();
        let page = repo.store().scan(prefix, after.as_ref(), PAGE, Direction::Ascending).await?;
        let is_last = page.len() < PAGE;
        after = page.last().map(|(key, _)| key.clone());
        // Behind the head of each lie its parts, whose keys are longer.
        let digest = |key: &Key| {
            std::str::from_utf8(key.as_bytes().strip_prefix(prefix)?).ok()?.parse::<Digest>().ok()
        };
        found.extend(page.iter().filter_map(|(key, _)| digest(key)));
        if is_last {
            return Ok(found);
        }
    }
}
