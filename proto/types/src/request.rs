//! The operator's signed order to start something, and its binding to nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{FleetId, NodeId, RunId};
use crate::merkle;
use crate::standing_order::Tick;
use crate::time::Timestamp;

/// Schema of the requests of this release.
pub const REQUEST_SCHEMA: &str = "fleet/v1/request";
/// A plain run must end within this time (security-and-delivery §1.15).
pub const MAX_PLAIN_RUN: Duration = Duration::from_hours(24);
/// Most nodes of one request (security-and-delivery §1.24).
pub const MAX_NODES: usize = 100_000;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Carry the procedure out.
    Run,
    /// Resolve it and say what would happen; no effect.
    Plan,
}

/// A signed order. These bytes, canonical JSON, are what the operator's content key signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`REQUEST_SCHEMA`].
    pub schema: String,
    /// The fleet that it is for.
    pub fleet: FleetId,
    /// The run that it makes. Chosen by the operator's side, so one request is one run.
    pub run: RunId,
    /// What is asked for.
    pub verb: Verb,
    /// Digest of the procedure.
    pub procedure: Digest,
    /// Number of the procedure under its name, as the operator saw it; none for one made for this run alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub procedure_revision: Option<u32>,
    /// Digest of its profile.
    pub profile: Digest,
    /// Number of the profile under its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_revision: Option<u32>,
    /// The operator means these revisions, also where a node has carried out newer ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub older_revisions: bool,
    /// Parameters of the procedure.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, serde_json::Value>,
    /// The selector that chose the nodes, for people; the list counts.
    pub selector: String,
    /// The nodes.
    pub nodes: NodeList,
    /// The plans that it starts; none starts whatever each node finds to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<BoundPlan>,
    /// Digest of the rollout policy whose rings it follows; a plain run of one ring when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout_policy: Option<Digest>,
    /// At most this many nodes at once.
    pub max_parallel: u32,
    /// New starts end once so many jobs have failed, were rolled back or got lost; no limit when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<u32>,
    /// Not before this instant.
    pub not_before: Timestamp,
    /// No first start on a node after this instant.
    pub not_after: Timestamp,
    /// The tick of a standing order that it carries out. Such a request bears no signature of its own: that of the order
    /// stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tick: Option<Tick>,
    /// Why, as the operator wrote it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Most different plans of one request: each is 71 bytes of a text that every node reads. Nodes that differ more
/// than that are not one change that a person has looked at.
pub const MAX_PLANS: usize = 500;

/// What an operator saw in a plan and now starts. Each node compares its own plan with it: what the node does is what it
/// planned, and what it planned is among what was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundPlan {
    /// The run of verb `plan` that the nodes were asked with.
    pub run: RunId,
    /// Digests of the nodes' plans ([`crate::plan::NodePlan::digest`]), sorted, without repeats.
    pub digests: Vec<Digest>,
}

/// The node list of a request as a commitment: its size and Merkle root over the sorted ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeList {
    /// How many nodes.
    pub count: u32,
    /// Merkle root over [`node_leaf`] of the sorted ids.
    pub root: Digest,
}

/// The leaf of a node in a node list.
pub fn node_leaf(node: NodeId) -> Digest {
    merkle::leaf_hash(node.as_uuid().as_bytes())
}

impl NodeList {
    /// Commits to `nodes`, which must be sorted and without repeats.
    pub fn of(nodes: &[NodeId]) -> Self {
        debug_assert!(nodes.windows(2).all(|pair| pair[0] < pair[1]));
        let leaves: Vec<_> = nodes.iter().map(|n| node_leaf(*n)).collect();
        Self { count: u32::try_from(nodes.len()).unwrap_or(u32::MAX), root: merkle::root(&leaves) }
    }

    /// Is `node` number `index` of this list?
    pub fn contains(&self, node: NodeId, index: u32, path: &[Digest]) -> bool {
        merkle::verify_inclusion(node_leaf(node), index.into(), self.count.into(), path, self.root)
    }
}

/// What is wrong with a request, apart from its signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Another schema.
    #[error("schema {0:?} is not known here; expected {REQUEST_SCHEMA}")]
    Schema(String),
    /// Another fleet.
    #[error("the request is for fleet {0}")]
    OtherFleet(FleetId),
    /// Ends before it begins, or lasts too long.
    #[error("the request is valid from {from} to {to}: it must end after it begins and within 24 h")]
    Validity {
        /// Begin.
        from: Timestamp,
        /// End.
        to: Timestamp,
    },
    /// No nodes or too many.
    #[error("the request names {0} nodes; allowed are 1 to {MAX_NODES}")]
    Nodes(u32),
    /// What it binds is no set of plans of an earlier run.
    #[error("its plan must be one to {MAX_PLANS} sorted digests of an earlier run, for a start")]
    Plans,
    /// It would stop before it began.
    #[error("max_failures is 0; leave it out for no limit")]
    Failures,
    /// A plan goes to all nodes at once.
    #[error("a plan follows no rollout policy; start with it")]
    RolloutPolicy,
    /// Zero at once.
    #[error("max_parallel is 0; at least 1 node must be allowed at once")]
    Parallel,
    /// Its time has not come.
    #[error("the request is not valid before {0}")]
    TooEarly(Timestamp),
    /// Its time is over.
    #[error("the request ended at {0}")]
    Ended(Timestamp),
}

impl Request {
    /// Checks everything that needs no clock and no other record.
    pub fn check(&self, fleet: FleetId) -> Result<(), RequestError> {
        if self.schema != REQUEST_SCHEMA {
            return Err(RequestError::Schema(self.schema.chars().take(64).collect()));
        }
        if self.fleet != fleet {
            return Err(RequestError::OtherFleet(self.fleet));
        }
        let too_long = self.not_after.since(self.not_before) > MAX_PLAIN_RUN;
        if self.not_after <= self.not_before || too_long {
            return Err(RequestError::Validity { from: self.not_before, to: self.not_after });
        }
        if self.nodes.count == 0 || self.nodes.count as usize > MAX_NODES {
            return Err(RequestError::Nodes(self.nodes.count));
        }
        if self.max_parallel == 0 {
            return Err(RequestError::Parallel);
        }
        if self.max_failures == Some(0) {
            return Err(RequestError::Failures);
        }
        if self.rollout_policy.is_some() && self.verb != Verb::Run {
            return Err(RequestError::RolloutPolicy);
        }
        if let Some(bound) = &self.plan {
            let is_set = bound.digests.windows(2).all(|pair| pair[0] < pair[1]);
            let counts = !bound.digests.is_empty() && bound.digests.len() <= MAX_PLANS;
            if !is_set || !counts || self.verb != Verb::Run || bound.run == self.run {
                return Err(RequestError::Plans);
            }
        }
        Ok(())
    }

    /// May a first start happen now?
    pub fn check_time(&self, now: Timestamp) -> Result<(), RequestError> {
        if now < self.not_before {
            return Err(RequestError::TooEarly(self.not_before));
        }
        if now >= self.not_after {
            return Err(RequestError::Ended(self.not_after));
        }
        Ok(())
    }
}
