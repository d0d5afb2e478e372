//! Bodies of reports: gone when they are old, chain by chain and oldest first, whatever became of their jobs, runs
//! and nodes. Of the chain that a node is in the newest stays: the node's next report names it.

use fleet_store::{Direction, Key, chunks};
use fleet_types::id::NodeId;
use fleet_types::time::Timestamp;

use super::{BODIES, is_over};
use crate::context::Storage;
use crate::error::Result;
use crate::repo;
use crate::repo::nodes::{self, NodeRecord};
use crate::repo::reports::ReportRecord;
use crate::service::reports;

/// Bodies a commit. Each is at most 512 KiB in parts of 7 KiB: eight of them stay below the store's 1,024
/// operations.
const A_COMMIT: usize = 8;

/// Takes away what is old of every chain. Looks at the oldest of each, and no further than one that stays.
pub async fn take(storage: &Storage, now: Timestamp) -> Result<usize> {
    let (mut taken, mut after) = (0, None);
    while let Some(key) = first(storage, repo::reports::ALL, after.as_ref()).await? {
        // Whatever has another shape is nobody's report.
        let Some((node, chain)) = repo::reports::chain_in(&key) else {
            after = Some(key);
            continue;
        };
        let old = old(storage, node, chain, now).await?;
        for bodies in old.chunks(A_COMMIT) {
            let mut batch = storage.audited.batch().using_reserve();
            for body in bodies {
                batch = chunks::delete_object(storage.repo.store().as_ref(), batch, body).await?;
            }
            storage.audited.commit(batch, vec![]).await?;
        }
        taken += old.len();
        after = Some(repo::reports::behind_chain(node, chain)?);
    }
    Ok(taken)
}

async fn first(storage: &Storage, prefix: &str, after: Option<&Key>) -> Result<Option<Key>> {
    let page = storage.repo.store().scan(prefix.as_bytes(), after, 1, Direction::Ascending).await?;
    Ok(page.into_iter().next().map(|(key, _)| key))
}

/// Reports of a chain arrive in the order of their numbers: behind the first that is young all are.
async fn old(storage: &Storage, node: NodeId, chain: u32, now: Timestamp) -> Result<Vec<Key>> {
    let known = storage.repo.get::<NodeRecord>(&nodes::key(node)?).await?;
    let newest = match known.filter(|known| known.record.chain == chain) {
        Some(_) => reports::newest_sequence(storage, node, chain).await?,
        None => None,
    };
    let prefix = repo::reports::of_chain(node, chain);
    let (mut old, mut after) = (Vec::new(), None);
    while let Some(found) = first(storage, &prefix, after.as_ref()).await? {
        let Some(sequence) =
            repo::reports::sequence_in(&found, &prefix).filter(|number| Some(*number) != newest)
        else {
            break;
        };
        let key = repo::reports::key(node, chain, sequence)?;
        if let Some(body) = storage.repo.object_record::<ReportRecord>(&key).await? {
            if !is_over(body.received, BODIES, now) {
                break;
            }
            old.push(key);
        }
        after = Some(repo::reports::behind(node, chain, sequence)?);
    }
    Ok(old)
}
