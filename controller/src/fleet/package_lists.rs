//! Which node has which list of packages, and when it said so last; how many name each list.
//!
//! Filled from the store at start. Changes of records and lists take turns here, so that no list goes that another node
//! is about to name: what is counted is true while a turn lasts. Nothing here is durable.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleet_types::digest::Digest;
use fleet_types::id::NodeId;
use fleet_types::time::Timestamp;
use tokio::time::Instant;

/// New lists of one node within [`WINDOW`]: a node that is upgraded by hand changes a few times.
const MOST_CHANGES: u32 = 30;
const WINDOW: Duration = Duration::from_hours(1);

/// See the module; a hundred bytes a node.
#[derive(Default)]
pub struct PackageLists {
    nodes: Mutex<HashMap<NodeId, Known>>,
    /// Whose turn it is to change records and lists.
    pub turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    list: Option<Digest>,
    heard: Option<Timestamp>,
    /// When the window of its changes began, and how many it had.
    changes: Option<(Instant, u32)>,
}

impl PackageLists {
    fn nodes(&self) -> MutexGuard<'_, HashMap<NodeId, Known>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node's record as it is stored, and when the node said last that it is so.
    pub fn set(&self, node: NodeId, list: Digest, heard: Timestamp) {
        let mut nodes = self.nodes();
        let known = nodes.entry(node).or_default();
        (known.list, known.heard) = (Some(list), Some(heard));
    }

    /// The node is gone; the list that it had.
    pub fn forget(&self, node: NodeId) -> Option<Digest> {
        self.nodes().remove(&node)?.list
    }

    /// When the node said last what it has.
    pub fn heard(&self, node: NodeId) -> Option<Timestamp> {
        self.nodes().get(&node)?.heard
    }

    /// Does any node have this list?
    pub fn is_named(&self, list: &Digest) -> bool {
        self.nodes().values().any(|known| known.list.as_ref() == Some(list))
    }

    /// Counts a change of a node; false when it has had too many.
    pub fn may_change(&self, node: NodeId, now: Instant) -> bool {
        let mut nodes = self.nodes();
        let changes = &mut nodes.entry(node).or_default().changes;
        let (began, count) = changes.filter(|(began, _)| now < *began + WINDOW).unwrap_or((now, 0));
        *changes = Some((began, count + 1));
        count < MOST_CHANGES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_named_as_long_as_one_node_has_it_and_changes_have_a_limit() {
        let lists = PackageLists::default();
        let node = |n: u128| NodeId::from_uuid(uuid::Uuid::from_u128(n));
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let at = Timestamp::clamped(5);
        lists.set(node(1), a, at);
        lists.set(node(2), a, at);
        lists.set(node(1), b, at);
        assert!(lists.is_named(&a) && lists.is_named(&b));
        assert_eq!(lists.forget(node(2)), Some(a));
        assert!(!lists.is_named(&a) && lists.forget(node(2)).is_none());
        let now = Instant::now();
        let taken = (0..100).filter(|_| lists.may_change(node(1), now)).count();
        assert_eq!(taken, MOST_CHANGES as usize);
        assert!(lists.may_change(node(1), now + WINDOW) && lists.may_change(node(3), now));
        assert_eq!(lists.heard(node(1)), Some(at), "a count changes nothing else");
    }
}
