//! The procedure: ordered steps, the way back, and what always runs last.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::expr::When;
use super::ids::{Id, Key};
use super::kind::SchemaVersion;
use super::param::ParamSpec;
use super::profile::Paper;
use super::schema::JsonSchema;
use super::value::{Value, is_false};
use crate::id::Name;
use crate::label::Selector;
use crate::time::Span;

/// The parameters of an action, by name.
pub type With = BTreeMap<String, Value>;

/// Ordered steps, the way back, and what always runs last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Procedure {
    /// Schema of the file.
    pub schema: SchemaVersion,
    /// Its name.
    pub name: Name,
    /// Raised on every change.
    #[schemars(range(min = 1))]
    pub version: u32,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The profile whose ids it uses.
    pub profile: Name,
    /// The procedure may run on these nodes only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "nodes of the profile"))]
    pub selector: Option<Selector>,
    /// `false`: changes nothing, may run at any time.
    pub changes: bool,
    /// `lockstep`: all nodes finish step n before n+1.
    #[serde(default)]
    pub order: Order,
    /// Working time of the whole.
    pub timeout: Span,
    /// Everything runs, and a warning makes the run fail at its end.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fail_if_warnings: bool,
    /// The paper it was written from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "that of the profile"))]
    pub document: Option<Paper>,
    /// Whether a start outside a window may be approved.
    #[serde(default)]
    #[schemars(extend("x-idle" = "there are no windows"))]
    pub override_windows: OverrideWindows,
    /// Text copy of the run's log on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "path", "x-idle" = crate::idle::NO_LOG_FILE))]
    pub log_file: Option<String>,
    /// Typed parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<Key, ParamSpec>,
    /// The steps in order.
    #[serde(default, rename = "step", skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The way back, in the order written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-without" = ["except"]))]
    pub rollback: Vec<UndoStep>,
    /// What runs last on every outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finally: Vec<UndoStep>,
}

impl Procedure {
    /// The step with this id.
    pub fn step(&self, id: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == *id)
    }

    /// The longest that a job of it may take once it has begun: the working time, then the way back (its
    /// `[[rollback]]` entries, or without any the undo of every step, each within the step's limit), then the
    /// `[[finally]]` entries.
    pub fn longest(&self) -> Duration {
        let limits = |entries: &[UndoStep]| entries.iter().map(UndoStep::time_limit).sum::<Duration>();
        let way_back = if self.rollback.is_empty() {
            self.steps.iter().map(Step::time_limit).sum()
        } else {
            limits(&self.rollback)
        };
        self.timeout.length().saturating_add(way_back).saturating_add(limits(&self.finally))
    }
}

/// In which order nodes go through the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Each node for itself.
    #[default]
    PerNode,
    /// All nodes finish a step before any begins the next.
    #[schemars(extend("x-idle" = "a node refuses the procedure"))]
    Lockstep,
}

/// Whether a start outside a window may be approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverrideWindows {
    /// No.
    #[default]
    Never,
    /// With a second person's approval and a reason.
    WithApproval,
}

/// `task`: does something; gate: a condition that must hold; manual: a person signs off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its id, unique in the procedure.
    pub id: Id,
    /// What it is.
    pub kind: StepKind,
    /// Heading on the checklist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// Skipped, and shown as skipped, when false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// The action; none at a manual step.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "action"))]
    pub uses: Option<String>,
    /// The action's parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-takes" = "with"))]
    pub with: With,
    /// Working time, all attempts and their waits together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "10m"))]
    pub timeout: Option<Span>,
    /// Text copy of this step's log on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "path", "x-idle" = crate::idle::NO_LOG_FILE))]
    pub log_file: Option<String>,
    /// Dead-man switch: undone on the node unless confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// Further attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// What a failure does to the run.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// What the person is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Who may sign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<SignRole>,
    /// Once for all nodes, or once per node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "run"))]
    pub scope: Option<SignScope>,
    /// Distinct persons.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10), extend("default" = 1))]
    pub sign_offs: Option<u32>,
    /// Whether later steps wait for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "true when a changing step comes after it"))]
    pub wait: Option<bool>,
    /// What a sign-off must leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "none"))]
    pub evidence: Option<Evidence>,
    /// From the moment it is asked; independent of every timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Span>,
    /// From the start of the run; shown as a clock, fails nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
}

