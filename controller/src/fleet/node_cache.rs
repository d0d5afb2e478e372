//! Every node in memory: names, labels, presence, newest health, and counts a site that are kept up as
//! things change, so that `fleetctl status` costs the same for six nodes and for a hundred thousand.
//!
//! Filled from the store at start; services tell it what they have committed. It never writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use fleet_types::id::{Name, NodeId};
use fleet_types::label::Selector;
use fleet_types::time::Timestamp;
use fleet_types::view::{Health, NodeItem, Presence, SiteStatus};

use crate::repo::nodes::{NodeRecord, NodeState};

/// What is known of one node.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its record.
    pub record: Arc<NodeRecord>,
    /// How its link is.
    pub presence: Presence,
    /// Last sign of life.
    pub last_seen: Option<Timestamp>,
    /// Version of its agent.
    pub agent_version: String,
    /// Mode of its local policy.
    pub policy_mode: String,
    /// Actions it can carry out; empty when it never connected.
    pub actions: Arc<[String]>,
    /// Newest health.
    pub health: Option<Health>,
    /// What keeps its agent from starting changes.
    pub safe_mode: String,
    /// Newest journal frame that the node told of; none before its first connect to this process.
    pub journal_sequence: Option<u64>,
    /// The end of freshness that has passed; the health is old while it is its own.
    aged: Option<Timestamp>,
}

fn presence_without_link(record: &NodeRecord) -> Presence {
    if record.state == NodeState::Pending { Presence::NotEnrolled } else { Presence::Offline }
}

impl Known {
    /// A node of which only the record is known.
    pub fn new(record: NodeRecord) -> Self {
        Self {
            presence: presence_without_link(&record),
            record: Arc::new(record),
            last_seen: None,
            agent_version: String::new(),
            policy_mode: String::new(),
            actions: Arc::from([]),
            health: None,
            safe_mode: String::new(),
            journal_sequence: None,
            aged: None,
        }
    }

    /// May it be given work?
    pub fn takes_work(&self) -> bool {
        self.record.state == NodeState::Active
    }

    /// When the health becomes too old; none when it has, or never does.
    fn ages_at(&self) -> Option<Timestamp> {
        let end = self.health.as_ref()?.fresh_until?;
        (self.aged != Some(end)).then_some(end)
    }

    /// Has what was measured become too old to be believed?
    fn is_old(&self) -> bool {
        self.aged.is_some() && self.health.as_ref().is_some_and(|health| health.fresh_until == self.aged)
    }

    /// As shown in lists.
    pub fn item(&self) -> NodeItem {
        NodeItem {
            id: self.record.id,
            name: self.record.name.clone(),
            labels: self.record.labels.clone(),
            presence: self.presence,
            last_seen: self.last_seen,
            agent_version: self.agent_version.clone(),
            policy_mode: self.policy_mode.clone(),
            health: self.health.clone(),
            hold: self.record.hold().cloned(),
            safe_mode: self.safe_mode.clone(),
        }
    }

    fn count(&self, site: &mut SiteStatus, by: i64) {
        let add = |field: &mut u32| *field = u32::try_from(i64::from(*field) + by).unwrap_or(0);
        add(&mut site.nodes);
        if self.record.hold().is_some() {
            return add(&mut site.held);
        }
        match self.presence {
            Presence::Reconnecting => add(&mut site.unknown),
            Presence::Stale => add(&mut site.stale),
            Presence::Offline => add(&mut site.offline),
            Presence::NotEnrolled => add(&mut site.not_enrolled),
            Presence::Online => match &self.health {
                None => add(&mut site.unknown),
                Some(_) if self.is_old() => add(&mut site.unknown),
                Some(health) if health.problems == 0 && health.unknown > 0 => add(&mut site.unknown),
                Some(health) if health.problems > 0 => add(&mut site.warn),
                Some(_) => add(&mut site.ok),
            },
        }
    }

    /// Does it need a person?
    fn needs_attention(&self) -> bool {
        matches!(self.presence, Presence::Stale | Presence::Offline)
            || self.record.hold().is_some()
            || !self.safe_mode.is_empty()
            || self.health.as_ref().is_some_and(|health| health.problems > 0)
    }
}

#[derive(Default)]
struct Inner {
    nodes: HashMap<NodeId, Known>,
    names: BTreeMap<Name, NodeId>,
    sites: BTreeMap<String, SiteStatus>,
    /// Names of the nodes that need a person; a subset, so that status need not look at all.
    attention: BTreeMap<Name, NodeId>,
    /// When healths become too old, so that counts are corrected without looking at all nodes.
    ages: BTreeSet<(Timestamp, NodeId)>,
}

