//! After "outcome unknown": was the commit written?
//!
//! Everything a commit puts or appends carries its write id, so the answer can be read back. The rule is for
//! everywhere, not only where somebody remembered it (examples, habit 10): use [`commit_resolved`], or take the
//! [`Evidence`] before the commit and ask [`resolve_outcome`] later.

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::{Batch, Committed, Op, Precondition, WriteId};
use crate::contract::{Direction, KvStore, MAX_SCAN_ENTRIES};
use crate::error::StoreError;
use crate::key::{Key, LogName};

/// What to look for afterwards: taken from a batch before it is committed.
#[derive(Debug, Clone)]
pub struct Evidence {
    write_id: WriteId,
    puts: Vec<Key>,
    logs: Vec<LogName>,
    /// Preconditions that the batch itself ends by writing their key: while one still holds, nothing was written.
    overwritten: Vec<Precondition>,
}

/// What reading back has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The commit was written.
    Written(Committed),
    /// The commit was not written; the same batch may be built again and tried. (A key that was created and deleted
    /// again since looks the same: what may be in doubt is not deleted at once.)
    NotWritten,
    /// No trace is left that would tell: all its keys have been written by others since, or it only deleted.
    /// Load the state and decide anew.
    Undecidable,
}

impl Batch {
    /// What to look for if the outcome of this batch becomes unknown.
    pub fn evidence(&self) -> Evidence {
        let mut puts = Vec::new();
        let mut changed = BTreeSet::new();
        for op in &self.ops {
            changed.insert(op.key());
            if let Op::Put(key, _) = op {
                puts.push(key.clone());
            }
        }
        let overwritten = self.preconditions.iter().filter(|p| changed.contains(p.key())).cloned().collect();
        let logs = self.appends.iter().map(|append| append.log.clone()).collect();
        Evidence { write_id: self.write_id, puts, logs, overwritten }
    }
}

/// How many pages of each log are looked through when no key shows that the commit was written: its records are
/// the newest or nearly so, because the caller asks soon.
const PAGES_WITHOUT_TRACE: usize = 1;

/// Reads back whether a commit was written.
///
/// Call it when the store answers again and the failed attempt can no longer be under way: with an embedded store
/// after the restart, with a server when its connection is gone.
pub async fn resolve_outcome(store: &dyn KvStore, evidence: &Evidence) -> Result<Outcome, StoreError> {
    let shown_by_key = is_shown_by_a_key(store, evidence).await?;
    if !evidence.logs.is_empty() {
        let pages = if shown_by_key { usize::MAX } else { PAGES_WITHOUT_TRACE };
        match find_records(store, evidence, pages).await? {
            Records::Found(appended) => return Ok(Outcome::Written(Committed { appended })),
            // The commit was written, but its records are gone: pruned, long ago.
            _ if shown_by_key => return Ok(Outcome::Undecidable),
            Records::NowhereInTheLogs => return Ok(Outcome::NotWritten),
            Records::NotAmongTheNewest => {}
        }
    }
    if shown_by_key {
        return Ok(Outcome::Written(Committed::default()));
    }
    for precondition in &evidence.overwritten {
        let entry = store.get(precondition.key()).await?;
        let still_holds = match precondition {
            Precondition::Absent(_) => entry.is_none(),
            Precondition::WriteIdIs(_, seen) => entry.is_some_and(|entry| entry.write_id == *seen),
        };
        if still_holds {
            return Ok(Outcome::NotWritten);
        }
    }
    Ok(Outcome::Undecidable)
}

/// Commits, and reads back at once when the outcome is unknown. What stays unknown stays an error, also when the
/// store does not answer any more.
pub async fn commit_resolved(store: &dyn KvStore, batch: Batch) -> Result<Committed, StoreError> {
    let evidence = batch.evidence();
    let unknown = match store.commit(batch).await {
        Err(error) if !error.certainly_not_written() => error,
        known => return known,
    };
    match resolve_outcome(store, &evidence).await {
        Ok(Outcome::Written(committed)) => Ok(committed),
        Ok(Outcome::NotWritten) => Err(StoreError::Unavailable {
            reason: format!("commit {} was interrupted and not written; try it again", evidence.write_id),
        }),
        Ok(Outcome::Undecidable) | Err(_) => Err(unknown),
    }
}

enum Records {
    /// All of them, in the order of the batch's appends.
    Found(Vec<u64>),
    NotAmongTheNewest,
    /// One of the logs was read to its first record, index 0, and does not hold them.
    NowhereInTheLogs,
}

async fn is_shown_by_a_key(store: &dyn KvStore, evidence: &Evidence) -> Result<bool, StoreError> {
    for key in &evidence.puts {
        if store.get(key).await?.is_some_and(|entry| entry.write_id == evidence.write_id) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn find_records(store: &dyn KvStore, evidence: &Evidence, pages: usize) -> Result<Records, StoreError> {
    let mut indices_by_log: BTreeMap<&LogName, std::vec::IntoIter<u64>> = BTreeMap::new();
    for log in &evidence.logs {
        if indices_by_log.contains_key(log) {
            continue;
        }
        match find_in_log(store, log, evidence.write_id, pages).await? {
            Records::Found(indices) => indices_by_log.insert(log, indices.into_iter()),
            not_found => return Ok(not_found),
        };
    }
    // Records of one log were numbered in the order of the appends, so handing them out in order restores it.
    let in_order = evidence.logs.iter().map(|log| indices_by_log.get_mut(log).and_then(Iterator::next));
    Ok(in_order.collect::<Option<Vec<u64>>>().map_or(Records::NotAmongTheNewest, Records::Found))
}

/// The indices of a log's records that carry the write id, ascending.
async fn find_in_log(
    store: &dyn KvStore,
    log: &LogName,
    write_id: WriteId,
    pages: usize,
) -> Result<Records, StoreError> {
    let mut found = Vec::new();
    let mut after: Option<Key> = None;
    let mut oldest_seen = store.log_len(log).await?;
    for _ in 0..pages {
        let page =
            store.scan(&log.record_prefix(), after.as_ref(), MAX_SCAN_ENTRIES, Direction::Descending).await?;
        let before = found.len();
        for (key, entry) in &page {
            if let Some(index) = log.index_of(key) {
                oldest_seen = oldest_seen.min(index);
                if entry.write_id == write_id {
                    found.push(index);
                }
            }
        }
        // The records of one commit are neighbours: a page that adds none after some were found ends the search.
        let is_complete = !found.is_empty() && found.len() == before;
        if is_complete || page.len() < MAX_SCAN_ENTRIES {
            break;
        }
        after = page.into_iter().next_back().map(|(key, _)| key);
    }
    found.reverse();
    Ok(match found.is_empty() {
        false => Records::Found(found),
        true if oldest_seen == 0 => Records::NowhereInTheLogs,
        true => Records::NotAmongTheNewest,
    })
}
