//! Advisories, findings and deadlines, for people.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::finding_hold::HoldKind;
use crate::id::Name;
use crate::time::Timestamp;

/// A source of advisories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvisorySource {
    /// Its name.
    pub name: String,
    /// Advisories, or lines, that it holds.
    pub entries: u64,
    /// The newest instant that stands in it: how old it is.
    pub newest: Option<Timestamp>,
    /// When it was imported.
    pub imported: Timestamp,
    /// By whom.
    pub by: String,
    /// Digest of what was kept.
    pub digest: Digest,
    /// What was read and not used, the most frequent reasons first.
    pub skipped: Vec<AdvisorySkipped>,
    /// How often in all.
    pub skipped_count: u64,
    /// Why its file cannot be read; absent where it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// Something that was read and not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvisorySkipped {
    /// Why.
    pub reason: String,
    /// How often.
    pub count: u64,
    /// The first file.
    pub file: String,
    /// The place in it.
    pub place: String,
}

/// What an import has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvisoryImport {
    /// `fleet/v1/advisory-import`.
    pub schema: String,
    /// Files that were read.
    pub files: u64,
    /// The sources that were replaced.
    pub sources: Vec<ReplacedSource>,
    /// What was read and not used.
    pub skipped: Vec<AdvisorySkipped>,
}

/// One source that an import has replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacedSource {
    /// Its name.
    pub name: String,
    /// What it holds now.
    pub entries: u64,
    /// What it held before; absent where it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
}

/// One advisory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvisoryView {
    /// `fleet/v1/advisory`.
    pub schema: String,
    /// Its id.
    pub id: String,
    /// Its CVEs.
    pub cves: Vec<String>,
    /// One line.
    pub summary: String,
    /// The file that it was read from.
    pub file: String,
    /// When it was published.
    pub published: Option<Timestamp>,
    /// When it was changed last.
    pub modified: Option<Timestamp>,
    /// When its origin took it back.
    pub withdrawn: Option<Timestamp>,
    /// All scores that are known, the one that counts first.
    pub scores: Vec<ScoreItem>,
    /// Since when it is known to be exploited.
    pub exploited: Option<Timestamp>,
    /// What is affected, a line each.
    pub affected: Vec<String>,
    /// Nodes on which it was found.
    pub nodes: u32,
}

/// A score as somebody gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreItem {
    /// Who gave it.
    pub by: String,
    /// The vector.
    pub vector: String,
    /// What it is worth; absent where it cannot be read.
    pub score: Option<String>,
    /// Does it count?
    pub counts: bool,
}

/// How a finding stands, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FixState {
    /// The fix is installed; services run what was there before.
    ServicesRunOldFiles,
    /// The fix is installed; an older kernel runs.
    RebootPending,
    /// It can be installed now.
    FixInArchive,
    /// It is published, and not in the node's archives.
    FixNotInArchive,
    /// No fix is known.
    NoFix,
}

impl FixState {
    /// The word as shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServicesRunOldFiles => "services run old files",
            Self::RebootPending => "reboot pending",
            Self::FixInArchive => "fix in archive",
            Self::FixNotInArchive => "fix not in archive",
            Self::NoFix => "no fix yet",
        }
    }
}

/// How a deadline stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadlineState {
    /// Past its end.
    Late,
    /// Soon.
    AtRisk,
    /// What the node has is not known now.
    Unknown,
    /// Somebody answers for its staying.
    Held,
    /// There is time.
    InTime,
    /// It asks for nothing.
    Nothing,
}

impl DeadlineState {
    /// The word as shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::AtRisk => "at risk",
            Self::Unknown => "unknown",
            Self::Held => "held",
            Self::InTime => "in time",
            Self::Nothing => "nothing",
        }
    }
}

/// How many findings stand how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadlines {
    /// Past their end.
    pub late: u64,
    /// Soon.
    pub at_risk: u64,
    /// Of nodes that have not said for a day what they have.
    pub unknown: u64,
    /// Somebody answers for their staying.
    pub held: u64,
    /// There is time.
    pub in_time: u64,
    /// The next end that lies ahead.
    pub next_due: Option<Timestamp>,
    /// Nodes of which not all is known: they have not said what they have, or no advisory speaks of their release.
    pub nodes_unknown: u64,
}

impl Deadlines {
    /// Counts one more.
    pub const fn count(&mut self, state: DeadlineState) {
        match state {
            DeadlineState::Late => self.late += 1,
            DeadlineState::AtRisk => self.at_risk += 1,
            DeadlineState::Unknown => self.unknown += 1,
            DeadlineState::Held => self.held += 1,
            DeadlineState::InTime => self.in_time += 1,
            DeadlineState::Nothing => {}
        }
    }
}

