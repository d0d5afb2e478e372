//! One open run in memory: its records with their versions, beside the engine's state.

use std::collections::{BTreeMap, BTreeSet};

use fleet_store::WriteId;
use fleet_types::digest::Digest;
use fleet_types::id::{NodeId, RunId};
use fleet_types::merkle::Tree;
use fleet_types::request::node_leaf;

use super::pair_holds::PairHolds;
use crate::context::Context;
use crate::error::{ControllerError, Result};
use crate::fleet::open_runs::Engine;
use crate::rebuild::{self, Known};
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
    pub rollout: Engine,
    nodes: Tree,
}

impl Active {
    /// Reads a run and everything about it.
    pub async fn load(context: &Context, run: RunId, known: &Known, holds: &PairHolds) -> Result<Self> {
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
        let pairs: BTreeSet<&String> = records.iter().filter_map(|job| job.pair.as_ref()).collect();
        let held = pairs.into_iter().filter_map(|pair| Some((pair.clone(), holds.get(pair)?.clone())));
        let rollout = rebuild::rollout(context, &stored.record, &records, known, held.collect())?;
        let nodes = Tree::new(jobs.keys().map(|node| node_leaf(*node)).collect());
        if nodes.root() != stored.record.nodes_root {
            return Err(ControllerError::internal(format!(
                "the jobs of run {run} are not those of its request"
            )));
        }
        Ok(Self { run: stored, jobs, rollout: Engine::new(rollout), nodes })
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
    pub fn inbox(&self, job: &JobRecord) -> Result<InboxRecord> {
        Ok(InboxRecord {
            attempt: job.attempt,
            request: self.run.record.request,
            node_index: job.index,
            node_path: self.node_path(job)?,
        })
    }
}
