//! A node plan: a procedure resolved by one node. Nobody else makes one (design, "The node alone resolves").
//!
//! It travels inside a report, so fields that a reader does not know are passed over, as there.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::NodeId;
use crate::report::{Change, Problem};

/// Schema of the plans of this release.
pub const PLAN_SCHEMA: &str = "fleet/v1/node-plan";

/// What one node would do. Its digest binds a later start to exactly this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    /// [`PLAN_SCHEMA`].
    pub schema: String,
    /// The node that resolved it.
    pub node: NodeId,
    /// The procedure's digest.
    pub procedure: Digest,
    /// The profile's digest.
    pub profile: Digest,
    /// Would anything on the node change?
    pub changes: bool,
    /// Steps that would change the node and that nothing undoes: a run that fails after them ends as `failed`,
    /// never as `rolled_back`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cannot_undo: Vec<String>,
    /// The steps in order.
    pub steps: Vec<PlannedStep>,
    /// Why the node would refuse to start it, each with the rule; empty when it would start.
    pub refusals: Vec<Problem>,
}

/// One step of a node plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// The step's id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its action.
    pub action: String,
    /// Why it would be skipped; none when it would run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// One line: what it would do.
    pub summary: String,
    /// Programs it would start, by argv.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Vec<String>>,
    /// What would change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}
