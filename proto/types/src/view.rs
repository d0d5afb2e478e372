//! Views: what the controller answers to operators, and what `-o json` prints. Each names its schema; fields are only
//! ever added. The controller fills them from its records, CLI and dashboard show them, and nobody stores them.

mod certificate;
mod document;
mod done;
mod error_detail;
mod operator;
mod packages;
mod patch;
mod ring;
mod schedule;
mod standing_order;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::authority::Authority;
use crate::digest::Digest;
use crate::facts::NodeFacts;
use crate::id::{Attempt, FleetId, Name, NodeId, OperatorId, RunId};
use crate::job::{JobState, Outcome};
use crate::label::Labels;
use crate::report::Report;
use crate::request::Verb;
use crate::run::{RunState, Tally};
use crate::seal::PublicKey;
use crate::time::Timestamp;
use crate::trust::OperatorRole;

pub use certificate::{CertificateItem, CertificateState};
pub use document::{ApplyItem, ApplyView, DocumentItem, DocumentView};
pub use done::Done;
pub use error_detail::{CERTIFICATE_REFUSED, ERROR_DETAIL_KEY, ErrorDetail};
pub use operator::{InviteView, OperatorItem, OperatorState};
pub use packages::{NodePackages, PackageItem};
pub use patch::{
    AdvisoryImport, AdvisorySkipped, AdvisorySource, AdvisoryView, DeadlineState, Deadlines, FindingHoldItem,
    FixState, HeldBy, PatchItem, PatchNode, PatchPlan, PatchSla, PatchView, PlanMiss, PlanWay, PlannedRing,
    ReplacedSource, ScoreItem, SlaNode,
};
pub use ring::{GatesView, RingNodes, RingView};
pub use schedule::{NextTick, NotFired, ScheduleItem, ScheduleState, TickItem};
pub use standing_order::{AuthoriseItem, AuthoriseView, Authorised, TickView};

/// A page of a list; `next` goes into `after` of the next call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// Such as `fleet/v1/node-list`.
    pub schema: String,
    /// The items, a list even when there is one.
    pub items: Vec<T>,
    /// Where the next page begins; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Who the caller is to the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoAmI {
    /// `fleet/v1/whoami`.
    pub schema: String,
    /// The operator.
    pub operator: OperatorId,
    /// His name.
    pub name: Name,
    /// His role.
    pub role: OperatorRole,
    /// The fleet.
    pub fleet: FleetId,
    /// The fleet's name.
    pub fleet_name: Name,
    /// When their certificate ends.
    pub certificate_not_after: Timestamp,
    /// His registered content key.
    pub content_key: PublicKey,
    /// Is that key in the trust bundle, so that nodes accept what it signs?
    pub content_key_listed: bool,
    /// The controller's version.
    pub controller_version: String,
    /// The controller's time.
    pub controller_time: Timestamp,
}

/// How the controller sees a node's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Connected, heartbeats arrive.
    Online,
    /// No heartbeat for three intervals.
    Stale,
    /// Its link was up when the controller stopped, and may still be on its way back.
    Reconnecting,
    /// Not connected.
    Offline,
    /// Its record exists, the node has not enrolled.
    NotEnrolled,
}

impl Presence {
    /// The word as shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Stale => "stale",
            Self::Reconnecting => "reconnecting",
            Self::Offline => "offline",
            Self::NotEnrolled => "not_enrolled",
        }
    }
}

/// The fleet on one screen. Its cost does not grow with the fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `fleet/v1/status`.
    pub schema: String,
    /// The fleet's name.
    pub fleet_name: Name,
    /// The controller's time.
    pub as_of: Timestamp,
    /// One line a site, worst first.
    pub sites: Vec<SiteStatus>,
    /// What needs a person, worst first; at most 20.
    pub attention: Vec<Attention>,
    /// Runs under way, newest first; at most 20.
    pub active_runs: Vec<RunItem>,
    /// How deadlines of findings stand; absent where no advisories are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadlines: Option<Deadlines>,
}

