//! The audit log as operators read it: pages, stored bytes, size and root.
//!
//! The root is derived: a frontier that catches up with the log when it is asked for, and that is kept beside the
//! log from time to time, so that no start works it out from the first record. Only the records' bytes are
//! evidence: whoever verifies hashes them.

use fleet_store::{Direction, KvStore, LogName};
use fleet_types::audit::AuditRecord;
use fleet_types::canonical;
use fleet_types::merkle::{Frontier, leaf_hash};
use fleet_types::view::{AuditHead, AuditItem, Page};
use tokio::sync::Mutex;

use crate::context::{Identities, Memory, Storage};
use crate::error::{ControllerError, Result};
use crate::repo::audited::{self, AuditText, AuditTreeRecord};
use crate::repo::reader::BatchExt as _;

/// Records looked at for one page of a filtered list: a filter that matches nothing must end, too.
const MAX_LOOKED_AT: u64 = 20_000;
/// Records of one read from the store.
const STRIDE: usize = 500;

/// Records by which the kept tree may lag behind: hashing so many takes a few milliseconds.
const KEEP_EVERY: u64 = 4_096;

/// The tree over the log, as far as it was asked for.
#[derive(Default)]
pub struct Tree(Mutex<Known>);

#[derive(Default)]
struct Known {
    frontier: Frontier,
    /// The size that is kept in the store; `None` before it was read.
    kept: Option<u64>,
}

/// Stored bytes of records `from..to`, at most one stride, in order.
pub async fn bytes(storage: &Storage, from: u64, to: u64) -> Result<Vec<(u64, Vec<u8>)>> {
    let log = audited::log()?;
    let limit = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX).min(STRIDE);
    read(storage.repo.store().as_ref(), &log, from, limit).await
}

async fn read(store: &dyn KvStore, log: &LogName, from: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let after = from.checked_sub(1).map(|index| log.record_key(index));
    let page = store.scan(&log.record_prefix(), after.as_ref(), limit, Direction::Ascending).await?;
    Ok(page.into_iter().filter_map(|(key, entry)| Some((log.index_of(&key)?, entry.value))).collect())
}

/// Size and root now.
pub async fn head(storage: &Storage, identities: &Identities, tree: &Tree) -> Result<AuditHead> {
    let log = audited::log()?;
    let size = storage.repo.store().log_len(&log).await?;
    let mut known = tree.0.lock().await;
    if known.kept.is_none() {
        *known = kept(storage, size).await?;
    }
    let frontier = &mut known.frontier;
    while frontier.size() < size {
        let page = read(storage.repo.store().as_ref(), &log, frontier.size(), STRIDE).await?;
        if page.is_empty() {
            return Err(ControllerError::internal(format!("audit record {} is missing", frontier.size())));
        }
        for (index, record) in page {
            if index != frontier.size() {
                return Err(ControllerError::internal(format!(
                    "audit record {} is missing",
                    frontier.size()
                )));
            }
            frontier.push(leaf_hash(&record));
        }
    }
    let head = AuditHead {
        schema: "fleet/v1/audit-head".to_owned(),
        log: identities.fleet.fleet,
        size: frontier.size(),
        root: frontier.root(),
        as_of: storage.clock.now(),
    };
    keep(storage, &mut known).await;
    Ok(head)
}

/// The tree that is kept in the store; an empty one when there is none.
async fn kept(storage: &Storage, size: u64) -> Result<Known> {
    let stored = storage.repo.get::<AuditTreeRecord>(&audited::tree()?).await?;
    let frontier = stored.map(|stored| stored.record.tree).unwrap_or_default();
    if frontier.size() > size {
        return Err(ControllerError::internal(format!(
            "the audit log has {size} records, and had {} before: the store went back",
            frontier.size()
        )));
    }
    Ok(Known { kept: Some(frontier.size()), frontier })
}

/// Keeps the tree once it has grown enough. Nothing is lost when it cannot be kept: it is worked out again.
async fn keep(storage: &Storage, known: &mut Known) {
    let size = known.frontier.size();
    if size.saturating_sub(known.kept.unwrap_or(0)) < KEEP_EVERY {
        return;
    }
    let written = async {
        let record = AuditTreeRecord { tree: known.frontier.clone() };
        let batch = storage.audited.batch().put_record(audited::tree()?, &record)?;
        storage.audited.commit(batch, vec![]).await
    };
    match written.await {
        Ok(_) => known.kept = Some(size),
        Err(error) => tracing::warn!("the tree over the audit log is not kept: {error}"),
    }
}

/// Which records a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Beginning of the action.
    pub action: String,
    /// Beginning of the object.
    pub object: String,
}

/// A page, newest first, of records before an index (0: from the newest).
pub async fn list(
    storage: &Storage,
    memory: &Memory,
    before: u64,
    limit: usize,
    filter: &Filter,
) -> Result<Page<AuditItem>> {
    let log = audited::log()?;
    let mut at = if before == 0 { storage.repo.store().log_len(&log).await? } else { before };
    let stop = at.saturating_sub(MAX_LOOKED_AT);
    let mut items = Vec::new();
    while at > stop && items.len() < limit {
        let from = at.saturating_sub(STRIDE as u64).max(stop);
        let page =
            read(storage.repo.store().as_ref(), &log, from, usize::try_from(at - from).unwrap_or(STRIDE))
                .await?;
        for (index, bytes) in page.into_iter().rev() {
            if items.len() == limit {
                break;
            }
            at = index;
            let record: AuditRecord = canonical::from_slice(&bytes).map_err(ControllerError::internal)?;
            if record.action.starts_with(&filter.action) && record.object.starts_with(&filter.object) {
                items.push(item(storage, memory, record).await?);
            }
        }
        if items.len() < limit {
            at = from;
        }
    }
    let next = (at > 0).then(|| at.to_string());
    Ok(Page { schema: "fleet/v1/audit-list".to_owned(), items, next })
}

async fn item(storage: &Storage, memory: &Memory, record: AuditRecord) -> Result<AuditItem> {
    let text = match record.text {
        Some(_) => {
            storage.repo.get::<AuditText>(&audited::text(record.id)?).await?.map(|stored| stored.record.text)
        }
        None => None,
    };
    let node_name =
        record.job.and_then(|job| memory.node_cache.get(job.node)).map(|known| known.record.name.clone());
    Ok(AuditItem { record, free_text: text, node_name })
}
