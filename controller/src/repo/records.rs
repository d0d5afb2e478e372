//! The records of the store: data only, in their newest shape.

use fleet_rollout::Place;
use fleet_types::authority::Authority;
use fleet_types::digest::Digest;
use fleet_types::id::{
    Attempt, ControllerId, FleetId, Generation, JobId, LinkEpoch, Name, NodeId, OperatorId, RunId, Stage,
};
use fleet_types::job::JobState;
use fleet_types::label::Labels;
use fleet_types::merkle::Frontier;
use fleet_types::request::Verb;
use fleet_types::run::{RunState, Tally};
use fleet_types::seal::{KeyId, PublicKey, base64_bytes};
use fleet_types::time::Timestamp;
use fleet_types::trust::{OperatorRole, RootKeys};
use fleet_types::view::{Health, Hold, Skipped};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::codec::Record;
use super::rollout_record::RolloutRecord;

macro_rules! record {
    ($name:ident, $what:literal, $version:literal) => {
        impl Record for $name {
            const WHAT: &'static str = $what;
            const VERSION: u8 = $version;
        }
    };
}

/// The fleet itself. Written once by `init`; the generation rises when a backup is restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetRecord {
    /// Its id.
    pub fleet: FleetId,
    /// Its name.
    pub name: Name,
    /// The controller that `init` made.
    pub controller: ControllerId,
    /// Fencing against restored stores.
    pub generation: Generation,
    /// Root keys and threshold.
    pub roots: RootKeys,
    /// When it was made.
    pub created: Timestamp,
}
record!(FleetRecord, "fleet", 1);

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
    /// Serial of its certificate, hexadecimal.
    pub serial: Option<String>,
    /// When that ends.
    pub certificate_not_after: Option<Timestamp>,
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
    const VERSION: u8 = 2;

    fn upgrade(_version: u8, body: &mut Value) {
        // Version 1 knew one reason for a hold, and called it frozen.
        if body["state"]["state"] == "frozen" {
            body["state"]["state"] = "held".into();
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
            serial: None,
            certificate_not_after: None,
            created,
            revision: 0,
            chain: 0,
            join_token: None,
            released: None,
        }
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

/// When a controller was up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliveRecord {
    /// The last time that it said so.
    pub at: Timestamp,
}
record!(AliveRecord, "alive", 1);

/// A pointer by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePointer {
    /// The node.
    pub node: NodeId,
}
record!(NodePointer, "node name", 1);

/// A pointer by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorPointer {
    /// The operator.
    pub operator: OperatorId,
}
record!(OperatorPointer, "operator name", 1);

/// A join token; its secret is kept as a hash only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The node that it is bound to.
    pub node: NodeId,
    /// SHA-256 of the secret.
    pub secret_hash: Digest,
    /// When it ends.
    pub expires: Timestamp,
    /// Who made it.
    pub created_by: OperatorId,
    /// What it was used for.
    pub used: Option<UsedToken>,
}
record!(TokenRecord, "join token", 1);

/// An invite for an operator; its secret is kept as a hash only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRecord {
    /// Name that the operator will have.
    pub name: Name,
    /// His role.
    pub role: OperatorRole,
    /// SHA-256 of the secret.
    pub secret_hash: Digest,
    /// When it ends.
    pub expires: Timestamp,
    /// What it was used for.
    pub used: Option<UsedToken>,
    /// The operator who came of it.
    pub operator: Option<OperatorId>,
}
record!(InviteRecord, "invite", 1);

/// How a token was used: the same use again gets the same answer (a lost reply).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedToken {
    /// Digest of the certified public key.
    pub public_key: Digest,
    /// Digest of the content or report key that was registered with it.
    pub second_key: PublicKey,
    /// The certificate chain that was given, leaf first, DER.
    pub chain: Vec<Bytes>,
    /// When.
    pub at: Timestamp,
}

/// Bytes as base 64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(#[serde(with = "base64_bytes")] pub Vec<u8>);

