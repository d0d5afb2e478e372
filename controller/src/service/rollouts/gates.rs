//! What must be so for the gates of a policy to say anything, before a rollout with them starts.
//!
//! A gate that could never say pass, or that would hold nothing back, is refused by name. Called when a rollout starts.

use std::time::Duration;

use fleet_rollout::LOST_GRACE;
use fleet_types::document::Id;
use fleet_types::document::gates::HEALTH_CHECK;
use fleet_types::document::profile::Profile;
use fleet_types::document::rollout_policy::RolloutPolicy;

use super::NAMED;
use crate::error::{ControllerError, Kind, Result};
use crate::fleet::node_cache::Known;

/// How long nodes may take to answer: what the gates take on a node, and as long as a node may be silent for before
/// anything else of it counts as lost. `None` without gates.
pub fn judging(policy: &RolloutPolicy) -> Option<Duration> {
    (!policy.gates.is_empty()).then(|| policy.gates_longest().saturating_add(LOST_GRACE))
}

/// Refuses gates that hold nothing back, look at checks that the profile does not have, or that a node cannot look at.
pub fn check(policy: &RolloutPolicy, profile: &Profile, nodes: &[Known]) -> Result<()> {
    if policy.gates.is_empty() {
        return Ok(());
    }
    let name = &policy.name;
    let refuse = |code, what| ControllerError::new(Kind::Blocked, code, what);
    if policy.rings.len() == 1 {
        let what = format!(
            "rollout policy \"{name}\" has gates and one ring: no ring comes after it that waits for them"
        );
        return Err(refuse("gates-hold-nothing", what)
            .fix("divide the nodes into rings, or start with a policy without gates"));
    }
    for (id, gate) in &policy.gates {
        let named = gate.checks().unwrap_or_else(|| profile.checks.keys().map(Id::as_str).collect());
        let unknown = named.iter().find(|check| !profile.checks.contains_key(**check));
        let what = match unknown {
            Some(check) => format!(
                "gate \"{id}\" asks for check \"{check}\", which profile \"{}\" does not have",
                profile.name
            ),
            None if named.is_empty() => {
                format!("gate \"{id}\" asks for the checks of profile \"{}\", which has none", profile.name)
            }
            None => continue,
        };
        return Err(
            refuse("gate-without-check", what).fix("declare the check in the profile, or correct the gate")
        );
    }
    // A node that never connected cannot say what it has; it refuses by itself.
    let has_it =
        |known: &&Known| known.actions.is_empty() || known.actions.iter().any(|has| has == HEALTH_CHECK);
    let lacking: Vec<String> =
        nodes.iter().filter(|known| !has_it(known)).map(|known| known.record.name.to_string()).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let what = format!("{} nodes cannot carry out {HEALTH_CHECK}, by which they are judged", lacking.len());
    let mut error = refuse("nodes-not-ready", what);
    error.detail.causes = lacking.into_iter().take(NAMED).collect();
    Err(error.fix("upgrade their agents, or leave them out"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{TestContext, enrolled};

    fn policy(rings: &[&str], checks: &serde_json::Value) -> RolloutPolicy {
        let rings: Vec<_> = rings.iter().map(|name| json!({"name": name, "selector": "*"})).collect();
        let gate = json!({"uses": HEALTH_CHECK, "with": {"checks": checks, "stable_for": "10m"}});
        let policy =
            json!({"schema": "fleet/v1", "name": "careful", "ring": rings, "gate": {"health": gate}});
        serde_json::from_value(policy).unwrap()
    }

    fn profile(checks: &serde_json::Value) -> Profile {
        let profile = json!({"schema": "fleet/v1", "name": "edge", "version": 1, "check": checks});
        serde_json::from_value(profile).unwrap()
    }

    #[tokio::test]
    async fn gates_that_hold_nothing_back_or_could_never_pass_are_refused_before_the_start() {
        let test = TestContext::new().await;
        let agent = enrolled(&test.context, 1).await;
        let node = test.context.memory.node_cache.get(agent.node).unwrap();
        let disk = json!({"disk": {"kind": "disk_used", "path": "/", "every": "1m"}});
        let (two, all) = (["canary", "rest"], json!("all"));
        for (rings, asked, checks, actions, code) in [
            (&two[..], &all, &disk, &[HEALTH_CHECK][..], None),
            (&two[..], &json!(["disk"]), &disk, &[], None),
            (&two[..1], &all, &disk, &[], Some("gates-hold-nothing")),
            (&two[..], &json!(["gone"]), &disk, &[], Some("gate-without-check")),
            (&two[..], &all, &json!({}), &[], Some("gate-without-check")),
            (&two[..], &all, &disk, &["backup.run"], Some("nodes-not-ready")),
        ] {
            let mut node = node.clone();
            node.actions = actions.iter().map(|action| (*action).to_owned()).collect();
            let refused = check(&policy(rings, asked), &profile(checks), &[node]);
            assert_eq!(refused.map_err(|error| error.detail.code.clone()).err().as_deref(), code);
        }
        let judging = judging(&policy(&two, &all));
        assert_eq!(judging, Some(Duration::from_mins(10 + 5) + LOST_GRACE), "its time, a look, and silence");
    }
}
