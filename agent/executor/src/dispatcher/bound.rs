//! The plan that a start is bound to: this node's own, from its own report, and among those that the operator signed.
//!
//! Whether the node still finds the same to do is asked by the run before each step. Must not plan anew. Called at
//! intake and recovery.

use std::sync::Arc;

use fleet_types::canonical;
use fleet_types::plan::NodePlan;
use fleet_types::request::{BoundPlan, Request};

use super::state::Dispatcher;
use crate::policy::{Bound, Refusal};
use crate::resolve::Resolution;

/// What to do about any of it.
const PLAN_AGAIN: &str = "plan again, look at the plan, then start that one";

impl Dispatcher {
    /// The plan of a request that binds one, checked against it.
    pub(super) fn bound_plan(&self, request: &Request) -> Result<Option<NodePlan>, Refusal> {
        let Some(bound) = &request.plan else { return Ok(None) };
        let (asked, plan) = self
            .kept_plan(bound)
            .ok_or_else(|| unknown(format!("this node does not keep a plan of run {}", bound.run)))?;
        let documents = (plan.procedure, plan.profile) == (request.procedure, request.profile);
        if !documents || asked.params != request.params {
            let message =
                format!("run {} planned other documents or parameters than this one starts", bound.run);
            return Err(Refusal::new("plan-other", message, PLAN_AGAIN));
        }
        if plan.digest().is_none_or(|digest| bound.digests.binary_search(&digest).is_err()) {
            let message = format!(
                "what this node planned in run {} is not among what the operator saw and signed",
                bound.run
            );
            return Err(Refusal::new(
                "plan-other",
                message,
                "look for somebody between operator and controller",
            ));
        }
        Ok(Some(plan))
    }

    /// The same after a restart: what has begun goes on its way, or back, without it.
    pub(super) fn bound_again(&self, request: &Request) -> Option<Bound> {
        self.bound_plan(request).map_err(|refusal| refusal.message).transpose().map(|plan| plan.map(Arc::new))
    }

    /// The newest plan of that run and what it was asked with.
    fn kept_plan(&self, bound: &BoundPlan) -> Option<(Request, NodePlan)> {
        let ended = self.parts.table.iter().filter(|((run, _), _)| *run == bound.run);
        let finished = ended.filter_map(|(_, job)| job.finished.clone()).max_by_key(|end| end.sequence)?;
        let plan = self.report_of(&finished)?.plan?;
        let asked = self.parts.documents.load(finished.authority.digest())?;
        Some((canonical::from_slice(&asked.payload).ok()?, plan))
    }
}

/// Are the steps that would be passed over those of the plan? Facts decide it, and facts change.
pub(super) fn check_skipped(plan: &NodePlan, resolution: &Resolution) -> Result<(), Refusal> {
    let planned = plan.steps.iter().map(|step| (&step.id, step.skipped.is_some()));
    let now = resolution.steps.iter().map(|step| (&step.id, step.skipped.is_some()));
    match planned.zip(now).find(|(planned, now)| planned != now) {
        Some(((id, true), _)) => Err(changed(format!("step {id} was to be skipped, and now is not"))),
        Some(((id, false), _)) => Err(changed(format!("step {id} was to run, and now would be skipped"))),
        None => Ok(()),
    }
}

fn unknown(message: String) -> Refusal {
    Refusal::new("plan-unknown", message, PLAN_AGAIN)
}

fn changed(message: String) -> Refusal {
    Refusal::new("plan-changed", message, PLAN_AGAIN)
}
