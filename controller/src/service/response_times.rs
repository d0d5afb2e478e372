//! Within which time a finding must be gone from a node: as the rollout policies say that mean it, else as usual (Z08).
//!
//! A policy means a node that one of its rings means. Where several do, the strictest of each counts: nobody gets more time
//! because a second policy was applied. Reads the newest revisions; decides about no finding. Called by `patches`.

use fleet_advisories::clock::{ClockStarts, KnownExploitedRule, Rules, Tier};
use fleet_types::document::rollout_policy::{self as written, RolloutPolicy};
use fleet_types::document::{Document, DocumentKind};
use fleet_types::id::Name;
use fleet_types::label::{Labels, Selector};

use super::documents;
use crate::context::Storage;
use crate::error::{ControllerError, Result};

/// The response times of a fleet.
pub struct ResponseTimes(Vec<Policy>);

struct Policy {
    name: String,
    rings: Vec<Selector>,
    rules: Rules,
}

impl ResponseTimes {
    /// Of the newest revisions of all rollout policies.
    ///
    /// # Errors
    /// When one of them cannot be read: with the times of the others alone a finding could seem to be in time.
    pub async fn read(storage: &Storage) -> Result<Self> {
        let mut policies = Vec::new();
        for item in documents::list(storage, DocumentKind::RolloutPolicy.as_str()).await?.items {
            let Document::RolloutPolicy(policy) = documents::document(storage, item.digest).await? else {
                continue;
            };
            if policy.sla.is_none() && policy.severity.is_empty() {
                continue;
            }
            let rings = policy.rings.iter().map(|ring| ring.selector.selector());
            let rings = rings.collect::<std::result::Result<_, _>>().map_err(ControllerError::internal)?;
            policies.push(Policy { name: policy.name.to_string(), rings, rules: rules(&policy) });
        }
        Ok(Self(policies))
    }

    /// Those of a node, and the policies that say so; none: the usual ones.
    pub fn of(&self, node: &Name, labels: &Labels) -> (Rules, Vec<String>) {
        let means = |policy: &&Policy| policy.rings.iter().any(|ring| ring.matches(node, labels));
        let (mut rules, mut names) = (None, Vec::new());
        for policy in self.0.iter().filter(means) {
            rules = Some(rules.map_or(policy.rules, |rules| stricter(&rules, &policy.rules)));
            names.push(policy.name.clone());
        }
        (rules.unwrap_or_default(), names)
    }
}

/// The rules of a policy; what it does not say is as usual.
fn rules(policy: &RolloutPolicy) -> Rules {
    let usual = Rules::default();
    let tier = |id: &str, usual: Tier| {
        let said = policy.severity.iter().find(|(known, _)| known.as_str() == id);
        said.map_or(usual, |(_, said)| Tier {
            respond_within: said.respond_within.length(),
            at_risk_at_percent: said
                .at_risk_at_percent
                .and_then(|percent| u8::try_from(percent).ok())
                .unwrap_or(usual.at_risk_at_percent),
            ..usual
        })
    };
    let sla = policy.sla.as_ref();
    Rules {
        critical: tier("critical", usual.critical),
        high: tier("high", usual.high),
        medium: tier("medium", usual.medium),
        low: tier("low", usual.low),
        unknown: tier("unknown", usual.unknown),
        clock_starts: match sla.map(|sla| sla.clock_starts) {
            Some(written::ClockStarts::AdvisoryPublished) => ClockStarts::AdvisoryPublished,
            Some(written::ClockStarts::FixAvailableForNode) => ClockStarts::FixAvailableForNode,
            Some(written::ClockStarts::FirstOf) | None => ClockStarts::FirstOf,
        },
        known_exploited: match sla.and_then(|sla| sla.known_exploited) {
            Some(written::KnownExploited::AsScored) => KnownExploitedRule::AsScored,
            Some(written::KnownExploited::OneTierUp) | None => KnownExploitedRule::OneTierUp,
        },
        mirror_lag_warn: sla
            .and_then(|sla| sla.mirror_lag_warn.as_ref())
            .map_or(usual.mirror_lag_warn, fleet_types::time::Span::length),
    }
}