/// One site.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SiteStatus {
    /// The site's name, `-` where none is assigned.
    pub site: String,
    /// Nodes with a record.
    pub nodes: u32,
    /// Online, newest health without a problem of severity medium or worse.
    pub ok: u32,
    /// Online, with such a problem.
    pub warn: u32,
    /// Heartbeats are missing.
    pub stale: u32,
    /// Not connected.
    pub offline: u32,
    /// Not enrolled yet.
    pub not_enrolled: u32,
    /// Online, and its health is not known: not asked for yet, asked too long ago, or not to be seen.
    pub unknown: u32,
    /// Held: they get no work, however their link is.
    #[serde(default)]
    pub held: u32,
}

/// Something needs a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attention {
    /// Node, run or site.
    pub subject: String,
    /// What is wrong.
    pub message: String,
    /// The command that shows more.
    pub command: String,
}

/// A node in lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeItem {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: Name,
    /// Its labels.
    pub labels: Labels,
    /// How its link is.
    pub presence: Presence,
    /// Last sign of life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// Version of its agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent_version: String,
    /// Mode of its local policy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy_mode: String,
    /// Newest health, if a job reported one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Why it gets no work, where it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// What keeps its agent from starting changes, in the agent's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub safe_mode: String,
}

/// A node gets no work until an operator releases it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Why.
    pub reason: String,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The operator who said so. Without one the controller did, because it cannot tell whether the machine is
    /// the node: then its agent is not let in either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Name>,
}

impl Hold {
    /// Is its agent let in?
    pub const fn keeps_link(&self) -> bool {
        self.by.is_some()
    }
}

impl std::fmt::Display for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.by {
            Some(by) => write!(f, "held by {by}: {}", self.reason),
            None => write!(f, "held: {}", self.reason),
        }
    }
}

/// The newest health of a node, drawn from its newest report that has one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// 0 to 100.
    pub score: u32,
    /// Problems of severity medium or worse.
    pub problems: u32,
    /// The worst of them, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub worst: String,
    /// Checks that nobody could look at: neither good nor bad.
    #[serde(default)]
    pub unknown: u32,
    /// When it was found.
    pub at: Timestamp,
    /// From here on it is too old to say anything about the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh_until: Option<Timestamp>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// `fleet/v1/node`.
    pub schema: String,
    /// As in lists.
    #[serde(flatten)]
    pub item: NodeItem,
    /// What it reports about itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<NodeFacts>,
    /// Key of its reports, for checking them offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_key: Option<PublicKey>,
    /// When its certificate ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_not_after: Option<Timestamp>,
    /// Its newest jobs.
    pub jobs: Vec<JobItem>,
    /// Its newest report that measured something, for `fleetctl status NODE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_report: Option<Report>,
}

/// A new join token; shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenView {
    /// `fleet/v1/join-token`.
    pub schema: String,
    /// The token's text.
    pub token: String,
    /// The node that it is for.
    pub node: Name,
    /// The node's id.
    pub node_id: NodeId,
    /// When it ends.
    pub expires: Timestamp,
    /// An older token of the node is void since this one was made.
    #[serde(default)]
    pub replaces: bool,
}

/// The trust bundle as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustView {
    /// `fleet/v1/trust`.
    pub schema: String,
    /// Version of the bundle.
    pub version: u64,
    /// JSON of `SignedBundle`.
    pub bundle: crate::trust::SignedBundle,
    /// The next one, which waits for more signatures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal: Option<crate::trust::SignedBundle>,
}

/// Which nodes a selector means now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// `fleet/v1/targets`.
    pub schema: String,
    /// Sorted by id, as a request's node list must be.
    pub nodes: Vec<Target>,
    /// Names that were asked for and do not exist.
    pub unknown: Vec<String>,
    /// All enrolled nodes of the fleet: how much of it the choice is.
    #[serde(default)]
    pub enrolled: u32,
    /// The controller's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
    /// What may have been meant, where a name, label or site is known to no node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// Nodes that were meant and can get no work now.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
}

/// A node that was meant and is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub name: Name,
    /// Why.
    pub why: String,
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name, self.why)
    }
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: Name,
    /// Its site.
    pub site: String,
    /// Its pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<String>,
    /// How its link is.
    pub presence: Presence,
}

