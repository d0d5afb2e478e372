//! What a task is: the two traits, what a task is handed, and how it may fail.
//!
//! A task reads the machine and changes it through [`Host`] only; it holds no state of its own, starts no
//! process by itself and knows nothing of the network or the journal; of policy it has the rules that it is
//! handed. Called by the run alone. Tasks are blocking code on a thread of their own; the run bounds them by the
//! step's deadline, which they see as `deadline` and honour between parts of their work, as they do `cancel`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fleet_types::document::profile::Profile;
use fleet_types::facts::NodeFacts;
use fleet_types::id::{Attempt, Name, NodeId, RunId};
use fleet_types::label::Labels;
use fleet_types::report::{Change as ReportedChange, TaskReport};
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::policy::PackageRules;

/// Parameter of the actions about services: their ids in the profile.
pub const SERVICES: &str = "services";

/// Set by a cancel; looked at between parts of the work.
#[derive(Debug, Clone, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// Asks the work to stop at the next safe point.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Has it been asked to stop?
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Where a task's output goes while it runs. Must never block for long: progress is dropped before results.
pub trait OutputSink: Send + Sync {
    /// Takes a piece of output, in order.
    fn write(&self, bytes: &[u8]);
}

/// Who and what a step belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepIdentity {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub node_name: Name,
    /// Its labels, as an operator assigned them.
    pub labels: Labels,
    /// The attempt of the job.
    pub attempt: Attempt,
    /// The step's id; together with run, attempt and `try_number` it names the step's processes, so that
    /// they are found again after a crash.
    pub step: String,
    /// Number of this try of the step, from 1.
    pub try_number: u32,
    /// Start of the job: the time of `{timestamp}`, the same for all its steps and tries.
    pub job_started: Timestamp,
}

/// An undo that this job has noted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotedUndo {
    /// The step that noted it.
    pub step: String,
    /// Its action.
    pub action: String,
    /// What it noted.
    pub undo: serde_json::Value,
}

/// What a task knows of the job that it is part of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobView {
    /// Undos of the steps that began, this one's own among them, in the order in which they began.
    pub noted: Vec<NotedUndo>,
    /// Did this try begin in an earlier life of the executor?
    pub resumed: bool,
    /// What the node's owner allows of packages now.
    pub packages: PackageRules,
    /// The boot in which this step last had the machine restarted.
    pub restarted_from: Option<String>,
}

/// What a task is handed.
pub struct TaskContext<'a> {
    /// The machine.
    pub host: &'a dyn Host,
    /// The signed profile.
    pub profile: &'a Profile,
    /// Parameters of the action, with the step's placeholders filled in and defaults added.
    pub with: &'a BTreeMap<String, serde_json::Value>,
    /// Facts of the node.
    pub facts: &'a NodeFacts,
    /// Who and what it belongs to.
    pub step: &'a StepIdentity,
    /// Values of placeholders beside the profile's `[vars]`, such as `run.id` and parameters.
    pub placeholders: &'a BTreeMap<String, String>,
    /// The job that it is part of.
    pub job: &'a JobView,
    /// Output while it runs.
    pub output: &'a dyn OutputSink,
    /// Asked to stop?
    pub cancel: &'a CancelFlag,
    /// When the step's time is over.
    pub deadline: Instant,
}

/// What a task would do, without doing it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskPlan {
    /// One line.
    pub summary: String,
    /// Programs it would start.
    pub commands: Vec<Vec<String>>,
    /// What would change.
    pub changes: Vec<ReportedChange>,
    /// What would change moves by itself, by time or by what earlier steps do: a start is not bound to it.
    pub moves: bool,
}