/// The stricter of each. Two clocks that start differently start with the earlier instant.
fn stricter(a: &Rules, b: &Rules) -> Rules {
    let tier = |a: Tier, b: Tier| {
        let of = |tier: &Tier| (tier.respond_within, tier.at_risk_at_percent);
        if of(&a) <= of(&b) { a } else { b }
    };
    Rules {
        critical: tier(a.critical, b.critical),
        high: tier(a.high, b.high),
        medium: tier(a.medium, b.medium),
        low: tier(a.low, b.low),
        unknown: tier(a.unknown, b.unknown),
        clock_starts: if a.clock_starts == b.clock_starts { a.clock_starts } else { ClockStarts::FirstOf },
        known_exploited: if a.known_exploited == b.known_exploited {
            a.known_exploited
        } else {
            KnownExploitedRule::OneTierUp
        },
        mirror_lag_warn: a.mirror_lag_warn.min(b.mirror_lag_warn),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use serde_json::{Value, json};

    fn times(policies: &[(&str, &str, Value, Value)]) -> ResponseTimes {
        let one = |(name, selector, sla, severity): &(&str, &str, Value, Value)| {
            let mut said = json!({"schema": "fleet/v1", "name": name, "severity": severity,
                "ring": [{"name": "all", "selector": selector}]});
            if !sla.is_null() {
                said["sla"] = sla.clone();
            }
            let policy: RolloutPolicy = serde_json::from_value(said).unwrap();
            let rings = vec![policy.rings[0].selector.selector().unwrap()];
            Policy { name: policy.name.to_string(), rings, rules: rules(&policy) }
        };
        ResponseTimes(policies.iter().map(one).collect())
    }

    fn of(times: &ResponseTimes, product: &str) -> (Rules, Vec<String>) {
        let labels = Labels::new([("product".to_owned(), product.to_owned())]).unwrap();
        times.of(&"fw-1".parse().unwrap(), &labels)
    }

    #[test]
    fn z08_a_node_has_the_times_of_the_policy_that_means_it_and_else_the_usual_ones() {
        let severity =
            json!({"critical": {"respond_within": "12h", "at_risk_at_percent": 40, "testing": "full"}});
        let times = times(&[("edge", "product=edge", Value::Null, severity)]);
        let (rules, names) = of(&times, "edge");
        assert_eq!(names, ["edge"]);
        let critical = rules.critical;
        assert_eq!((critical.respond_within, critical.at_risk_at_percent), (Duration::from_hours(12), 40));
        assert_eq!(rules.high, Rules::default().high, "what it does not say is as usual");
        assert_eq!(of(&times, "other"), (Rules::default(), vec![]));
    }

    #[test]
    fn of_several_policies_the_strictest_of_each_counts() {
        let tier = |within: &str| json!({"respond_within": within, "testing": "full"});
        let times = times(&[
            (
                "slow",
                "*",
                json!({"clock_starts": "advisory_published", "known_exploited": "as_scored", "mirror_lag_warn": "1h"}),
                json!({"critical": tier("6h"), "low": tier("60d")}),
            ),
            (
                "quick",
                "product=edge",
                json!({"clock_starts": "fix_available_for_node"}),
                json!({"low": tier("10d")}),
            ),
        ]);
        let (slow, _) = of(&times, "other");
        assert_eq!(
            slow.low.respond_within,
            Duration::from_hours(60 * 24),
            "a policy may give more time than usual"
        );
        assert_eq!(slow.known_exploited, KnownExploitedRule::AsScored);
        let (both, names) = of(&times, "edge");
        assert_eq!(names, ["slow", "quick"]);
        assert_eq!(both.critical.respond_within, Duration::from_hours(6));
        assert_eq!(both.low.respond_within, Duration::from_hours(10 * 24));
        assert_eq!(both.clock_starts, ClockStarts::FirstOf, "the earlier of two beginnings");
        assert_eq!(both.known_exploited, KnownExploitedRule::OneTierUp);
        assert_eq!(both.mirror_lag_warn, Duration::from_hours(1));
    }
}
