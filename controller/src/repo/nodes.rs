//! Nodes: their records, names, what was seen of them, their facts and health, and those that were removed.
//!
//! Decides nothing; called by the services.

use fleet_certs::Role;
use fleet_store::{Batch, WriteId, chunks};
use fleet_types::id::{LinkEpoch, Name, NodeId};
use fleet_types::label::Labels;
use fleet_types::seal::PublicKey;
use fleet_types::time::Timestamp;
use fleet_types::view::{Health, Hold};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::certificates::{self, Certificates};
use super::codec::Record;
use super::codec::record;
use super::keys::{Made, make};
use super::reader::{BatchExt as _, Repo, Stored};
use crate::error::Result;

/// Where a node is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum NodeState {
    /// A record with a join token; nobody has come.
    Pending,
    /// Enrolled.
    Active,
    /// Enrolled, and gets no work until an operator releases it.
    Held(Hold),
}

/// A node as operators and enrolment know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: Name,
    /// Assigned labels.
    pub labels: Labels,
    /// Where it is in its life.
    pub state: NodeState,
    /// Key of its reports.
    pub report_key: Option<PublicKey>,
    /// Which certificates speak for it.
    pub certificates: Certificates,
    /// When the record was made.
    pub created: Timestamp,
    /// Rises with every change: of two records the newer one counts, whatever order memory is told in.
    #[serde(default)]
    pub revision: u64,
    /// Which chain of reports it is in: an operator who releases the node begins a new one.
    #[serde(default)]
    pub chain: u32,
    /// Id of its newest join token, the only one that is worth anything.
    #[serde(default)]
    pub join_token: Option<String>,
    /// When the controller's hold was last released: older work that this store cannot explain is let go.
    #[serde(default)]
    pub released: Option<Timestamp>,
}

impl Record for NodeRecord {
    const WHAT: &'static str = "node";
    const VERSION: u8 = 3;

    fn upgrade(version: u8, body: &mut Value) {
        // Version 1 knew one reason for a hold, and called it frozen.
        if version == 1 && body["state"]["state"] == "frozen" {
            body["state"]["state"] = "held".into();
        }
        // Version 2 knew the one certificate of the enrolment.
        if version == 2 {
            body["certificates"] = certificates::of_one(&body["serial"], &body["certificate_not_after"]);
        }
    }
}

impl NodeRecord {
    /// A node that has not come yet.
    pub fn pending(id: NodeId, name: Name, labels: Labels, created: Timestamp) -> Self {
        Self {
            id,
            name,
            labels,
            state: NodeState::Pending,
            report_key: None,
            certificates: Certificates::default(),
            created,
            revision: 0,
            chain: 0,
            join_token: None,
            released: None,
        }
    }

    /// The same with other certificates, as the next revision.
    #[must_use]
    pub fn with_certificates(self, certificates: Certificates) -> Self {
        Self { certificates, revision: self.revision + 1, ..self }
    }

    /// The same in another state, as the next revision.
    #[must_use]
    pub fn with_state(self, state: NodeState) -> Self {
        Self { state, revision: self.revision + 1, ..self }
    }

    /// Why it gets no work, if it is held.
    pub const fn hold(&self) -> Option<&Hold> {
        match &self.state {
            NodeState::Held(hold) => Some(hold),
            NodeState::Pending | NodeState::Active => None,
        }
    }
}

/// What was seen of a node: written at connects and when a link ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRecord {
    /// Newest link.
    pub link_epoch: LinkEpoch,
    /// When it connected.
    pub connected: Timestamp,
    /// When it was last known to be there; coarse, written at transitions.
    pub last_seen: Timestamp,
    /// Version of its agent.
    pub agent_version: String,
    /// Mode of its local policy.
    pub policy_mode: String,
    /// Actions that it can carry out.
    pub actions: Vec<String>,
    /// Newest journal frame; a lower one later means an old disk image.
    pub journal_sequence: u64,
    /// Is the link up? Also true after a stop of the controller, which ends every link.
    #[serde(default)]
    pub linked: bool,
    /// What keeps its agent from starting changes.
    #[serde(default)]
    pub safe_mode: String,
}
record!(SeenRecord, "seen", 1);

/// A node that was removed: its certificate opens nothing as long as it lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedRecord {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// When its certificate ends.
    pub certificate_not_after: Option<Timestamp>,
    /// Who removed it.
    pub by: Name,
    /// When.
    pub at: Timestamp,
}
record!(RemovedRecord, "removed node", 1);

/// The newest health of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthRecord {
    /// As a report found it.
    pub health: Health,
}
record!(HealthRecord, "health", 1);

/// A pointer by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePointer {
    /// The node.
    pub node: NodeId,
}
record!(NodePointer, "node name", 1);

/// Prefix of all node records.
pub const ALL: &str = "node/";

/// A node's record: what operators assigned, and its identity.
pub fn key(id: NodeId) -> Made {
    make(format!("{ALL}{id}"))
}

/// A node's name, pointing to its id: makes names unique.
pub fn name(name: &str) -> Made {
    make(format!("node-name/{name}"))
}

/// What was seen of a node; written at connects and when a link ends.
pub fn seen(id: NodeId) -> Made {
    make(format!("seen/{id}"))
}

/// Prefix of the nodes that were removed.
pub const REMOVED: &str = "removed-node/";

/// A node that was removed.
pub fn removed(id: NodeId) -> Made {
    make(format!("{REMOVED}{id}"))
}

/// A node's newest health.
pub fn health(id: NodeId) -> Made {
    make(format!("health/{id}"))
}

/// A node's facts, an object.
pub fn facts(id: NodeId) -> Made {
    make(format!("facts/{id}"))
}

/// Writes a node that is new, under a name that is free.
pub fn create(batch: Batch, node: &NodeRecord) -> Result<Batch> {
    let pointer = NodePointer { node: node.id };
    batch.create_record(name(node.name.as_str())?, &pointer)?.create_record(key(node.id)?, node)
}

/// Writes what has changed of a node.
pub fn save(batch: Batch, seen: WriteId, node: &NodeRecord) -> Result<Batch> {
    batch.replace_record(key(node.id)?, seen, node)
}

/// Takes a node away with all that was known of it, and notes that it was here.
pub async fn remove(
    repo: &Repo,
    batch: Batch,
    known: &Stored<NodeRecord>,
    gone: &RemovedRecord,
) -> Result<Batch> {
    let id = known.record.id;
    let batch = batch
        .remove(key(id)?, known.write_id)
        .delete(name(known.record.name.as_str())?)
        .delete(seen(id)?)
        .delete(health(id)?)
        .delete(certificates::renewal(Role::Agent, *id.as_uuid())?)
        .delete(certificates::revoked(Role::Agent, *id.as_uuid())?)
        .put_record(removed(id)?, gone)?;
    Ok(chunks::delete_object(repo.store().as_ref(), batch, &facts(id)?).await?)
}