impl Inner {
    fn put(&mut self, known: Known) {
        let id = known.record.id;
        self.remove(id);
        let site = known.record.labels.site().to_owned();
        let entry =
            self.sites.entry(site.clone()).or_insert_with(|| SiteStatus { site, ..SiteStatus::default() });
        known.count(entry, 1);
        if known.needs_attention() {
            self.attention.insert(known.record.name.clone(), id);
        }
        self.ages.extend(known.ages_at().map(|at| (at, id)));
        self.names.insert(known.record.name.clone(), id);
        self.nodes.insert(id, known);
    }

    fn remove(&mut self, id: NodeId) {
        let Some(old) = self.nodes.remove(&id) else { return };
        self.names.remove(&old.record.name);
        self.attention.remove(&old.record.name);
        if let Some(at) = old.ages_at() {
            self.ages.remove(&(at, id));
        }
        let site = old.record.labels.site();
        if let Some(entry) = self.sites.get_mut(site) {
            old.count(entry, -1);
            if entry.nodes == 0 {
                self.sites.remove(site);
            }
        }
    }
}

/// All nodes.
#[derive(Default)]
pub struct NodeCache {
    inner: RwLock<Inner>,
}

impl NodeCache {
    fn read<T>(&self, read: impl FnOnce(&Inner) -> T) -> T {
        read(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a node, or replaces what is known of it.
    pub fn put(&self, known: Known) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).put(known);
    }

