//! What a schedule calls: its procedure with profile and rollout policy, and whether somebody can be asked to sign for it.
//!
//! Pure, and the same for who signs and who takes the signature. Whether the documents were applied, and whom the
//! signature is of, is looked at by others.

use std::time::Duration;

use crate::action::BUILT;
use crate::document::procedure::{Order, Procedure, StepKind};
use crate::document::profile::Profile;
use crate::document::rollout_policy::{Ring, RolloutPolicy};
use crate::document::schedule::Schedule;
use crate::standing_order;

/// The documents that a schedule names.
#[derive(Debug, Clone, Copy)]
pub struct Called<'a> {
    /// Its procedure.
    pub procedure: &'a Procedure,
    /// The profile of the procedure.
    pub profile: &'a Profile,
    /// Its rollout policy.
    pub policy: Option<&'a RolloutPolicy>,
}

/// The words for the nodes: of the schedule, else of the procedure, else of the profile. `None` where none of them says any.
pub fn selector(schedule: &Schedule, called: &Called<'_>) -> Option<String> {
    let written = [&schedule.selector, &called.procedure.selector, &called.profile.selector];
    written.into_iter().flatten().next().map(ToString::to_string)
}

/// Why nobody can sign for this schedule; empty where they can. Each is a sentence about what stands in a document.
pub fn why_not(schedule: &Schedule, called: &Called<'_>) -> Vec<String> {
    let mut why = Vec::new();
    let Called { procedure, profile, policy } = called;
    if procedure.name != schedule.procedure {
        why.push(format!("it calls procedure \"{}\", not \"{}\"", schedule.procedure, procedure.name));
    }
    if procedure.profile != profile.name {
        why.push(format!("procedure \"{}\" belongs to profile \"{}\"", procedure.name, procedure.profile));
    }
    if selector(schedule, called).is_none() {
        why.push("neither it, nor its procedure, nor the profile says which nodes it is for".to_owned());
    }
    match (&schedule.rollout_policy, policy) {
        (Some(named), Some(policy)) if *named == policy.name => rollout(schedule, policy, &mut why),
        (Some(named), _) => why.push(format!("its rollout policy is \"{named}\"")),
        (None, Some(_)) => why.push("it names no rollout policy".to_owned()),
        (None, None) if procedure.changes => {
            why.push(format!(
                "procedure \"{}\" changes nodes, and no rollout policy is named",
                procedure.name
            ));
        }
        (None, None) => {}
    }
    why.extend(not_carried_out(procedure));
    why
}

fn rollout(schedule: &Schedule, policy: &RolloutPolicy, why: &mut Vec<String>) {
    let missing = policy.not_built();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        why.push(format!(
            "rollout policy \"{}\" asks for what this build does not do: {missing}",
            policy.name
        ));
    }
    let (needs, window) = (policy.before_last_ring(), standing_order::window(schedule));
    if needs >= window {
        why.push(format!(
            "the rings of rollout policy \"{}\" soak and are judged for {} s, and the window is {} s",
            policy.name,
            needs.as_secs(),
            window.as_secs()
        ));
    }
}

/// What no node of this release carries out. A step with a condition may be skipped on each node, which says so itself.
fn not_carried_out(procedure: &Procedure) -> Vec<String> {
    let mut why = Vec::new();
    if procedure.order == Order::Lockstep {
        why.push("order = \"lockstep\" is not built".to_owned());
    }
    let steps = procedure.steps.iter().filter(|step| step.when.is_none());
    let manual: Vec<&str> =
        steps.filter(|step| step.kind == StepKind::Manual).map(|step| step.id.as_str()).collect();
    if !manual.is_empty() {
        why.push(format!("nobody can be asked to sign off yet: manual steps {}", manual.join(", ")));
    }
    let uses = procedure.steps.iter().filter_map(|step| step.uses.as_deref());
    let undo = procedure.rollback.iter().chain(&procedure.finally).map(|undo| undo.uses.as_str());
    let mut missing: Vec<&str> = uses.chain(undo).filter(|uses| !BUILT.contains(uses)).collect();
    missing.sort_unstable();
    missing.dedup();
    if !missing.is_empty() {
        why.push(format!("actions that are not built: {}", missing.join(", ")));
    }
    why
}

