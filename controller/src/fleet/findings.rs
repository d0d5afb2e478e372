//! The advisories that are known, and which of them concern which node: what views read, and what is to be matched anew.
//!
//! Filled by `service/findings.rs`, which decides; nothing here is durable. Nodes with the same findings share their texts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleet_advisories::advisory::Cve;
use fleet_advisories::clock::Start;
use fleet_advisories::cvss::Score;
use fleet_advisories::import::AdvisorySet;
use fleet_types::id::NodeId;
use fleet_types::time::Timestamp;
use fleet_types::view::{Deadlines, FixState};
use tokio::sync::Notify;

/// What is known of an advisory, as far as findings need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Its id.
    pub id: String,
    /// Its CVEs.
    pub cves: Vec<Cve>,
    /// One line.
    pub summary: String,
    /// The score that counts, whose it is, and its vector.
    pub score: Option<(Score, String, String)>,
    /// Whether one of its CVEs is known to be exploited.
    pub exploited: bool,
    /// When it was published.
    pub published: Option<Timestamp>,
}

/// A finding on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The advisory.
    pub about: Arc<About>,
    /// The package by which it stands worst.
    pub package: String,
    /// Its version.
    pub version: String,
    /// How it stands, in a word.
    pub is: FixState,
    /// The same as a sentence.
    pub stands: String,
    /// Why it matched.
    pub why: String,
    /// The instants of its clock.
    pub start: Start,
}

/// What was found on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFindings {
    /// By the advisory's id.
    pub found: Vec<Found>,
    /// Why nothing, or not all, is known; empty where it is.
    pub unknown: Vec<String>,
}

/// See the module.
#[derive(Default)]
pub struct Findings {
    inner: Mutex<Inner>,
    /// Rings when there is something to match.
    pub news: Notify,
}

#[derive(Default)]
struct Inner {
    set: Arc<AdvisorySet>,
    /// Sources of which the file cannot be read, with the reason.
    damaged: BTreeMap<String, String>,
    nodes: BTreeMap<NodeId, Arc<NodeFindings>>,
    all_due: bool,
    due: BTreeSet<NodeId>,
    deadlines: Option<Deadlines>,
}

/// What is to be matched.
pub struct Due {
    /// All nodes.
    pub all: bool,
    /// Else these.
    pub nodes: BTreeSet<NodeId>,
    /// Against these.
    pub set: Arc<AdvisorySet>,
}

impl Findings {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other advisories are known: all nodes are due.
    pub fn set_advisories(&self, set: Arc<AdvisorySet>, damaged: BTreeMap<String, String>) {
        let mut inner = self.inner();
        (inner.set, inner.damaged, inner.all_due) = (set, damaged, true);
        drop(inner);
        self.news.notify_one();
    }

    /// What is known.
    pub fn advisories(&self) -> (Arc<AdvisorySet>, BTreeMap<String, String>) {
        let inner = self.inner();
        (Arc::clone(&inner.set), inner.damaged.clone())
    }

    /// A node has other packages than before.
    pub fn node_changed(&self, node: NodeId) {
        self.inner().due.insert(node);
        self.news.notify_one();
    }

    /// The node is gone.
    pub fn forget(&self, node: NodeId) {
        let mut inner = self.inner();
        inner.nodes.remove(&node);
        inner.due.remove(&node);
    }

    /// What is to be matched; it counts as done with this.
    pub fn take_due(&self) -> Option<Due> {
        let mut inner = self.inner();
        let (all, nodes) = (std::mem::take(&mut inner.all_due), std::mem::take(&mut inner.due));
        (all || !nodes.is_empty()).then(|| Due { all, nodes, set: Arc::clone(&inner.set) })
    }

    /// What could not be matched is due once more. Rings nobody: whatever was in the way is still there.
    pub fn due_again(&self, due: Due) {
        let mut inner = self.inner();
        inner.all_due |= due.all;
        inner.due.extend(due.nodes);
    }

    /// What was found on a node.
    pub fn put(&self, node: NodeId, findings: NodeFindings) {
        self.inner().nodes.insert(node, Arc::new(findings));
    }

    /// All nodes that have said what packages they have, with what was found on them.
    pub fn all(&self) -> BTreeMap<NodeId, Arc<NodeFindings>> {
        self.inner().nodes.clone()
    }

    /// How many findings stand how, as counted last.
    pub fn deadlines(&self) -> Option<Deadlines> {
        self.inner().deadlines.clone()
    }

    /// Keeps a count.
    pub fn set_deadlines(&self, deadlines: Option<Deadlines>) {
        self.inner().deadlines = deadlines;
    }
}
