//! A node plan: a procedure resolved by one node. Nobody else makes one (design, "The node alone resolves").
//!
//! It travels inside a report, so fields that a reader does not know are passed over, as there.

use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::digest::Digest;
use crate::id::NodeId;
use crate::report::{Change, Problem};

/// Schema of the plans of this release.
pub const PLAN_SCHEMA: &str = "fleet/v1/node-plan";

/// What one node would do. Its [`digest`](Self::digest) binds a later start to exactly this.
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
    /// What would change moves by itself, as sizes, ages and names with a time in them do: it is not part of the digest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moves: bool,
}

/// What is bound of a step.
#[derive(Serialize)]
struct BoundStep<'a> {
    id: &'a str,
    action: &'a str,
    skipped: bool,
    changes: &'a [Change],
}

impl NodePlan {
    /// The digest of what a start of this plan is bound to: documents, steps, which of them are skipped, and what each would
    /// change, less what moves by itself. Nodes that would do the same have the same. Programs are not in it: documents
    /// and parameters say which they are. None for a plan that cannot be written as canonical JSON.
    pub fn digest(&self) -> Option<Digest> {
        let steps: Vec<_> = self.steps.iter().map(BoundStep::of).collect();
        let bound = (&self.schema, self.procedure, self.profile, steps);
        canonical::to_vec(&bound).ok().map(|bytes| Digest::of(&bytes))
    }
}

impl<'a> BoundStep<'a> {
    fn of(step: &'a PlannedStep) -> Self {
        let changes: &[Change] = if step.moves { &[] } else { &step.changes };
        Self { id: &step.id, action: &step.action, skipped: step.skipped.is_some(), changes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(node: u128, after: &str, moves: bool) -> NodePlan {
        let change = Change {
            subject: "nginx".to_owned(),
            action: "upgraded".to_owned(),
            before: "1.0".to_owned(),
            after: after.to_owned(),
        };
        NodePlan {
            schema: PLAN_SCHEMA.to_owned(),
            node: NodeId::from_uuid(uuid::Uuid::from_u128(node)),
            procedure: Digest::of(b"procedure"),
            profile: Digest::of(b"profile"),
            changes: true,
            cannot_undo: Vec::new(),
            steps: vec![PlannedStep {
                id: "one".to_owned(),
                title: String::new(),
                action: "package.upgrade".to_owned(),
                skipped: None,
                summary: format!("on node {node}"),
                commands: Vec::new(),
                changes: vec![change],
                moves,
            }],
            refusals: Vec::new(),
        }
    }

    #[test]
    fn nodes_that_would_do_the_same_have_one_digest() {
        let first = plan(1, "1.1", false);
        assert_eq!(first.digest(), plan(2, "1.1", false).digest());
        assert_ne!(first.digest(), plan(1, "1.2", false).digest());
        assert_eq!(plan(1, "1.1", true).digest(), plan(1, "1.2", true).digest(), "what moves is not in it");
        let mut skips = first.clone();
        skips.steps[0].skipped = Some("not here".to_owned());
        assert_ne!(first.digest(), skips.digest());
    }
}
