//! The node plan: what a resolved procedure would do here, asked of each task without doing it.
//!
//! Called by a run of verb `plan`, on its own thread: plans read the machine and may take a while.

use fleet_types::digest::Digest;
use fleet_types::id::NodeId;
use fleet_types::plan::{NodePlan, PLAN_SCHEMA, PlannedStep};

use super::resolution::{Resolution, ResolvedStep};
use crate::policy::Refusal;
use crate::tasks::{TaskError, TaskPlan};

/// Puts the plan together. `ask` calls a task's plan; what it fails with becomes a refusal, since the step
/// would fail the same way.
pub fn node_plan(
    node: NodeId,
    procedure: Digest,
    profile: Digest,
    resolution: &Resolution,
    refusals: &[Refusal],
    mut ask: impl FnMut(&ResolvedStep) -> Result<TaskPlan, TaskError>,
) -> NodePlan {
    let mut problems: Vec<_> = refusals.iter().map(Refusal::problem).collect();
    let mut steps = Vec::with_capacity(resolution.steps.len());
    for step in &resolution.steps {
        let mut planned = PlannedStep {
            id: step.id.clone(),
            title: step.title.clone(),
            action: step.action.clone(),
            skipped: step.skipped.clone(),
            summary: String::new(),
            commands: Vec::new(),
            changes: Vec::new(),
            moves: false,
        };
        if step.skipped.is_none() {
            match ask(step) {
                Ok(plan) => {
                    planned.summary = plan.summary;
                    planned.commands = plan.commands;
                    planned.changes = plan.changes;
                    planned.moves = plan.moves;
                }
                Err(error) => {
                    planned.summary = format!("cannot be planned: {error}");
                    let message = format!("step {}: {error}", step.id);
                    let refusal =
                        Refusal::new("plan-failed", message, "correct what it names, then plan again");
                    problems.push(refusal.problem());
                }
            }
        }
        steps.push(planned);
    }
    let changes = resolution.active().any(|step| step.effects.changes);
    NodePlan {
        schema: PLAN_SCHEMA.to_owned(),
        node,
        procedure,
        profile,
        changes,
        cannot_undo: resolution.nothing_undoes().map(|step| step.id.clone()).collect(),
        steps,
        refusals: problems,
    }
}