/// An operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRecord {
    /// His id.
    pub id: OperatorId,
    /// His name.
    pub name: Name,
    /// His role.
    pub role: OperatorRole,
    /// The public half of their content key.
    pub content_key: PublicKey,
    /// Serial of their certificate, hexadecimal.
    pub serial: String,
    /// When they joined.
    pub created: Timestamp,
}
record!(OperatorRecord, "operator", 1);

/// One revision of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentRecord {
    /// `profile`, `procedure`, `schedule`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Number under this name, from 1.
    pub revision: u32,
    /// Its version as written.
    pub version: Option<u64>,
    /// Its digest.
    pub digest: Digest,
    /// Its description.
    pub description: String,
    /// When it was applied.
    pub applied: Timestamp,
    /// Key that signed it.
    pub key: KeyId,
    /// Name of the person, at the time.
    pub signed_by: String,
}
record!(DocumentRecord, "document", 1);

/// A run: plan, phase and counters. Written on phase changes only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its id.
    pub run: RunId,
    /// Why it may run.
    #[serde(flatten)]
    pub authority: Authority,
    /// Run or plan.
    pub verb: Verb,
    /// Name of the procedure.
    pub procedure: String,
    /// Digest of the procedure.
    pub procedure_digest: Digest,
    /// The procedure's number under its name; none for one made for this run alone, and in older records.
    #[serde(default)]
    pub procedure_revision: Option<u32>,
    /// Digest of the profile.
    pub profile_digest: Digest,
    /// Does it change nodes?
    pub changes: bool,
    /// The longest that a job may take once it has begun, in milliseconds: working time, way back, final entries.
    pub job_limit_ms: u64,
    /// New starts end after so many failures; `None` for no such limit.
    #[serde(default)]
    pub max_failures: Option<u32>,
    /// The selector, for people.
    pub selector: String,
    /// At most so many nodes at once.
    pub max_parallel: u32,
    /// Not before.
    pub not_before: Timestamp,
    /// No first start after this.
    pub not_after: Timestamp,
    /// Merkle root of its nodes.
    pub nodes_root: Digest,
    /// Who started it.
    pub started_by: String,
    /// When.
    pub started: Timestamp,
    /// Why.
    pub reason: String,
    /// Where it stands.
    pub state: RunState,
    /// Nodes that were meant and could get no work when the run was made: the first of them by name.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// How many those are.
    #[serde(default)]
    pub skipped_count: u32,
    /// Why new starts are stopped.
    pub stopped_because: String,
    /// Nodes by outcome; complete when the run has ended.
    pub tally: Tally,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// When the bodies of its reports and the output of its steps were taken away.
    #[serde(default)]
    pub bodies_gone: Option<Timestamp>,
    /// The rollout policy that it follows; none for a plain run of one ring, and in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutRecord>,
    /// Who paused it, and why; empty while it is not paused.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub paused_because: String,
}
record!(RunRecord, "run", 1);

/// A job: what the controller knows durably.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: NodeId,
    /// Its name when the run was made.
    pub node_name: Name,
    /// Place in the request's node list.
    pub index: u32,
    /// The pair it belonged to when the run was made.
    pub pair: Option<String>,
    /// Its site when the run was made.
    pub site: String,
    /// The number of its ring, from 0.
    #[serde(default, skip_serializing_if = "is_first")]
    pub ring: u32,
    /// The stage that it has reached.
    #[serde(default, skip_serializing_if = "Stage::is_first")]
    pub stage: Stage,
    /// The attempt.
    pub attempt: Attempt,
    /// `queued`, `offered` or ended; what lies between is on the node.
    pub state: JobState,
    /// What was taken for it with its offer, over all runs. None where it only reads; older records have a pair
    /// that is not named here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
    /// When it was offered.
    pub offered: Option<Timestamp>,
    /// When it ended here.
    pub ended: Option<Timestamp>,
    /// Milliseconds on the node.
    pub took_ms: Option<u64>,
    /// One line of what came out.
    pub summary: String,
    /// Of a plan, the digest of what the node would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Digest>,
    /// The report.
    pub report: Option<StoredReport>,
    /// A report that came too late.
    pub late_report: Option<StoredReport>,
    /// Health that the report found, where it looked.
    pub health: Option<Health>,
}
record!(JobRecord, "job", 1);

