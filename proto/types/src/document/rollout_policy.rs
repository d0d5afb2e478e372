//! Rollout policies: in which order nodes change, and what must be true before going on.
//!
//! What a build does not act on is marked; what would make a rollout less careful than its policy says is refused when
//! the rollout starts ([`RolloutPolicy::not_built`]). Must never decide who goes; the engine does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{Id, Key};
use super::kind::SchemaVersion;
use super::schedule::LateNodes;
use super::schema::JsonSchema;
use super::share::Share;
use super::value::{Value, is_true, yes};
use crate::id::Name;
use crate::idle::{NO_FLOWS, NO_PAIR_ORDER, NO_SEVERITY_ROLLOUT};
use crate::label::Selector;
use crate::time::Span;

/// In which order nodes change, what must be true before going on, and how fast a fix must land.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutPolicy {
    /// Schema of the file.
    pub schema: SchemaVersion,
    /// Its name.
    pub name: Name,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Node label; members of one group never change together.
    #[serde(default)]
    pub group_by: GroupBy,
    /// How many of a group may be in change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1), extend("default" = 1))]
    pub max_unavailable_per_group: Option<u32>,
    /// How many nodes of a site may be in change, over all runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "as the controller is configured"))]
    pub max_unavailable_per_site: Option<Share>,
    /// What happens with nodes that were not reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "next_window"))]
    pub late_nodes: Option<LateNodes>,
    /// What makes the members of a group safe to change one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pair: Option<PairOrder>,
    /// Traffic that must hold on both sides of a change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-idle" = NO_FLOWS))]
    pub flows: Option<Flows>,
    /// The rings, tried in this order; a node is in the first one that means it.
    #[serde(rename = "ring")]
    pub rings: Vec<Ring>,
    /// What must hold before a ring is done, by id.
    #[serde(default, rename = "gate", skip_serializing_if = "BTreeMap::is_empty")]
    pub gates: BTreeMap<Id, Gate>,
    /// What happens with failures.
    #[serde(default, skip_serializing_if = "Failure::is_default")]
    pub failure: Failure,
    /// What tested means, by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-idle" = NO_SEVERITY_ROLLOUT))]
    pub testing: BTreeMap<Id, Testing>,
    /// How response times are counted on the nodes that a ring means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sla: Option<Sla>,
    /// Response times on the nodes that a ring means, by `critical`, `high`, `medium`, `low` and `unknown` (no score); one that
    /// is missing is as usual.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub severity: BTreeMap<Id, Tier>,
}

/// By which label nodes are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// The nodes that stand in for each other.
    #[default]
    HaGroup,
    /// The nodes of a site.
    Site,
}

/// One ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ring {
    /// Its name, unique in the policy.
    pub name: Id,
    /// Its nodes, as far as no ring before it has them.
    #[schemars(extend("x-takes" = "any-selector"))]
    pub selector: RingSelector,
    /// How many of its nodes at once: a number, or a percentage of the ring, rounded down and at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "as many as the run allows"))]
    pub max_parallel: Option<Share>,
    /// How long it must have been healthy before the next ring begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "0s"))]
    pub soak: Option<Span>,
    /// Who lets the next ring begin.
    #[serde(default)]
    pub advance: Advance,
    /// How many percent of its nodes must succeed, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100), extend("default" = 100))]
    pub success_percent: Option<u32>,
}

/// A selector, or `*` for every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RingSelector(pub String);

impl RingSelector {
    /// The nodes that it means.
    pub fn selector(&self) -> Result<Selector, crate::label::LabelError> {
        if self.0 == "*" { Ok(Selector::all()) } else { self.0.parse() }
    }
}

/// Who lets the next ring begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Advance {
    /// Nobody has to.
    #[default]
    Automatic,
    /// An operator.
    Manual,
}

