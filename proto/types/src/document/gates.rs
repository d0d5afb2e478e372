//! The gates of a rollout policy that this build judges, and the work on a node that they are.
//!
//! Controller and node ask the same functions, so that what a node looks at is what the policy was signed for. Must
//! never make work that could change a node. Called by the controller when a rollout starts, and by the node's policy.

use std::time::Duration;

use super::SchemaVersion;
use super::ids::Id;
use super::procedure::{OnFailure, Order, OverrideWindows, Procedure, Step, StepKind, With};
use super::rollout_policy::{Gate, RolloutPolicy};
use crate::id::Name;
use crate::time::Span;

/// The action of the gates that are judged: the checks of the node's profile.
pub const HEALTH_CHECK: &str = "health.check";

/// What the checks themselves may take beside `stable_for`: each has a limit of its own, of seconds, and they go side by
/// side; a node that is at work looks five minutes late at most.
const LOOK_LIMIT: Duration = Duration::from_mins(5);

impl Gate {
    /// For how long what it looks at must have been so; `None` where that is no duration.
    pub fn stable_for(&self) -> Option<Duration> {
        match self.with.get("stable_for") {
            None => Some(Duration::ZERO),
            Some(value) => value.as_str()?.parse::<Span>().ok().map(|span| span.length()),
        }
    }

    /// The ids of the checks that it names; none for all of the profile.
    pub fn checks(&self) -> Option<Vec<&str>> {
        self.with
            .get("checks")
            .filter(|value| value.as_str() != Some("all"))
            .map(|value| value.as_strings().unwrap_or_else(|| value.as_str().into_iter().collect()))
    }

    /// Why this build cannot judge it; `None` where it can.
    pub(super) fn not_built(&self) -> Option<String> {
        if self.uses != HEALTH_CHECK {
            return Some(self.uses.clone());
        }
        if let Some(key) = self.with.keys().find(|key| !["checks", "stable_for"].contains(&key.as_str())) {
            return Some(format!("{}, {key}", self.uses));
        }
        self.stable_for().is_none().then(|| format!("{}, stable_for is no duration", self.uses))
    }

    fn time_limit(&self) -> Duration {
        self.stable_for().unwrap_or_default().saturating_add(LOOK_LIMIT)
    }

    fn step(&self, id: &Id) -> Option<Step> {
        Some(Step {
            id: id.clone(),
            kind: StepKind::Gate,
            group: None,
            title: String::new(),
            when: None,
            uses: Some(self.uses.clone()),
            with: self.with.iter().map(|(key, value)| (key.to_string(), value.clone())).collect::<With>(),
            timeout: Some(span(self.time_limit())?),
            log_file: None,
            guard: None,
            retries: None,
            on_failure: OnFailure::Abort,
            prompt: None,
            role: None,
            scope: None,
            sign_offs: None,
            wait: None,
            evidence: None,
            expires: None,
            deadline: None,
        })
    }
}

impl RolloutPolicy {
    /// The longest that a node may take to look at all of its gates, one after the other.
    pub fn gates_longest(&self) -> Duration {
        self.gates.values().map(Gate::time_limit).fold(Duration::ZERO, Duration::saturating_add)
    }

    /// The shortest: what every one of them must have been so for.
    pub fn gates_shortest(&self) -> Duration {
        let stable = self.gates.values().map(|gate| gate.stable_for().unwrap_or_default());
        stable.fold(Duration::ZERO, Duration::saturating_add)
    }

    /// Its gates as a procedure that only reads: one step each, in the order of their ids, and the first that does not
    /// hold ends it. `None` where it has none, or where there is one that this build does not judge.
    pub fn gate_procedure(&self, profile: &Name) -> Option<Procedure> {
        if self.gates.is_empty() || self.gates.values().any(|gate| gate.not_built().is_some()) {
            return None;
        }
        Some(Procedure {
            schema: SchemaVersion::FleetV1,
            name: self.name.clone(),
            version: 1,
            description: String::new(),
            profile: profile.clone(),
            selector: None,
            changes: false,
            order: Order::PerNode,
            timeout: span(self.gates_longest())?,
            fail_if_warnings: false,
            document: None,
            override_windows: OverrideWindows::Never,
            log_file: None,
            params: std::collections::BTreeMap::new(),
            steps: self.gates.iter().map(|(id, gate)| gate.step(id)).collect::<Option<_>>()?,
            rollback: Vec::new(),
            finally: Vec::new(),
        })
    }
}

/// A duration as documents write it.
fn span(length: Duration) -> Option<Span> {
    format!("{}ms", length.as_millis()).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Value;

    /// Id, action and parameters.
    type Written<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

    fn policy(gates: &[Written<'_>]) -> RolloutPolicy {
        let text = r#"{"schema":"fleet/v1","name":"careful","ring":[{"name":"all","selector":"*"}]}"#;
        let mut policy: RolloutPolicy = serde_json::from_str(text).unwrap();
        for (id, uses, with) in gates {
            let with =
                with.iter().map(|(key, text)| (key.parse().unwrap(), Value::String((*text).to_owned())));
            let gate = Gate { uses: (*uses).to_owned(), with: with.collect() };
            policy.gates.insert(id.parse().unwrap(), gate);
        }
        policy
    }

    #[test]
    fn gates_of_health_are_steps_that_only_read_and_others_are_refused_by_name() {
        let stable: &[_] = &[("checks", "all"), ("stable_for", "10m")];
        let built = policy(&[("health", HEALTH_CHECK, stable), ("again", HEALTH_CHECK, &[])]);
        assert_eq!(built.not_built(), [""; 0]);
        assert_eq!(
            (built.gates_shortest(), built.gates_longest()),
            (Duration::from_mins(10), Duration::from_mins(20))
        );
        let procedure = built.gate_procedure(&"zehrasec".parse().unwrap()).unwrap();
        assert!(!procedure.changes && procedure.steps.iter().all(|step| step.kind == StepKind::Gate));
        let steps: Vec<_> =
            procedure.steps.iter().map(|step| (step.id.as_str(), step.time_limit())).collect();
        assert_eq!(steps, [("again", Duration::from_mins(5)), ("health", Duration::from_mins(15))]);
        assert_eq!(procedure.timeout.length(), Duration::from_mins(20));
        for (uses, with, why) in [
            ("flows.check", stable, "gate \"g\" (flows.check)"),
            (HEALTH_CHECK, &[("severity", "low")][..], "gate \"g\" (health.check, severity)"),
            (
                HEALTH_CHECK,
                &[("stable_for", "soon")][..],
                "gate \"g\" (health.check, stable_for is no duration)",
            ),
        ] {
            let refused = policy(&[("g", uses, with)]);
            assert_eq!(refused.not_built(), [why]);
            assert_eq!(refused.gate_procedure(&"zehrasec".parse().unwrap()), None);
        }
        assert_eq!(policy(&[]).gate_procedure(&"zehrasec".parse().unwrap()), None);
    }
}