/// A run in lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunItem {
    /// Its id.
    pub run: RunId,
    /// Run or plan.
    pub verb: Verb,
    /// Name of the procedure.
    pub procedure: String,
    /// Where it stands.
    pub state: RunState,
    /// Nodes by outcome.
    pub tally: Tally,
    /// When it was started.
    pub started: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Who started it.
    pub started_by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// `fleet/v1/run`.
    pub schema: String,
    /// As in lists.
    #[serde(flatten)]
    pub item: RunItem,
    /// The selector that chose its nodes.
    pub selector: String,
    /// Why it may run.
    #[serde(flatten)]
    pub authority: Authority,
    /// The tick of a schedule that it carries out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<TickView>,
    /// Digest of the procedure.
    pub procedure_digest: Digest,
    /// Digest of the profile.
    pub profile_digest: Digest,
    /// The number of the procedure under its name; none for one that was made for this run alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub procedure_revision: Option<u32>,
    /// Parameters as they were signed; left out where a run is watched.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, serde_json::Value>,
    /// The plan that it starts, and nothing else; left out where a run is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<RunId>,
    /// At most so many nodes at once: of a pair that changes never more than one.
    pub max_parallel: u32,
    /// No node starts after so many failures; none for no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<u32>,
    /// The rollout policy that it follows; empty for a plain run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// The rings of that policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rings: Vec<RingView>,
    /// Who paused it, and why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub paused_because: String,
    /// No start before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// No first start after this.
    pub not_after: Timestamp,
    /// Nodes that the selector meant and that could get no work when the run was made: the first of them by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
    /// How many those are.
    #[serde(default)]
    pub skipped_count: u32,
    /// Jobs that have not ended, by the word of their state.
    pub open: BTreeMap<String, u32>,
    /// Why new starts are stopped, if they are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stopped_because: String,
}

/// A job in lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobItem {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub node_name: Name,
    /// Name of the procedure.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub procedure: String,
    /// The attempt.
    pub attempt: Attempt,
    /// Where it stands.
    pub state: JobState,
    /// The link to the node is down; what is shown may be old.
    pub disconnected: bool,
    /// Every reason why it is not going, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<String>,
    /// Milliseconds from start to end on the node, once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// One line of what came out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// The digest of what the node would do, of a plan: equal where nodes would do the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Digest>,
    /// A report that came after the job had been given up, by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_report: Option<Digest>,
}

/// One job with its report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// `fleet/v1/job`.
    pub schema: String,
    /// As in lists.
    #[serde(flatten)]
    pub item: JobItem,
    /// The report, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// Its digest: what the audit log names and the node signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_digest: Option<Digest>,
}

/// One message of a watch: the run, and the jobs that changed since the message before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunWatch {
    /// `fleet/v1/run-watch`.
    pub schema: String,
    /// The run.
    pub run: RunView,
    /// Changed jobs; all of them in the first message, at most 500 a message.
    pub jobs: Vec<JobItem>,
}

/// A backup archive on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupItem {
    /// The node's name.
    pub node: Name,
    /// The backup's id in the profile.
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
    /// The run that made it.
    pub run: RunId,
    /// The newest run in whose output its listing may stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed_in: Option<RunId>,
    /// Its encrypted copy off the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyItem>,
}

/// An encrypted copy of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyItem {
    /// Bytes.
    pub size: u64,
    /// Digest of the encrypted file.
    pub sha256: Digest,
    /// When the controller had it whole; none while it is on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<Timestamp>,
    /// When the controller gave it up by its retention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Timestamp>,
}

/// A record of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditItem {
    /// The record as stored.
    #[serde(flatten)]
    pub record: crate::audit::AuditRecord,
    /// Free text kept beside it, where it was not erased. The record's own `text` is its commitment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_text: Option<String>,
    /// Name of the node concerned, as it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<Name>,
}

/// The log's size and root now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// `fleet/v1/audit-head`.
    pub schema: String,
    /// The fleet whose log it is.
    pub log: FleetId,
    /// Number of records.
    pub size: u64,
    /// RFC 6962 root over their bytes.
    pub root: Digest,
    /// When it was computed.
    pub as_of: Timestamp,
}

/// How a job's outcome counts for `Health` and exit codes: the worst first.
pub const WORST_FIRST: [Outcome; 9] = [
    Outcome::RollbackFailed,
    Outcome::Lost,
    Outcome::Failed,
    Outcome::Refused,
    Outcome::Expired,
    Outcome::RolledBack,
    Outcome::Cancelled,
    Outcome::SucceededWithWarnings,
    Outcome::Succeeded,
];
