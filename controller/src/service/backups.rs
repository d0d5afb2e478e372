//! Archives on the nodes, as their reports named them.
//!
//! They are stored by node, so that a page of a few chosen nodes reads the archives of these alone.

use fleet_store::Direction;
use fleet_types::id::NodeId;
use fleet_types::label::Selector;
use fleet_types::view::{BackupItem, CopyItem, Page};

use super::views;
use crate::context::{Memory, Storage};
use crate::error::{ControllerError, Result};
use crate::repo::backups::{self, BackupRecord};

/// A page of the archives of the nodes that match; newest of each node first.
pub async fn list(
    storage: &Storage,
    memory: &Memory,
    selector: &str,
    after: &str,
    limit: usize,
) -> Result<Page<BackupItem>> {
    let chosen: Selector = selector.parse().map_err(|error| ControllerError::invalid("selector", error))?;
    let mut after = (!after.is_empty()).then(|| backups::at_cursor(after)).transpose()?;
    let mut found = Vec::new();
    for prefix in prefixes(memory, &chosen)? {
        // Nodes come in the order of the keys, highest first: what lies above the place of the last page was on it.
        if let Some(at) = &after
            && !at.as_bytes().starts_with(prefix.as_bytes())
            && prefix.as_bytes() > at.as_bytes()
        {
            continue;
        }
        let at = after.take().filter(|at| at.as_bytes().starts_with(prefix.as_bytes()));
        let left = limit - found.len();
        let page =
            storage.repo.page::<BackupRecord>(&prefix, at.as_ref(), left, Direction::Descending).await?;
        found.extend(page);
        if found.len() == limit {
            break;
        }
    }
    let next =
        (found.len() == limit).then(|| found.last().and_then(|(key, _)| backups::cursor(key))).flatten();
    let items = found.into_iter().map(|(_, stored)| item(stored.record)).collect();
    Ok(Page { schema: "fleet/v1/backup-list".to_owned(), items, next })
}

/// Where the archives of the chosen nodes lie, in falling order.
fn prefixes(memory: &Memory, chosen: &Selector) -> Result<Vec<String>> {
    if chosen.specificity() == 0 {
        return Ok(vec![backups::ALL.to_owned()]);
    }
    // One name alone is a node that somebody means to exist.
    let only = chosen.as_str().strip_prefix("name=").filter(|name| !name.contains(','));
    let nodes = match only {
        Some(name) => vec![views::find(memory, name)?],
        None => memory.node_cache.page(chosen, None, usize::MAX),
    };
    let mut nodes: Vec<NodeId> = nodes.into_iter().map(|known| known.record.id).collect();
    nodes.sort_unstable_by(|a, b| b.cmp(a));
    Ok(nodes.into_iter().map(backups::of_node).collect())
}

fn item(record: BackupRecord) -> BackupItem {
    BackupItem {
        node: record.node_name,
        backup: record.backup,
        path: record.path,
        size: record.size,
        sha256: record.sha256,
        made: record.made,
        verified: record.verified,
        run: record.run,
        listed_in: record.listed_in,
        copy: record.copy.map(|copy| CopyItem {
            size: copy.size,
            sha256: copy.sha256,
            stored: copy.stored,
            gone: copy.gone,
        }),
    }
}

#[cfg(test)]
mod tests {
    use fleet_types::digest::Digest;
    use fleet_types::id::RunId;
    use fleet_types::label::Labels;
    use fleet_types::time::Timestamp;

    use super::*;
    use crate::fleet::node_cache::Known;
    use crate::repo::nodes::{NodeRecord, NodeState};
    use crate::repo::reader::BatchExt as _;
    use crate::testing::TestContext;

    async fn with_archives() -> TestContext {
        let test = TestContext::new().await;
        for n in 1..=4u128 {
            let id = NodeId::from_uuid(uuid::Uuid::from_u128(n));
            let name: fleet_types::id::Name = format!("fw-{n}").parse().unwrap();
            let site = if n % 2 == 0 { "ams2" } else { "fra1" };
            let labels = Labels::new([("site".to_owned(), site.to_owned())]).unwrap();
            let node = NodeRecord::pending(id, name.clone(), labels, test.context.storage.clock.now());
            test.context.memory.node_cache.put(Known::new(node.with_state(NodeState::Active)));
            let mut batch = test.context.storage.audited.batch();
            for made in 1..=3 {
                let record = BackupRecord {
                    node: id,
                    node_name: name.clone(),
                    backup: "config".to_owned(),
                    path: format!("/b/{n}-{made}"),
                    size: 1,
                    sha256: Digest::of(b"x"),
                    made: Timestamp::clamped(made),
                    verified: true,
                    run: RunId::from_number(1),
                    listed_in: None,
                    copy: None,
                };
                batch = batch.put_record(backups::key(id, made, &record.sha256).unwrap(), &record).unwrap();
            }
            test.context.storage.audited.commit(batch, vec![]).await.unwrap();
        }
        test
    }

    async fn paths(test: &TestContext, selector: &str, limit: usize) -> Vec<String> {
        let (mut paths, mut after) = (Vec::new(), String::new());
        loop {
            let page =
                list(&test.context.storage, &test.context.memory, selector, &after, limit).await.unwrap();
            assert!(page.items.len() <= limit);
            paths.extend(page.items.into_iter().map(|item| item.path));
            match page.next {
                Some(next) => after = next,
                None => return paths,
            }
        }
    }

    #[tokio::test]
    async fn pages_of_any_size_hold_the_archives_of_the_chosen_nodes() {
        let test = with_archives().await;
        let even = ["/b/4-3", "/b/4-2", "/b/4-1", "/b/2-3", "/b/2-2", "/b/2-1"];
        for limit in [1, 2, 3, 4, 100] {
            assert_eq!(paths(&test, "site=ams2", limit).await, even, "pages of {limit}");
            assert_eq!(paths(&test, "name=fw-3", limit).await, ["/b/3-3", "/b/3-2", "/b/3-1"]);
            assert_eq!(paths(&test, "", limit).await.len(), 12);
            assert_eq!(paths(&test, "site=nowhere", limit).await, [""; 0]);
        }
        assert_eq!(
            list(&test.context.storage, &test.context.memory, "name=fw-9", "", 10)
                .await
                .unwrap_err()
                .detail
                .code,
            "not-found"
        );
    }
}