impl Step {
    /// Ten minutes (reference/procedure.toml).
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_mins(10);

    /// The working time of the step; zero for a manual one, which has its own clock.
    ///
    /// For `procedure.run` without a timeout the caller takes that of the called procedure instead.
    pub fn time_limit(&self) -> Duration {
        match (&self.timeout, self.kind) {
            (Some(timeout), _) => timeout.length(),
            (None, StepKind::Manual) => Duration::ZERO,
            (None, _) => Self::DEFAULT_TIMEOUT,
        }
    }
}

/// What a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Does or collects something.
    #[schemars(extend("x-needs" = [["uses"]], "x-may" = ["with", "timeout", "log_file", "guard", "retries"]))]
    Task,
    /// A condition that must hold.
    #[schemars(extend("x-needs" = [["uses"]], "x-may" = ["with", "timeout", "log_file", "guard", "retries"]))]
    Gate,
    /// A person signs off.
    #[schemars(extend(
        "x-needs" = [["prompt"], ["role"], ["expires"]],
        "x-may" = ["scope", "sign_offs", "wait", "evidence", "deadline"],
        "x-idle" = "a node refuses the procedure, because nobody can be asked yet"
    ))]
    Manual,
}

/// Dead-man switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// Undone unless confirmed within this time.
    pub confirm_within: Span,
}

/// Further attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retries {
    /// At most so many attempts after the first.
    #[schemars(range(min = 1, max = 10))]
    pub count: u32,
    /// Pause before each.
    pub wait: Span,
    /// Only after these kinds of failure.
    pub only_on: Vec<RetryOn>,
}

/// A kind of failure that is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// The network was not there.
    Network,
    /// Another program held a lock.
    LockBusy,
    /// An attempt ran out of its time.
    Timeout,
}

/// What a failure does to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Stop here; the run is failed.
    #[default]
    Abort,
    /// Note it, go on.
    Warn,
    /// Undo what began.
    Rollback,
}

/// Who may sign a manual step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SignRole {
    /// An operator.
    Operator,
    /// An approver.
    Approver,
    /// An auditor.
    Auditor,
    /// A security administrator.
    SecurityAdmin,
}

/// How often a manual step is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignScope {
    /// Once for all nodes.
    Run,
    /// Once a node.
    Node,
}

/// What a sign-off must leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Nothing.
    None,
    /// A text.
    Text,
    /// A link.
    Link,
    /// A file.
    File,
}

/// An entry of the way back, or one that runs last whatever came out; needs no guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UndoStep {
    /// Its id, unique in the procedure.
    pub id: Id,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// The action.
    #[schemars(extend("x-takes" = "action"))]
    pub uses: String,
    /// The action's parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-takes" = "with"))]
    pub with: With,
    /// Runs only if one of these steps began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-takes" = "step-id", "x-default" = "always, in finally"))]
    pub undoes: Vec<Id>,
    /// Working time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "10m"))]
    pub timeout: Option<Span>,
    /// Text copy of its log on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "path", "x-idle" = crate::idle::NO_LOG_FILE))]
    pub log_file: Option<String>,
    /// Outcomes after which it does not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<Outcome>,
}

impl UndoStep {
    /// The working time of the entry.
    pub fn time_limit(&self) -> Duration {
        self.timeout.as_ref().map_or(Step::DEFAULT_TIMEOUT, Span::length)
    }
}

/// An outcome named in `except`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All went well.
    Succeeded,
    /// With warnings.
    SucceededWithWarnings,
    /// It failed.
    Failed,
    /// It was undone.
    RolledBack,
    /// It could not be undone.
    RollbackFailed,
    /// It was cancelled.
    Cancelled,
}
