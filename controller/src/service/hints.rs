//! What may have been meant by a name, label or site that no node has. Reads memory alone; asked only when
//! something was not found.

use std::collections::BTreeSet;

use fleet_types::action::nearest;
use fleet_types::label::Selector;

use crate::context::Memory;
use crate::fleet::node_cache::Known;

/// Values that are listed where none is near.
const LISTED: usize = 8;

fn nodes(memory: &Memory) -> Vec<Known> {
    memory.node_cache.page(&Selector::all(), None, usize::MAX)
}

/// The nearest node names, a line a mistyped name that has one.
pub fn of_names(memory: &Memory, unknown: &[String]) -> Vec<String> {
    let nodes = nodes(memory);
    let meant = |name: &String| nearest(name, nodes.iter().map(|known| known.record.name.as_str()));
    unknown.iter().filter_map(meant).map(|meant| format!("did you mean \"{meant}\"?")).collect()
}

/// The terms of a selector that nothing can match: a label that no node has, or a value that none has of it.
pub fn of_selector(memory: &Memory, selector: &Selector) -> Vec<String> {
    let nodes = nodes(memory);
    let labels = || nodes.iter().flat_map(|known| known.record.labels.iter());
    let keys: BTreeSet<&str> = labels().map(|(key, _)| key).chain(["name"]).collect();
    let mut hints = Vec::new();
    for (key, value) in selector.asked() {
        if !keys.contains(key) {
            let meant = nearest(key, keys.iter().copied());
            let meant = meant.map(|meant| format!("; did you mean \"{meant}\"?")).unwrap_or_default();
            hints.push(format!("no node has a label \"{key}\"{meant}"));
            continue;
        }
        let Some(value) = value else { continue };
        let values: BTreeSet<&str> = if key == "name" {
            nodes.iter().map(|known| known.record.name.as_str()).collect()
        } else {
            labels().filter(|(of, _)| *of == key).map(|(_, value)| value).collect()
        };
        if values.contains(value) {
            continue;
        }
        let known = || values.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
        hints.push(match nearest(value, values.iter().copied()) {
            Some(meant) => format!("no node has {key}={value}; did you mean {key}={meant}?"),
            None if values.len() <= LISTED => {
                format!("no node has {key}={value}; {key} is one of {}", known())
            }
            None => format!("no node has {key}={value}; {key} is one of {}, …", known()),
        });
    }
    hints
}

#[cfg(test)]
mod tests {
    use fleet_types::id::NodeId;
    use fleet_types::label::Labels;

    use super::*;
    use crate::repo::nodes::{NodeRecord, NodeState};
    use crate::testing::TestContext;

    #[tokio::test]
    async fn slips_in_names_labels_and_sites_are_told() {
        let test = TestContext::new().await;
        for (n, ring) in [(1u128, "canary"), (2, "rest")] {
            let labels = [("site", "fra1"), ("ring", ring)];
            let labels = Labels::new(labels.map(|(k, v)| (k.to_owned(), v.to_owned()))).unwrap();
            let (id, name) = (NodeId::from_uuid(uuid::Uuid::from_u128(n)), format!("fw-fra1-{n}"));
            let node =
                NodeRecord::pending(id, name.parse().unwrap(), labels, test.context.storage.clock.now());
            test.context.memory.node_cache.put(Known::new(node.with_state(NodeState::Active)));
        }
        let of = |text: &str| of_selector(&test.context.memory, &text.parse().unwrap());
        assert_eq!(of("rnig=rest"), ["no node has a label \"rnig\"; did you mean \"ring\"?"]);
        assert_eq!(of("site=fra"), ["no node has site=fra; did you mean site=fra1?"]);
        assert_eq!(of("ring=zzzzzz"), ["no node has ring=zzzzzz; ring is one of canary, rest"]);
        assert_eq!(of("site=fra1,ring=canary,name=fw-fra1-2"), [""; 0], "each of them is known");
        let names = ["fw-fra-1".to_owned(), "zzzzzz".to_owned()];
        assert_eq!(of_names(&test.context.memory, &names), ["did you mean \"fw-fra1-1\"?"]);
    }
}