/// A CVE, or an advisory without one, with the nodes that it was found on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchItem {
    /// The CVE; the advisory's id where it has none.
    pub id: String,
    /// One line.
    pub summary: String,
    /// The score that counts; absent where none can be read.
    pub score: Option<String>,
    /// Whose score it is.
    pub score_by: String,
    /// The lane that its deadline goes by: critical, high, medium, low, unknown, none.
    pub severity: String,
    /// Is it known to be exploited?
    pub exploited: bool,
    /// Nodes that it was found on.
    pub nodes: u32,
    /// Those of them on which a fix can be installed now.
    pub fix_in_archive: u32,
    /// Those for which no fix is known, or none in their archives.
    pub without_fix: u32,
    /// Those on which the fix is installed and does not run yet.
    pub pending: u32,
    /// How its deadlines stand.
    pub deadlines: Deadlines,
    /// The earliest end.
    pub due: Option<Timestamp>,
}

/// One CVE with its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchView {
    /// `fleet/v1/patch`.
    pub schema: String,
    /// The controller's time.
    pub as_of: Timestamp,
    /// In short.
    pub item: PatchItem,
    /// The advisories that name it.
    pub advisories: Vec<String>,
    /// Its nodes, the earliest end first; at most a thousand.
    pub nodes: Vec<PatchNode>,
}

/// A finding on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchNode {
    /// The node.
    pub node: Name,
    /// The advisory.
    pub advisory: String,
    /// The package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// How it stands, in a word.
    pub is: FixState,
    /// The same as a sentence.
    pub stands: String,
    /// Why it matched.
    pub why: String,
    /// How its deadline stands.
    pub deadline: DeadlineState,
    /// What started its clock: published, available, found.
    pub started_by: String,
    /// When it started.
    pub started: Option<Timestamp>,
    /// When it ends.
    pub due: Option<Timestamp>,
    /// Since when the node's archives lack a fix that is published, where that is too long.
    pub archive_lags_since: Option<Timestamp>,
    /// The rollout policies whose response times count; none: the usual ones.
    #[serde(default)]
    pub times_of: Vec<String>,
    /// Who answers for its staying for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldBy>,
}

/// Who answers for a finding that may stay for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBy {
    /// Put off, or accepted.
    pub kind: HoldKind,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// The operator who signed it.
    pub signed_by: Name,
}

/// A hold or waiver of a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingHoldItem {
    /// The CVE, or the advisory.
    pub finding: String,
    /// On which nodes; empty: on all.
    pub selector: String,
    /// So many of them have it.
    pub nodes: u32,
    /// Has it ended?
    pub is_over: bool,
    /// Who answers for it.
    pub held: HeldBy,
}

/// How a node's deadlines stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlaNode {
    /// The node.
    pub node: Name,
    /// Its site.
    pub site: String,
    /// How many stand how.
    pub deadlines: Deadlines,
    /// The worst of them that is to be done first; empty where there is none.
    pub next: String,
    /// When that ends.
    pub due: Option<Timestamp>,
    /// Why not all is known.
    pub unknown: Vec<String>,
}

/// How deadlines stand, in all and a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchSla {
    /// `fleet/v1/patch-sla`.
    pub schema: String,
    /// The controller's time.
    pub as_of: Timestamp,
    /// In all.
    pub deadlines: Deadlines,
    /// Nodes with something to do or not known, worst first; at most a thousand.
    pub nodes: Vec<SlaNode>,
    /// How many there are.
    pub count: u64,
}

/// Whether the deadlines of what can be patched now can be held by a rollout policy, if nothing fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchPlan {
    /// `fleet/v1/patch-plan`.
    pub schema: String,
    /// The controller's time.
    pub as_of: Timestamp,
    /// The policy.
    pub policy: String,
    /// How long a node is taken to take, in milliseconds.
    pub takes_ms: u64,
    /// Its rings in order.
    pub rings: Vec<PlannedRing>,
    /// Chosen nodes that have nothing to install: no finding, none with a fix in their archive, or all of it held.
    pub without_fix: u64,
    /// Nodes that would be done in time.
    pub in_time: u64,
    /// The others, the worst first; at most a thousand.
    pub missed: Vec<PlanMiss>,
    /// How many of them there are.
    pub missed_count: u64,
    /// What could be changed, and what it would save; empty where nothing is missed.
    pub ways: Vec<PlanWay>,
}

/// A ring of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRing {
    /// Its name.
    pub name: String,
    /// Its nodes.
    pub nodes: u32,
    /// When it begins; absent where it does not, as far as is known now.
    pub begins: Option<Timestamp>,
    /// When the next one may begin, or, of the last one, when its nodes are done.
    pub ends: Option<Timestamp>,
    /// An operator has to let the next one begin, and is taken to do so at once.
    pub waits_for_operator: bool,
}

/// A node that would not be done in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanMiss {
    /// The node.
    pub node: String,
    /// What must be gone first.
    pub finding: String,
    /// When that must be gone.
    pub due: Timestamp,
    /// When the node would be done; absent where it is offline, or would begin too late.
    pub done: Option<Timestamp>,
    /// Is it late already?
    pub is_late: bool,
}

/// What could be changed of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanWay {
    /// What, in words.
    pub what: String,
    /// Nodes that would not be done in time even so.
    pub misses: u64,
}
