//! The gate: from checked parts to admitted work, or to the reasons against it.
//!
//! [`Admitted`] can be made in here only, and a run can be made from it only. Pure.

use std::sync::Arc;

use fleet_types::plan::NodePlan;
use fleet_types::request::{Request, Verb};

use super::judge::{NodeConditions, judge};
use super::local::{LocalPolicy, Mode};
use super::refusal::Refusal;
use crate::resolve::{Resolution, ResolveInput, resolve};

/// What asks to be admitted: its authority has been checked.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The request.
    pub request: &'a Request,
    /// What to resolve.
    pub input: ResolveInput<'a>,
}

/// Work that may be carried out.
#[derive(Debug, Clone)]
pub struct Admitted {
    verb: Verb,
    resolution: Resolution,
    against: Vec<Refusal>,
    bound: Option<Bound>,
}

/// The plan that a start is bound to; or why it is not to be had any more.
pub type Bound = Result<Arc<NodePlan>, String>;

impl Admitted {
    /// What is asked for.
    pub const fn verb(&self) -> Verb {
        self.verb
    }

    /// The resolved procedure.
    pub const fn resolution(&self) -> &Resolution {
        &self.resolution
    }

    /// The same, bound to a plan.
    #[must_use]
    pub fn bound_to(self, bound: Option<Bound>) -> Self {
        Self { bound, ..self }
    }

    /// What a start is bound to; none where it does whatever it finds.
    pub const fn bound(&self) -> Option<&Bound> {
        self.bound.as_ref()
    }

    /// For a plan: what would be said to a run of it.
    pub fn against(&self) -> &[Refusal] {
        &self.against
    }

    /// Does it change the node? A plan never does.
    pub fn changes(&self) -> bool {
        self.verb == Verb::Run && self.resolution.changes()
    }

    /// Does it count as disruptive?
    pub fn is_disruptive(&self) -> bool {
        self.verb == Verb::Run && self.resolution.is_disruptive()
    }

    /// Takes up what was admitted before a restart: it began, so its way on or back is not refused by local
    /// policy any more (security-and-delivery §1.17); what cannot be resolved any more is.
    pub fn again(verb: Verb, input: &ResolveInput<'_>) -> Result<Self, Vec<Refusal>> {
        let resolution = resolve(input);
        let against = resolution.refusals.clone();
        if verb == Verb::Run && !against.is_empty() {
            return Err(against);
        }
        Ok(Self { verb, resolution, against, bound: None })
    }
}

/// What the gate says.
pub type Verdict = Result<Admitted, Vec<Refusal>>;

/// Resolves the candidate and holds it against local policy, once for all its steps.
///
/// A plan is admitted with the reasons that a run of it would meet, except where nothing from a controller
/// is taken at all.
pub fn admit(candidate: &Candidate<'_>, policy: &LocalPolicy, conditions: &NodeConditions) -> Verdict {
    let resolution = resolve(&candidate.input);
    let mut against = resolution.refusals.clone();
    against.extend(judge(&resolution, policy, conditions, &candidate.input.node.labels));
    let verb = candidate.request.verb;
    let open = match verb {
        Verb::Run => against.is_empty(),
        Verb::Plan => policy.mode != Mode::Locked,
    };
    if open { Ok(Admitted { verb, resolution, against, bound: None }) } else { Err(against) }
}
