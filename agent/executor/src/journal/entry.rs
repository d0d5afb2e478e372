//! What the journal's entries say.
//!
//! Their names are those of security-and-delivery §2.5. Entries hold what a restart needs and nothing that
//! can be read again elsewhere: documents are kept by digest in their own store. Called by the journal.

use fleet_types::assignment::Assignment;
use fleet_types::authority::Authority;
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, RunId, Stage};
use fleet_types::job::{EndCause, Outcome};
use fleet_types::report::StepReport;
use fleet_types::request::Verb;
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

/// One entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// A job is this node's to carry out: every check has passed.
    Accepted(Box<Accepted>),
    /// A try of a step is about to begin.
    StepBegin {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: Attempt,
        /// The step's id.
        step: String,
        /// Number of the try, from 1.
        #[serde(rename = "try")]
        try_number: u32,
        /// What its undo will need; null for a step that changes nothing.
        undo: serde_json::Value,
        /// Wall time, for the report.
        at: Timestamp,
        /// The same on boot time; none in entries of older agents.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        boot: Option<BootTime>,
    },
    /// A step has ended, after its last try.
    StepEnd {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: Attempt,
        /// What it said.
        report: Box<StepReport>,
    },
    /// The job has ended; its report lies in the report store.
    Finished(Box<Finished>),
    /// The controller has stored the report.
    Acked {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: Attempt,
    },
    /// The job is given up before anything began; a new attempt may be made.
    Abandoned {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: Attempt,
        /// When, so that it is forgotten again.
        at: Timestamp,
    },
    /// The job was cancelled: before its assignment came, or while it was under way.
    Tombstone {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: Attempt,
        /// Why, as the operator wrote it.
        reason: String,
        /// When, so that it is forgotten again.
        at: Timestamp,
    },
    /// The guard holds what would put the step back.
    GuardArmed {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: Attempt,
        /// The step's id.
        step: String,
    },
    /// The guarded change is made and verified; it waits to be confirmed.
    Applied {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: Attempt,
        /// The step's id.
        step: String,
    },
    /// A new connection to a controller confirmed the change: it stays.
    Confirmed {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: Attempt,
        /// The step's id.
        step: String,
        /// Which controller, or which witness.
        by: String,
    },
    /// The machine is about to be restarted; done when the boot id has changed.
    RebootRequested {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: Attempt,
        /// The step that asks for it.
        step: String,
        /// Boot id before it.
        boot_id: String,
    },
}

/// An instant on boot time, which no set clock can move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootTime {
    /// Id of the boot.
    pub id: String,
    /// Milliseconds since it.
    pub ms: u64,
}

/// The essentials of an accepted job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// What the controller sent.
    pub assignment: Assignment,
    /// What is asked for.
    pub verb: Verb,
    /// Digest of the procedure; where the gates of a rollout are asked, of its policy.
    pub procedure: Digest,
    /// Digest of the profile.
    pub profile: Digest,
    /// Does it change the node? Such jobs go one at a time.
    pub changes: bool,
    /// Does it count as disruptive for local policy?
    pub disruptive: bool,
    /// Start of the job: the time of `{timestamp}`.
    pub started: Timestamp,
    /// End of the request; the job is remembered past it.
    pub request_ends: Timestamp,
    /// Boot id at the start.
    pub boot_id: String,
    /// Milliseconds since that boot.
    pub boot_ms: u64,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// The run.
    pub run: RunId,
    /// The stage of the job.
    #[serde(default, skip_serializing_if = "Stage::is_first")]
    pub stage: Stage,
    /// The attempt.
    pub attempt: Attempt,
    /// Why it could run.
    #[serde(flatten)]
    pub authority: Authority,
    /// Digest of the report.
    pub report: Digest,
    /// The report's number.
    pub sequence: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<EndCause>,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// End of the request; the job is remembered past it.
    pub request_ends: Timestamp,
}

impl Entry {
    /// The job that it is about.
    pub fn job(&self) -> (RunId, Attempt) {
        match self {
            Self::Accepted(a) => (a.assignment.job.run, a.assignment.attempt),
            Self::Finished(f) => (f.run, f.attempt),
            Self::StepBegin { run, attempt, .. }
            | Self::StepEnd { run, attempt, .. }
            | Self::Acked { run, attempt }
            | Self::Abandoned { run, attempt, .. }
            | Self::Tombstone { run, attempt, .. }
            | Self::GuardArmed { run, attempt, .. }
            | Self::Applied { run, attempt, .. }
            | Self::Confirmed { run, attempt, .. }
            | Self::RebootRequested { run, attempt, .. } => (*run, *attempt),
        }
    }
}
