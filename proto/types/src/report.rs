//! What a node says about a job. Every task's report has the same parts, so that store, audit, CLI and
//! dashboard handle a new task without a new line.
//!
//! The bytes of a report are made once, on the node, and signed there with the node's report key
//! (security-and-delivery §3.6). Measurements may be fractions: these bytes are never made again. Fields that
//! a reader does not know are passed over: the bytes are kept as they came, and a controller must be able to
//! store what a newer agent reports.

use serde::{Deserialize, Serialize};

use crate::authority::Authority;
use crate::digest::Digest;
use crate::id::{Attempt, JobId};
use crate::job::{EndCause, Outcome};
use crate::plan::NodePlan;
use crate::severity::Severity;
use crate::time::Timestamp;

/// Schema of the reports of this release.
pub const REPORT_SCHEMA: &str = "fleet/v1/report";
/// Largest report: a job of hundreds of steps fits; output is cut, never the outcome.
pub const MAX_REPORT_BYTES: usize = 512 * 1024;
/// Kept of a step's output inside the report; the whole travels on the output stream.
pub const MAX_OUTPUT_TAIL_BYTES: usize = 2 * 1024;
/// Problems, changes, samples and artifacts of one step; the rest is counted in the summary.
pub const MAX_PARTS: usize = 200;

/// A node's report on one attempt of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_SCHEMA`].
    pub schema: String,
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: Attempt,
    /// Why it was carried out.
    #[serde(flatten)]
    pub authority: Authority,
    /// Node's own number of this report; rises by one, so that a gap shows.
    pub sequence: u64,
    /// Digest of the report before this one; none for the first.
    pub previous: Option<Digest>,
    /// Why a new chain of reports begins with this one: what the node lost of the chain before. Its number is higher
    /// than any of that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_chain: Option<String>,
    /// How the job ended.
    pub outcome: Outcome,
    /// Why, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<EndCause>,
    /// Why, in words.
    pub reason: String,
    /// Wall time of the start and end on the node's clock.
    pub started: Timestamp,
    /// Wall time of the end.
    pub ended: Timestamp,
    /// The same on boot time, which no set clock can move.
    pub boot: BootSpan,
    /// Milliseconds of working time.
    pub working_ms: u64,
    /// The newest checkpoint of the audit log that the node has verified; none while controllers publish none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointSeen>,
    /// One part a step, in order.
    pub steps: Vec<StepReport>,
    /// What the node would do: only in the report of a plan job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<NodePlan>,
}

/// Start and end of a job on boot time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSpan {
    /// Id of the boot in which it ended.
    pub id: String,
    /// Milliseconds since that boot when it started; none when it started in an earlier boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// Milliseconds since that boot when it ended.
    pub ended_ms: u64,
}

/// A checkpoint of the audit log: its size and root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSeen {
    /// Number of records.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: Digest,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// It did what it should.
    Succeeded,
    /// It failed and `on_failure = "warn"` lets the job go on.
    Warned,
    /// It failed.
    Failed,
    /// It did not begin, with the reason in the summary: `when` false, cancelled, or an earlier step failed.
    Skipped,
}

impl StepState {
    /// The word as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Warned => "warned",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// The report on one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step's id in the procedure.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its action, as in `uses`.
    pub action: String,
    /// How it ended.
    pub state: StepState,
    /// Why it did not succeed, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<EndCause>,
    /// Wall time of the start; none when it was skipped.
    pub started: Option<Timestamp>,
    /// Milliseconds it took, all tries and waits together.
    pub took_ms: u64,
    /// Tries that were made.
    pub tries: u32,
    /// SHA-256 of all that the step printed, whether or not it was kept; none when it printed nothing, or
    /// when an agent's restart lost count of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Digest>,
    /// What was kept of its output, where that is too long to be kept as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_kept: Option<KeptOutput>,
    /// What the task says.
    #[serde(flatten)]
    pub body: TaskReport,
}

impl StepReport {
    /// The digest that the step's output has as the node sends it: nothing else is its output.
    pub fn sent_output(&self) -> Option<Digest> {
        self.output_kept.as_ref().map(|kept| kept.digest).or(self.output)
    }
}

/// Head and tail of a long output, with a mark between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptOutput {
    /// Bytes between head and tail that were not kept.
    pub left_out: u64,
    /// SHA-256 of head, mark and tail.
    pub digest: Digest,
}

/// Code of a problem that says: nobody could look. It is neither good nor bad news about its subject.
pub const NOT_AVAILABLE: &str = "not_available";

/// What any task says: the uniform parts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TaskReport {
    /// One line for tables.
    pub summary: String,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// What was altered, or would be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Measurements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// Files that were made or checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// The last of what a program printed, at most [`MAX_OUTPUT_TAIL_BYTES`], made valid UTF-8.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output_tail: String,
}

/// Something is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// Stable word for programs, such as `disk_used` or `unreadable_file`.
    pub code: String,
    /// What it concerns: a check id, a path, a unit.
    pub subject: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What was seen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// Something was altered, or would be (in a plan).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What: a path, a unit, a setting.
    pub subject: String,
    /// What was done to it: `created`, `deleted`, `restarted`, …
    pub action: String,
    /// Before, where that can be said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub before: String,
    /// After.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub after: String,
}

/// A measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Metric, such as `memory_used` or `network_sent_rate`.
    pub metric: String,
    /// What it was measured on: an interface, a mount point; empty for the node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// The value.
    pub value: f64,
    /// Its unit: `percent`, `bytes`, `bytes_per_second`, `seconds`, `count`, `score`.
    pub unit: String,
}

/// A file that a task made or checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// What it is: `backup`, `report`.
    pub kind: String,
    /// The declared id: of the backup or the report.
    pub name: String,
    /// Path on the node.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest of the file.
    pub sha256: Digest,
    /// When it was made.
    pub made: Timestamp,
    /// Tag, such as the run that asked for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
    /// Verified after writing?
    pub verified: bool,
    /// Its encrypted copy, which goes to the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<ArtifactCopy>,
}

/// An encrypted copy of a file, on its way off the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactCopy {
    /// Where it lies on the node until the controller has it.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Digest of the encrypted file.
    pub sha256: Digest,
    /// Days that copies are kept, as the profile says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_days: Option<u32>,
    /// Copies that are kept; with both, both must agree before one goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_count: Option<u32>,
}
