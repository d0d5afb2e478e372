//! One open run as the runner drives it.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_rollout::Holds;
use fleet_types::id::{NodeId, RunId};
use fleet_types::merkle::Tree;
use fleet_types::request::node_leaf;

use crate::context::Context;
use crate::error::{ControllerError, Result};
use crate::fleet::open_runs::{OpenRun, RunModel};
use crate::rebuild::{self, Known};
use crate::repo::jobs::{self, InboxRecord, JobRecord};
use crate::repo::reader::Stored;
use crate::repo::runs::{self, RunRecord};

/// A run that has not ended.
pub struct Active {
    /// What is known of it; shown to operators, too.
    pub open: Arc<OpenRun>,
    nodes: Tree,
}

impl Active {
    /// Reads a run and everything about it.
    pub async fn load(context: &Context, run: RunId, known: &Known, holds: &Holds) -> Result<Self> {
        let stored = context
            .storage
            .repo
            .get::<RunRecord>(&runs::key(run)?)
            .await?
            .ok_or_else(|| ControllerError::not_found("run", run))?;
        let jobs: BTreeMap<NodeId, Stored<JobRecord>> = context
            .storage
            .repo
            .all::<JobRecord>(&jobs::of_run(run))
            .await?
            .into_iter()
            .map(|(_, job)| (job.record.node, job))
            .collect();
        let rollout = rebuild::rollout(context, &stored.record, &jobs, known, holds)?;
        let nodes = Tree::new(jobs.keys().map(|node| node_leaf(*node)).collect());
        if nodes.root() != stored.record.nodes_root {
            return Err(rebuild::contradiction("its jobs are not those of its request"));
        }
        let before = known.before.as_ref().map(|open| open.read());
        let model = RunModel::new(stored, jobs, rollout, before.as_deref());
        Ok(Self { open: Arc::new(OpenRun::new(model)), nodes })
    }

    /// Its record.
    pub fn run(&self) -> Stored<RunRecord> {
        self.open.read().run.clone()
    }

    /// One of its jobs.
    pub fn job(&self, node: NodeId) -> Option<Stored<JobRecord>> {
        self.open.read().job(node).cloned()
    }

    /// The inbox entry of a job.
    pub fn inbox(&self, job: &JobRecord) -> Result<InboxRecord> {
        let node_path = self
            .nodes
            .proof(job.index as usize)
            .ok_or_else(|| ControllerError::internal(format!("node {} has no place in its run", job.node)))?;
        let authority = self.open.read().run.record.authority;
        Ok(InboxRecord {
            stage: job.stage,
            attempt: job.attempt,
            authority,
            node_index: job.index,
            node_path,
        })
    }
}
