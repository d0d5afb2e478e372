//! The open runs as the runner has them: it keeps them up to date, and what operators are shown is read from the same
//! ones, so that a reason shown is the reason acted on, and a look costs as much as what changed since the last one.
//!
//! In memory only: a run that the runner has not read yet is not here. Views must never write.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use fleet_rollout::{Applied, BlockReason, Event, EventError, Moment, Mono, Place, Rollout, Scope};
use fleet_store::WriteId;
use fleet_types::id::{NodeId, RunId};
use fleet_types::job::JobState;
use tokio::sync::watch;

use crate::repo::jobs::JobRecord;
use crate::repo::reader::Stored;
use crate::repo::runs::RunRecord;

/// How far a run is, for those who wait for news of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Newest {
    /// Number of the newest change.
    pub number: u64,
    /// Has the run ended? Nothing comes any more.
    pub ended: bool,
}

/// One run: its records with their versions, the engine's state, and which of its jobs look otherwise since when.
pub struct RunModel {
    /// Its record.
    pub run: Stored<RunRecord>,
    /// Its jobs by node; the order is that of the request's node list.
    jobs: BTreeMap<NodeId, Stored<JobRecord>>,
    rollout: Rollout,
    number: u64,
    changes: BTreeMap<u64, NodeId>,
    changed_at: HashMap<NodeId, u64>,
    /// What keeps every queued job from going, when they were numbered last.
    general: Vec<BlockReason>,
    /// The same of each ring.
    rings: Vec<Vec<BlockReason>>,
    /// Sites all of whose places were taken then, and those of which a place was taken or became free since.
    full_sites: BTreeSet<String>,
    moved_sites: BTreeSet<String>,
}

impl RunModel {
    /// Around what was read. Read anew, `before` says which jobs look the same as they did.
    pub fn new(
        run: Stored<RunRecord>,
        jobs: BTreeMap<NodeId, Stored<JobRecord>>,
        rollout: Rollout,
        before: Option<&Self>,
    ) -> Self {
        let mut model = Self {
            run,
            jobs,
            rollout,
            number: before.map_or(0, |before| before.number),
            changes: before.map(|before| before.changes.clone()).unwrap_or_default(),
            changed_at: before.map(|before| before.changed_at.clone()).unwrap_or_default(),
            general: before.map(|before| before.general.clone()).unwrap_or_default(),
            rings: before.map(|before| before.rings.clone()).unwrap_or_default(),
            full_sites: before.map(|before| before.full_sites.clone()).unwrap_or_default(),
            moved_sites: BTreeSet::new(),
        };
        let same = |node: &NodeId, job: &Stored<JobRecord>| {
            before.and_then(|before| before.jobs.get(node)).is_some_and(|was| was.write_id == job.write_id)
        };
        let limited = model.rollout.plan().scopes().filter_map(|scope| match scope {
            Scope::Site(site) => Some(site),
            _ => None,
        });
        model.moved_sites = limited.collect();
        let changed: Vec<NodeId> =
            model.jobs.iter().filter(|(node, job)| !same(node, job)).map(|(node, _)| *node).collect();
        model.touch(changed);
        model
    }

    /// The engine, for questions.
    pub const fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    /// One of its jobs.
    pub fn job(&self, node: NodeId) -> Option<&Stored<JobRecord>> {
        self.jobs.get(&node)
    }