    /// Notes a record that was committed, unless a newer one is known: what is told here may be older than what
    /// another call has committed and told in between. Above all, a node that was held stays so.
    pub fn advance(&self, record: NodeRecord) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let known = match inner.nodes.get(&record.id) {
            None => Known::new(record),
            Some(known) if known.record.revision > record.revision => return,
            Some(known) => {
                let mut known = known.clone();
                if known.presence == Presence::NotEnrolled {
                    known.presence = presence_without_link(&record);
                }
                known.record = Arc::new(record);
                known
            }
        };
        inner.put(known);
    }

    /// Forgets a node that was removed.
    pub fn remove(&self, id: NodeId) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Notes that a node told of a journal frame. Called with every word of it, so the counts are left alone.
    pub fn raise_sequence(&self, id: NodeId, sequence: u64) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = inner.nodes.get_mut(&id) {
            known.journal_sequence = known.journal_sequence.max(Some(sequence));
        }
    }

    /// Ids of the nodes that `choose` picks; looks at all of them.
    pub fn ids(&self, choose: impl Fn(&Known) -> bool) -> Vec<NodeId> {
        self.read(|inner| {
            inner.nodes.values().filter(|known| choose(known)).map(|known| known.record.id).collect()
        })
    }

    /// Changes what is known of a node; nothing happens when it is unknown.
    pub fn update(&self, id: NodeId, change: impl FnOnce(&mut Known)) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut known) = inner.nodes.get(&id).cloned() {
            change(&mut known);
            inner.put(known);
        }
    }

    /// Notes a sign of life, without touching the counts.
    pub fn touch(&self, id: NodeId, now: Timestamp) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = inner.nodes.get_mut(&id) {
            known.last_seen = Some(now);
        }
    }

    /// One node.
    pub fn get(&self, id: NodeId) -> Option<Known> {
        self.read(|inner| inner.nodes.get(&id).cloned())
    }

    /// A node's record alone: asked on every call.
    pub fn record(&self, id: NodeId) -> Option<Arc<NodeRecord>> {
        self.read(|inner| inner.nodes.get(&id).map(|known| Arc::clone(&known.record)))
    }

    /// A node by name.
    pub fn by_name(&self, name: &str) -> Option<Known> {
        let name: Name = name.parse().ok()?;
        self.read(|inner| inner.names.get(&name).and_then(|id| inner.nodes.get(id)).cloned())
    }

    /// A page of nodes in order of their names.
    pub fn page(&self, selector: &Selector, after: Option<&Name>, limit: usize) -> Vec<Known> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.read(|inner| {
            inner
                .names
                .range::<Name, _>((from, Bound::Unbounded))
                .filter_map(|(_, id)| inner.nodes.get(id))
                .filter(|known| selector.matches(&known.record.name, &known.record.labels))
                .take(limit)
                .cloned()
                .collect()
        })
    }

    /// Lets healths grow old that are by now. Called before counts are read.
    fn age(&self, now: Timestamp) {
        let due = |inner: &Inner| inner.ages.first().is_some_and(|(at, _)| *at <= now);
        if !self.read(due) {
            return;
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        while due(&inner)
            && let Some((at, id)) = inner.ages.pop_first()
        {
            if let Some(mut known) = inner.nodes.get(&id).cloned() {
                known.aged = Some(at);
                inner.put(known);
            }
        }
    }

    /// Counts a site, worst first.
    pub fn sites(&self, now: Timestamp) -> Vec<SiteStatus> {
        self.age(now);
        let mut sites: Vec<_> = self.read(|inner| inner.sites.values().cloned().collect());
        sites.sort_by_key(|site| {
            (std::cmp::Reverse((site.offline + site.stale + site.held, site.warn)), site.site.clone())
        });
        sites
    }

    /// Nodes that need a person, by name, at most `limit`.
    pub fn attention(&self, limit: usize) -> Vec<Known> {
        self.read(|inner| {
            inner.attention.values().filter_map(|id| inner.nodes.get(id)).take(limit).cloned().collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use fleet_types::label::Labels;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::clamped(1_790_000_000_000 + seconds * 1000)
    }

    fn health(problems: u32, unknown: u32, fresh_until: Option<Timestamp>) -> Health {
        Health { score: 90, problems, unknown, worst: String::new(), at: at(0), fresh_until }
    }

    fn known(n: u128, site: &str) -> Known {
        let labels = Labels::new([("site".to_owned(), site.to_owned())]).unwrap();
        let id = NodeId::from_uuid(uuid::Uuid::from_u128(n));
        let record =
            NodeRecord::pending(id, format!("fw-{n}").parse().unwrap(), labels, Timestamp::clamped(0));
        Known::new(record.with_state(NodeState::Active))
    }

    /// The counts worked out anew from all nodes: what the kept ones must equal.
    fn recount(node_cache: &NodeCache) -> Vec<SiteStatus> {
        let fresh = NodeCache::default();
        for node in node_cache.page(&Selector::all(), None, usize::MAX) {
            fresh.put(node);
        }
        fresh.sites(at(0))
    }

    #[test]
    fn counts_follow_every_change() {
        let node_cache = NodeCache::default();
        for n in 0..6 {
            node_cache.put(known(n, if n < 4 { "fra1" } else { "ams2" }));
        }
        let id = |n| NodeId::from_uuid(uuid::Uuid::from_u128(n));
        for n in 0..5 {
            node_cache.update(id(n), |k| k.presence = Presence::Online);
            assert_eq!(node_cache.sites(at(0)), recount(&node_cache));
        }
        node_cache.update(id(0), |k| k.health = Some(health(0, 0, None)));
        node_cache.update(id(1), |k| k.health = Some(health(2, 0, None)));
        node_cache.update(id(2), |k| k.presence = Presence::Stale);
        node_cache.put(known(3, "ams2"));
        assert_eq!(node_cache.sites(at(0)), recount(&node_cache));
        let fra = node_cache.sites(at(0)).into_iter().find(|s| s.site == "fra1").unwrap();
        assert_eq!((fra.nodes, fra.ok, fra.warn, fra.stale), (3, 1, 1, 1));
        assert_eq!(node_cache.attention(9).len(), 4, "fw-1 warns, fw-2 is stale, fw-3 and fw-5 are offline");
    }

    #[test]
    fn what_was_measured_too_long_ago_or_not_seen_is_unknown() {
        let node_cache = NodeCache::default();
        let id = |n| NodeId::from_uuid(uuid::Uuid::from_u128(n));
        for (n, found) in [
            (0, health(0, 0, Some(at(180)))),
            (1, health(1, 0, Some(at(300)))),
            (2, health(0, 0, Some(at(900)))),
            (3, health(0, 1, Some(at(900)))),
        ] {
            node_cache.put(known(n, "fra1"));
            node_cache.update(id(n), |k| (k.presence, k.health) = (Presence::Online, Some(found)));
        }
        let counts = |seconds| {
            let site = &node_cache.sites(at(seconds))[0];
            (site.ok, site.warn, site.unknown)
        };
        assert_eq!(counts(179), (2, 1, 1));
        assert_eq!(counts(180), (1, 1, 2));
        assert_eq!(counts(300), (1, 0, 3));
        assert_eq!(node_cache.attention(9).len(), 1, "a problem that was seen still needs a person");
        // Signs of life do not make it younger; a new look does.
        node_cache.update(id(0), |k| k.presence = Presence::Stale);
        node_cache.update(id(0), |k| k.presence = Presence::Online);
        assert_eq!(counts(301), (1, 0, 3));
        node_cache.update(id(0), |k| k.health = Some(health(0, 0, Some(at(500)))));
        assert_eq!(counts(301), (2, 0, 2));
        assert_eq!(counts(500), (1, 0, 3));
    }
}