/// Is it the first ring, which is not written?
#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
const fn is_first(ring: &u32) -> bool {
    *ring == 0
}

impl JobRecord {
    /// Its name.
    pub const fn id(&self) -> JobId {
        JobId { run: self.run, node: self.node, stage: self.stage }
    }
}

/// Where a report is stored: its number in the node's chain, and its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredReport {
    /// The chain that it is in.
    #[serde(default)]
    pub chain: u32,
    /// The node's own number of it.
    pub sequence: u64,
    /// Digest of its bytes.
    pub digest: Digest,
}

/// An entry of a node's inbox: the node should be working on this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxRecord {
    /// The stage of the job.
    #[serde(default, skip_serializing_if = "Stage::is_first")]
    pub stage: Stage,
    /// The attempt.
    pub attempt: Attempt,
    /// Why it may run.
    #[serde(flatten)]
    pub authority: Authority,
    /// Place in the request's node list.
    pub node_index: u32,
    /// Path of the node in that list.
    pub node_path: Vec<Digest>,
}
record!(InboxRecord, "inbox", 1);

/// The tree over the audit log, as far as it was worked out: derived, so that no start reads the log from its
/// beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditTreeRecord {
    /// The tree.
    pub tree: Frontier,
}
record!(AuditTreeRecord, "audit tree", 1);

/// A pair, or a place of a site or of the fleet, that is held, by its key, and whose job it is held for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRecord {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub node_name: Name,
    /// The attempt.
    pub attempt: Attempt,
    /// When the job was offered.
    pub since: Timestamp,
}
record!(HoldRecord, "hold", 1);

/// An empty record whose key says it all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {}
record!(Mark, "mark", 1);

/// A stored report with the node's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRecord {
    /// JSON of the report, as the node made it.
    #[serde(with = "base64_bytes")]
    pub payload: Vec<u8>,
    /// The node's signature.
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
    /// When it arrived.
    pub received: Timestamp,
    /// Newest journal frame that the node had told of by then.
    #[serde(default)]
    pub journal_sequence: u64,
}
record!(ReportRecord, "report", 1);

/// An archive that a report named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRecord {
    /// The node.
    pub node: NodeId,
    /// Its name at the time.
    pub node_name: Name,
    /// The backup's id.
    pub backup: String,
    /// Path on the node.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Digest of the archive.
    pub sha256: Digest,
    /// When it was made.
    pub made: Timestamp,
    /// Verified after writing?
    pub verified: bool,
    /// The run.
    pub run: RunId,
    /// The newest run in whose output its listing may stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed_in: Option<RunId>,
    /// Its encrypted copy, as the report named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyRecord>,
}
record!(BackupRecord, "backup", 1);

impl BackupRecord {
    /// Is its copy here?
    pub fn has_copy(&self) -> bool {
        self.copy.as_ref().is_some_and(|copy| copy.stored.is_some() && copy.gone.is_none())
    }
}

/// An encrypted copy of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRecord {
    /// Digest of the encrypted file.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
    /// Days that it is kept.
    pub keep_days: Option<u32>,
    /// Copies that are kept.
    pub keep_count: Option<u32>,
    /// When it was here whole.
    pub stored: Option<Timestamp>,
    /// When it was given up by its retention.
    pub gone: Option<Timestamp>,
}

/// The answer to a mutating call, kept so that a repeated call gets the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRecord {
    /// Digest of the call's arguments: the same key with another digest is an error.
    pub arguments: Digest,
    /// The answer's JSON.
    pub answer: Value,
    /// When; kept 30 days.
    pub at: Timestamp,
}
record!(IdempotencyRecord, "idempotency", 1);

/// Free text of an audit record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditText {
    /// 32 bytes.
    #[serde(with = "base64_bytes")]
    pub salt: Vec<u8>,
    /// The text.
    pub text: String,
}
record!(AuditText, "audit text", 1);