impl RolloutPolicy {
    /// What passes at least before the last ring may begin: every other one soaks and is judged.
    pub fn before_last_ring(&self) -> Duration {
        let soaks = self.rings.iter().rev().skip(1).map(Ring::soaks_for);
        let lengths = soaks.map(|soak| soak.saturating_add(self.gates_shortest()));
        lengths.fold(Duration::ZERO, Duration::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schedule(more: &serde_json::Value) -> Schedule {
        let mut value = json!({"id": "daily", "procedure": "daily", "cron": "0 2 * * *", "window": "2h"});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    fn procedure(more: &serde_json::Value) -> Procedure {
        let mut value = json!({"schema": "fleet/v1", "name": "daily", "version": 1, "profile": "edge",
            "changes": false, "timeout": "10m",
            "step": [{"id": "look", "kind": "task", "uses": "disk.report"}]});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    fn profile(selector: Option<&str>) -> Profile {
        let mut value = json!({"schema": "fleet/v1", "name": "edge", "version": 1});
        if let Some(selector) = selector {
            value["selector"] = selector.into();
        }
        serde_json::from_value(value).unwrap()
    }

    fn policy(soak: &str) -> RolloutPolicy {
        serde_json::from_value(json!({"schema": "fleet/v1", "name": "careful", "ring": [
            {"name": "first", "selector": "ring=0", "soak": soak}, {"name": "all", "selector": "*"}]}))
        .unwrap()
    }

    #[test]
    fn the_nodes_are_those_of_the_narrowest_text_that_says_any() {
        let profile = profile(Some("product=edgefw"));
        let (own, of_procedure) = (json!({"selector": "site=a"}), json!({"selector": "site=b"}));
        for (schedule, procedure, expected) in [
            (schedule(&own), procedure(&of_procedure), "site=a"),
            (schedule(&json!({})), procedure(&of_procedure), "site=b"),
            (schedule(&json!({})), procedure(&json!({})), "product=edgefw"),
        ] {
            let called = Called { procedure: &procedure, profile: &profile, policy: None };
            assert_eq!(selector(&schedule, &called).as_deref(), Some(expected));
            assert_eq!(why_not(&schedule, &called), [""; 0]);
        }
    }

    #[test]
    fn what_nobody_can_sign_for_is_named() {
        let (all, edge) = (profile(None), profile(Some("product=edgefw")));
        let none = json!({});
        let manual = json!({"step": [{"id": "ask", "kind": "manual", "prompt": "ok?", "role": "operator",
            "expires": "1h"}]});
        let not_built = json!({"step": [{"id": "x", "kind": "task", "uses": "approval.wait"}]});
        let changes = json!({"changes": true});
        let named = json!({"rollout_policy": "careful"});
        let (short, long) = (policy("10m"), policy("2h"));
        for (more, text, profile, policy, expected) in [
            (&none, &none, &all, None, "which nodes"),
            (&none, &json!({"name": "other"}), &edge, None, "not \"other\""),
            (&none, &json!({"profile": "other"}), &edge, None, "profile \"other\""),
            (&none, &changes, &edge, None, "no rollout policy is named"),
            (&none, &none, &edge, Some(&short), "names no rollout policy"),
            (&named, &changes, &edge, None, "policy is \"careful\""),
            (&named, &changes, &edge, Some(&long), "the window is 7200 s"),
            (&none, &manual, &edge, None, "manual steps ask"),
            (&none, &not_built, &edge, None, "approval.wait"),
            (&none, &json!({"order": "lockstep"}), &edge, None, "lockstep"),
        ] {
            let (schedule, procedure) = (schedule(more), procedure(text));
            let why = why_not(&schedule, &Called { procedure: &procedure, profile, policy });
            assert!(why.len() == 1 && why[0].contains(expected), "{expected}: {why:?}");
        }
        let (schedule, procedure) = (schedule(&named), procedure(&changes));
        let called = Called { procedure: &procedure, profile: &edge, policy: Some(&short) };
        assert_eq!(why_not(&schedule, &called), [""; 0]);
    }
}