    /// Its nodes, in the order of the request's list.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.jobs.keys().copied()
    }

    /// Its jobs that look otherwise than when change `after` was the newest, as nodes.
    pub fn changed_since(&self, after: u64) -> impl Iterator<Item = NodeId> {
        self.changes.range(after + 1..).map(|(_, node)| *node)
    }

    /// Number of the newest change.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Replaces what is known of a job after it was written.
    pub fn put_job(&mut self, record: JobRecord, write_id: WriteId) {
        let node = record.node;
        self.jobs.insert(node, Stored { record, write_id });
        self.touch([node]);
    }

    /// Tells the engine, and notes whose job looks otherwise with it.
    pub fn apply(&mut self, at: Moment, event: &Event) -> Result<Applied, EventError> {
        let applied = self.rollout.apply(at, event)?;
        let plan = self.rollout.plan();
        let (node, pair) = match event {
            Event::Job { node, .. } => (Some(*node), plan.pair_of(*node)),
            Event::Looked { node, .. } => (Some(*node), None),
            Event::Held { place: Place { scope: Scope::Pair(pair), .. }, .. } => (None, Some(pair.as_str())),
            Event::Held { place: Place { scope: Scope::Site(site), .. }, .. } => {
                self.moved_sites.insert(site.clone());
                (None, None)
            }
            Event::Held { place: Place { scope: Scope::Fleet, .. }, .. } | Event::Ring { .. } => (None, None),
        };
        let mates = pair.map(|pair| plan.nodes_of_pair(pair).to_vec());
        self.touch(node.into_iter().chain(mates.unwrap_or_default()));
        Ok(applied)
    }

    /// Nodes are listened to from this moment on.
    pub fn listening_from(&mut self, now: Mono) {
        self.rollout.listening_from(now);
    }

    fn touch(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        for node in nodes {
            self.number += 1;
            if let Some(before) = self.changed_at.insert(node, self.number) {
                self.changes.remove(&before);
            }
            self.changes.insert(self.number, node);
        }
    }

    /// What holds for every queued job, or for those of a site, came or went: all of them look otherwise. That
    /// another node has the place of a full site alone is no news to those who wait there: it changes with every job.
    fn note_general(&mut self, now: Moment) {
        for site in std::mem::take(&mut self.moved_sites) {
            let is_full = self.rollout.is_site_full(&site);
            let was_full =
                if is_full { !self.full_sites.insert(site.clone()) } else { self.full_sites.remove(&site) };
            if is_full != was_full {
                let nodes = self.rollout.plan().nodes_of_site(&site).to_vec();
                let is_queued =
                    |node: &NodeId| self.job(*node).is_some_and(|job| job.record.state == JobState::Queued);
                let queued: Vec<NodeId> = nodes.into_iter().filter(is_queued).collect();
                self.touch(queued);
            }
        }
        let rings = self.rollout.ring_blocks();
        for (ring, blocks) in rings.iter().enumerate() {
            if self.rings.get(ring).map_or(&[][..], Vec::as_slice) != blocks {
                let queued: Vec<NodeId> = self.rollout.queued_of_ring(ring).collect();
                self.touch(queued);
            }
        }
        self.rings = rings;
        let general = self.rollout.general_block(now);
        if general != self.general {
            self.general = general;
            let queued: Vec<NodeId> = self.rollout.queued().collect();
            self.touch(queued);
        }
    }
}

/// One run, shared. Its locks are held for one question or one event, never over a wait; a panic in between would
/// leave at most one event half applied, and the run is read anew when its records do not agree.
pub struct OpenRun {
    model: RwLock<RunModel>,
    newest: watch::Sender<Newest>,
}

impl OpenRun {
    /// Around a model.
    pub fn new(model: RunModel) -> Self {
        Self { model: RwLock::new(model), newest: watch::Sender::default() }
    }

    /// For questions.
    pub fn read(&self) -> RwLockReadGuard<'_, RunModel> {
        self.model.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For events; the runner's alone.
    pub fn write(&self) -> RwLockWriteGuard<'_, RunModel> {
        self.model.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who wait that a pass is over; nothing when it changed nothing.
    pub fn tell(&self, now: Moment) {
        let mut model = self.write();
        model.note_general(now);
        let newest = Newest { number: model.number, ended: model.run.record.state.is_terminal() };
        drop(model);
        self.newest.send_if_modified(|told| std::mem::replace(told, newest) != newest);
    }

    /// For views that wait for news.
    pub fn follow(&self) -> watch::Receiver<Newest> {
        self.newest.subscribe()
    }
}

/// As many as there are open runs.
#[derive(Default)]
pub struct OpenRuns {
    runs: RwLock<HashMap<RunId, Arc<OpenRun>>>,
    published: watch::Sender<()>,
}

impl OpenRuns {
    /// Shows a run that was read.
    pub fn publish(&self, run: RunId, open: Arc<OpenRun>) {
        self.runs.write().unwrap_or_else(PoisonError::into_inner).insert(run, open);
        self.published.send_replace(());
    }

    /// Forgets a run that has ended: its records say how.
    pub fn forget(&self, run: RunId) {
        self.runs.write().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }

    /// A run, if it is open here.
    pub fn of(&self, run: RunId) -> Option<Arc<OpenRun>> {
        self.runs.read().unwrap_or_else(PoisonError::into_inner).get(&run).cloned()
    }

    /// For those who wait until the runner has read a run, or has read it anew.
    pub fn follow(&self) -> watch::Receiver<()> {
        self.published.subscribe()
    }
}
