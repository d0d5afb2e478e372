//! One open run in memory: its records with their versions, beside the engine's state.

use std::collections::BTreeMap;

use fleet_rollout::Rollout;
use fleet_store::WriteId;
use fleet_types::digest::Digest;
use fleet_types::id::{NodeId, RunId};
use fleet_types::merkle::Tree;
use fleet_types::request::node_leaf;

use crate::context::Context;
use crate::error::{ControllerError, Result};
use crate::rebuild;
use crate::repo::keys;
use crate::repo::reader::Stored;
use crate::repo::records::{InboxRecord, JobRecord, RunRecord};

/// A run that has not ended.
pub struct Active {
    /// Its record.
    pub run: Stored<RunRecord>,
    /// Its jobs by node; the order is that of the request's node list.
    pub jobs: BTreeMap<NodeId, Stored<JobRecord>>,
    /// The engine's state.
    pub rollout: Rollout,
    nodes: Tree,
}

impl Active {
    /// Reads a run and everything about it.
    pub async fn load(context: &Context, run: RunId) -> Result<Self> {
        let stored = context
            .repo
            .get::<RunRecord>(&keys::run(run)?)
            .await?
            .ok_or_else(|| ControllerError::not_found("run", run))?;
        let jobs: BTreeMap<NodeId, Stored<JobRecord>> = context
            .repo
            .all::<JobRecord>(&keys::jobs_of(run))
            .await?
            .into_iter()
            .map(|(_, job)| (job.record.node, job))
            .collect();
        let records: Vec<JobRecord> = jobs.values().map(|job| job.record.clone()).collect();
        let rollout = rebuild::rollout(context, &stored.record, &records)?;
        let nodes = Tree::new(jobs.keys().map(|node| node_leaf(*node)).collect());
        if nodes.root() != stored.record.nodes_root {
            return Err(ControllerError::internal(format!(
                "the jobs of run {run} are not those of its request"
            )));
        }
        Ok(Self { run: stored, jobs, rollout, nodes })
    }

    /// Replaces what is known of a job after it was written.
    pub fn put_job(&mut self, record: JobRecord, write_id: WriteId) {
        self.jobs.insert(record.node, Stored { record, write_id });
    }

    /// Path of a node in the request's list.
    pub fn node_path(&self, job: &JobRecord) -> Result<Vec<Digest>> {
        self.nodes
            .proof(job.index as usize)
            .ok_or_else(|| ControllerError::internal(format!("node {} has no place in its run", job.node)))
    }

    /// The inbox entry of a job.
    pub fn inbox(&self, job: &JobRecord, cancel: Option<String>) -> Result<InboxRecord> {
        Ok(InboxRecord {
            attempt: job.attempt,
            request: self.run.record.request,
            node_index: job.index,
            node_path: self.node_path(job)?,
            cancel,
        })
    }
}
