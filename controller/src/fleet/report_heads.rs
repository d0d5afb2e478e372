//! The newest stored report of each node, so that the next one of its chain is checked without reading that one.
//!
//! A cache and nothing else: what is noted here was committed, what is not is read from the store, and that a report's
//! number is free is a precondition of its commit in any case (docs/adr/0010).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleet_types::digest::Digest;
use fleet_types::id::NodeId;

/// As many as there are nodes that have reported since the start: 70 bytes each.
#[derive(Default)]
pub struct ReportHeads(Mutex<HashMap<NodeId, (u64, Digest)>>);

impl ReportHeads {
    fn heads(&self) -> MutexGuard<'_, HashMap<NodeId, (u64, Digest)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number and digest of the newest report, if it is known here.
    pub fn of(&self, node: NodeId) -> Option<(u64, Digest)> {
        self.heads().get(&node).copied()
    }

    /// A report was stored; an older one changes nothing.
    pub fn stored(&self, node: NodeId, sequence: u64, digest: Digest) {
        let mut heads = self.heads();
        let head = heads.entry(node).or_insert((sequence, digest));
        if sequence > head.0 {
            *head = (sequence, digest);
        }
    }

    /// The store said otherwise: it is asked the next time.
    pub fn forget(&self, node: NodeId) {
        self.heads().remove(&node);
    }
}