/// What makes the members of a group safe to change one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PairOrder {
    /// Checks by which the roles are observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-idle" = NO_PAIR_ORDER))]
    pub role_probe: Option<RoleProbe>,
    /// Which member changes first.
    #[serde(default)]
    pub order: MemberOrder,
    /// The command that hands mastership over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-idle" = NO_PAIR_ORDER))]
    pub failover: Option<Id>,
    /// Until the probe must have seen the new roles.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-idle" = NO_PAIR_ORDER))]
    pub failover_within: Option<Span>,
    /// The check that must be ok on both before and after each member.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-idle" = NO_PAIR_ORDER))]
    pub sync_check: Option<Id>,
    /// How long the members may run different versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-idle" = NO_PAIR_ORDER))]
    pub max_version_skew_time: Option<Span>,
}

/// Checks by which the roles of a pair are observed; they must agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleProbe {
    /// The check that reads the VRRP state.
    pub vrrp_state: Id,
    /// The check that reads the shared address.
    pub address: Id,
}

/// Which member of a group changes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberOrder {
    /// Whichever comes first.
    #[default]
    Any,
    /// The standby, failover, then the former active one.
    #[schemars(extend("x-idle" = NO_PAIR_ORDER))]
    StandbyFirst,
}

/// Traffic that must hold on both sides of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flows {
    /// What must get through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub must_pass: Vec<Flow>,
    /// What must stay blocked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub must_block: Vec<Flow>,
}

/// One flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// Its id.
    pub id: Id,
    /// A probe host's address, or "node".
    pub source: String,
    /// Where it goes.
    pub destination: String,
    /// To which port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u32,
    /// With which protocol.
    pub protocol: Protocol,
}

/// Protocol of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What must hold before a ring is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// What judges.
    #[schemars(extend("x-takes" = "action"))]
    pub uses: String,
    /// Its parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-takes" = "param-values"))]
    pub with: BTreeMap<Key, Value>,
}

/// What happens with failures: nodes that failed, were rolled back or got lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// So many nodes of a ring may fail; one more, and the action is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "any number"))]
    pub max_failed_nodes: Option<u32>,
    /// So many percent of a ring may fail, once it has 20 nodes or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100), extend("x-default" = "any number"))]
    pub max_failed_percent: Option<u32>,
    /// What is done then.
    #[serde(default)]
    pub action: FailureAction,
    /// The failed node itself is rolled back.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    #[schemars(extend("default" = true))]
    pub rollback_node: bool,
}

impl Default for Failure {
    /// As if `[failure]` stood there with nothing in it.
    fn default() -> Self {
        Self {
            max_failed_nodes: None,
            max_failed_percent: None,
            action: FailureAction::default(),
            rollback_node: true,
        }
    }
}

impl Failure {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is done when too much has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureAction {
    /// Nothing starts until an operator decides.
    #[default]
    Pause,
    /// It is noted, and the others go on.
    Continue,
    /// The ring is rolled back.
    #[schemars(extend("x-idle" = "a start with it is refused, because nothing rolls back nodes that succeeded"))]
    RollbackRing,
    /// All that changed are rolled back.
    #[schemars(extend("x-idle" = "a start with it is refused, because nothing rolls back nodes that succeeded"))]
    RollbackAll,
}

/// What tested means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Testing {
    /// The procedure that tests.
    #[schemars(extend("x-takes" = "procedure"))]
    pub procedure: Name,
    /// Passed on as its parameter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suites: Vec<String>,
}

/// How response times are counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sla {
    /// When the clock starts.
    pub clock_starts: ClockStarts,
    /// A fix that is published and for so long not in the node's own sources is a finding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror_lag_warn: Option<Span>,
    /// What an exploited hole does to the tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_exploited: Option<KnownExploited>,
}

/// When the clock of a response time starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClockStarts {
    /// With the earlier of the two.
    FirstOf,
    /// With the advisory.
    AdvisoryPublished,
    /// When the node could have had it.
    FixAvailableForNode,
}

/// What an exploited hole does to the tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KnownExploited {
    /// Raises it by one.
    OneTierUp,
    /// Nothing.
    AsScored,
}