/// Why a task failed. Everything it learnt until then goes into the report beside it.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A parameter or the profile makes the step impossible: nothing was done.
    #[error("{0}")]
    Declared(String),
    /// The work failed; what was found stands in the report.
    #[error("{message}")]
    Failed {
        /// What failed, for the job's reason.
        message: String,
        /// What is known all the same.
        report: Box<TaskReport>,
        /// May the same step be tried again, and as what: `network`, `lock_busy`, `timeout`.
        retry: Option<RetryKind>,
    },
    /// Asked to stop, and stopped without leaving anything half-done; what was done until then stands in the
    /// report.
    #[error("stopped on request")]
    Cancelled(Box<TaskReport>),
    /// An effect began and nobody can say whether it happened (security-and-delivery §2.1).
    #[error("{message}")]
    OutcomeUnknown {
        /// What is not known, for the job's reason.
        message: String,
        /// What is known all the same.
        report: Box<TaskReport>,
        /// May the same step be tried again all the same, where its author asks for that by name.
        retry: Option<RetryKind>,
    },
    /// All is ready for it: the machine is to be restarted now. The task is called again in the next boot and learns
    /// of it by [`JobView::restarted_from`].
    #[error("the machine is to be restarted")]
    Restart,
}

/// Kinds of failure that `retries.only_on` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryKind {
    /// The network.
    Network,
    /// A lock held by another program.
    LockBusy,
    /// The time limit of one try.
    Timeout,
}

impl TaskError {
    /// A failure with a report of what was found.
    pub fn failed(message: impl Into<String>, report: TaskReport) -> Self {
        Self::Failed { message: message.into(), report: Box::new(report), retry: None }
    }

    /// A stop on request before anything was done.
    pub fn cancelled() -> Self {
        Self::Cancelled(Box::default())
    }
}

/// A task that only reads. Safe in plans, gates and after a crash: it is simply done again.
pub trait Inspect: Send + Sync {
    /// What it would read.
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError>;

    /// Reads and says what it found. `Err(Failed)` is a verdict: the node is not as it should be.
    fn inspect(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError>;
}

/// What a way back can do about a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reversal {
    /// Nothing: what it changed stays changed, unless a `[[rollback]]` entry undoes it.
    None,
    /// There is nothing to put back: it adds something that is meant to stay, as an archive is.
    Stays,
    /// It is meant to stay, and `revert` puts back what `undo` noted only where a guard was not confirmed.
    GuardOnly,
    /// `revert` puts back what `undo` noted.
    Stored,
}

/// How a change leaves the services that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// They are not to run until another step starts them.
    Down,
    /// They are to run.
    Up,
}

/// A task that changes the node.
///
/// `apply` is idempotent for the same step, or finds out by itself what an interrupted try left behind
/// (archives by their name, processes by their unit); it is called again after a crash between
/// `step_begin` and `step_end`. Where it cannot know, it says [`TaskError::OutcomeUnknown`].
pub trait Change: Send + Sync {
    /// The dry run and the diff: reads only.
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError>;

    /// What a way back can do about it.
    fn reversal(&self) -> Reversal;

    /// How it leaves the services of its parameter [`SERVICES`]; none of an action that is not about services.
    fn leaves(&self) -> Option<Leaves> {
        None
    }

    /// What `revert` will need, made before anything changes and kept in the undo store; asked of tasks with a
    /// stored undo only.
    fn undo(&self, _context: &TaskContext<'_>) -> Result<serde_json::Value, TaskError> {
        Ok(serde_json::Value::Null)
    }

    /// Does it and verifies that it is done.
    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError>;

    /// Makes lasting what a guarded `apply` left to be confirmed; doing it twice changes nothing the second time.
    fn keep(&self, _context: &TaskContext<'_>, _undo: &serde_json::Value) -> Result<(), TaskError> {
        Ok(())
    }

    /// Puts back what `undo` noted, and verifies it. Applying it twice changes nothing the second time.
    fn revert(&self, _context: &TaskContext<'_>, _undo: &serde_json::Value) -> Result<TaskReport, TaskError> {
        Err(TaskError::Declared("this action has no undo of its own".to_owned()))
    }
}

/// A task of the registry.
#[derive(Clone, Copy)]
pub enum Task {
    /// It only reads.
    Inspect(&'static dyn Inspect),
    /// It changes the node.
    Change(&'static dyn Change),
}
