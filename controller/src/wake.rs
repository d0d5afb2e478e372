//! A notifier without a message, and the set of what changed.
//!
//! Services note which (run, node) changed and ring; the runner takes the coalesced set and looks everything
//! up in the store. A lost or repeated ring is harmless: at start, on conflict and after an unknown outcome
//! the runner reads everything. Nobody may put data into a ring.

use std::collections::BTreeSet;
use std::sync::Mutex;

use fleet_types::id::{NodeId, RunId};
use tokio::sync::Notify;

/// What the runner should look at.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Runs whose record is new or changed.
    pub runs: BTreeSet<RunId>,
    /// Jobs whose record or live state changed.
    pub jobs: BTreeSet<(RunId, NodeId)>,
    /// Nodes that came or went.
    pub nodes: BTreeSet<NodeId>,
}

impl Changes {
    /// Nothing to look at?
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.jobs.is_empty() && self.nodes.is_empty()
    }
}

/// The notifier. Its memory is bounded by the number of open jobs and nodes, since it keeps sets.
#[derive(Debug, Default)]
pub struct ChangeNotifier {
    changes: Mutex<Changes>,
    notify: Notify,
}

impl ChangeNotifier {
    fn note(&self, note: impl FnOnce(&mut Changes)) {
        // The lock is held for one insert; a panic in between cannot leave the sets inconsistent.
        note(&mut self.changes.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.notify.notify_one();
    }

    /// A run was made or changed.
    pub fn run_changed(&self, run: RunId) {
        self.note(|changes| {
            changes.runs.insert(run);
        });
    }

    /// A job's record or live state changed.
    pub fn job_changed(&self, run: RunId, node: NodeId) {
        self.note(|changes| {
            changes.jobs.insert((run, node));
        });
    }

    /// A node came or went.
    pub fn node_changed(&self, node: NodeId) {
        self.note(|changes| {
            changes.nodes.insert(node);
        });
    }

    /// Waits for the next ring; returns at once when one is pending.
    pub async fn rung(&self) {
        self.notify.notified().await;
    }

    /// Takes what has changed since the last call.
    pub fn take(&self) -> Changes {
        std::mem::take(&mut self.changes.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rings_coalesce_and_are_not_lost() {
        let notifier = ChangeNotifier::default();
        let run = RunId::from_number(1);
        notifier.run_changed(run);
        notifier.run_changed(run);
        notifier.rung().await;
        let changes = notifier.take();
        assert_eq!(changes.runs.len(), 1);
        assert!(notifier.take().is_empty());
    }
}