/// Response time of one severity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// The scores that it holds for; none for what has no score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cvss: Option<Scores>,
    /// Until fixed on the node.
    pub respond_within: Span,
    /// The clock turns to at risk at this share of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub at_risk_at_percent: Option<u32>,
    /// Where it is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub show: Option<Show>,
    /// Role that may put it into a tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-idle" = "nothing is put into a tier by hand"))]
    pub triage: Option<String>,
    /// An id of `[testing.*]`.
    #[schemars(extend("x-idle" = NO_SEVERITY_ROLLOUT))]
    pub testing: Id,
    /// Ids of `[gate.*]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-idle" = NO_SEVERITY_ROLLOUT))]
    pub gates: Vec<String>,
    /// Share of each ring's soak.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100), extend("x-idle" = NO_SEVERITY_ROLLOUT))]
    pub soak_percent: Option<u32>,
    /// May it start outside of a window?
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-idle" = NO_SEVERITY_ROLLOUT))]
    pub override_windows: Option<OverrideWindows>,
}

/// A range of scores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// The lowest, such as "9.0".
    pub min: String,
    /// The highest.
    pub max: String,
}

/// Where findings of a tier are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Show {
    /// Apart from the scored ones.
    Apart,
}

/// May a start be outside of a window?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverrideWindows {
    /// No.
    Never,
    /// With a second person's approval.
    WithApproval,
}

impl Ring {
    /// How long it must have been healthy before the next one begins.
    pub fn soaks_for(&self) -> std::time::Duration {
        self.soak.as_ref().map_or(std::time::Duration::ZERO, Span::length)
    }
}

impl RolloutPolicy {
    /// What of it this build cannot do, by name: a rollout that left it out would be less careful than it says.
    pub fn not_built(&self) -> Vec<String> {
        let not_judged = |(id, gate): (&Id, &Gate)| Some(format!("gate \"{id}\" ({})", gate.not_built()?));
        let mut missing: Vec<String> = self.gates.iter().filter_map(not_judged).collect();
        if let Some(pair) = &self.pair {
            let named = [
                (pair.order == MemberOrder::StandbyFirst, "pair.order = \"standby_first\""),
                (pair.role_probe.is_some(), "pair.role_probe"),
                (pair.failover.is_some() || pair.failover_within.is_some(), "pair.failover"),
                (pair.sync_check.is_some(), "pair.sync_check"),
                (pair.max_version_skew_time.is_some(), "pair.max_version_skew_time"),
            ];
            missing
                .extend(named.iter().filter(|(is_asked, _)| *is_asked).map(|(_, what)| (*what).to_owned()));
        }
        if let Some(share @ Share::Percent(_)) = self.max_unavailable_per_site {
            missing.push(format!("max_unavailable_per_site = \"{share}\" (a number of nodes is)"));
        }
        let late = match self.late_nodes {
            // A node goes as soon as it is there, as long as the request is valid (docs/adr/0009); who is not reached
            // until then is left to the next run, because nobody signed for longer.
            None | Some(LateNodes::NextWindow | LateNodes::WhenOnline | LateNodes::Drop) => None,
            Some(LateNodes::NextDay) => Some("next_day"),
        };
        missing.extend(late.map(|word| format!("late_nodes = \"{word}\"")));
        match self.failure.action {
            FailureAction::Pause | FailureAction::Continue => {}
            FailureAction::RollbackRing => missing.push("failure.action = \"rollback_ring\"".to_owned()),
            FailureAction::RollbackAll => missing.push("failure.action = \"rollback_all\"".to_owned()),
        }
        if !self.failure.rollback_node {
            missing.push("failure.rollback_node = false".to_owned());
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_without_a_word_on_failures_reads_back_as_it_was() {
        let text = r#"{"schema":"fleet/v1","name":"careful","ring":[{"name":"all","selector":"*"}]}"#;
        let policy: RolloutPolicy = serde_json::from_str(text).unwrap();
        assert!(policy.failure.rollback_node, "the default of the key is that of the table");
        assert_eq!(policy.not_built(), [""; 0]);
        let again: RolloutPolicy = serde_json::from_str(&serde_json::to_string(&policy).unwrap()).unwrap();
        assert_eq!(again, policy);
    }
}
