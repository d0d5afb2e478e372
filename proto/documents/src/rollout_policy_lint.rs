//! Checks of a rollout policy that need more than one key.

use std::collections::{BTreeMap, BTreeSet};

use fleet_types::document::rollout_policy::RolloutPolicy;

use crate::reporter::Reporter;
use crate::text_check::quoted;

/// More rings than anybody has stages of trust; the engine takes as many.
const MAX_RINGS: usize = 16;

pub(crate) fn check(reporter: &mut Reporter<'_>, policy: &RolloutPolicy) {
    if policy.rings.is_empty() {
        let fix = "add [[ring]] with name and selector";
        reporter.error("ring", "missing-key", "the policy has no ring".to_owned(), fix);
    }
    if policy.rings.len() > MAX_RINGS {
        let message = format!("{} rings; a policy has at most {MAX_RINGS}", policy.rings.len());
        reporter.error("ring", "bad-value", message, "put rings together");
    }
    let (mut names, mut selectors) = (BTreeSet::new(), BTreeMap::<&str, &str>::new());
    for (index, ring) in policy.rings.iter().enumerate() {
        let name = ring.name.as_str();
        if !names.insert(name) {
            let message = format!("the name {} stands twice in this policy", quoted(name));
            reporter.error(
                &format!("ring/{index}/name"),
                "duplicate-id",
                message,
                "give each ring its own name",
            );
        }
        // A node is in the first ring that means it: behind one that means all of them nothing is left.
        let text = ring.selector.0.trim();
        let earlier = selectors.get(text).or_else(|| selectors.get("*")).or_else(|| selectors.get(""));
        if let Some(earlier) = earlier {
            let message = format!(
                "ring {} is always empty: ring {} before it has its nodes",
                quoted(name),
                quoted(earlier)
            );
            let fix = "put the ring that means more nodes behind the others";
            reporter.error(&format!("ring/{index}/selector"), "bad-value", message, fix);
        }
        selectors.entry(text).or_insert(name);
    }
    for (id, tier) in &policy.severity {
        let path = format!("severity/{id}");
        let gates =
            tier.gates.iter().filter(|gate| !policy.gates.keys().any(|known| known.as_str() == **gate));
        for gate in gates {
            let message = format!("no gate of this policy has the id {}", quoted(gate));
            reporter.error(
                &format!("{path}/gates"),
                "unknown-reference",
                message,
                "add [gate.<id>], or leave it out",
            );
        }
        if !policy.testing.contains_key(&tier.testing) {
            let message =
                format!("no [testing.*] of this policy has the id {}", quoted(tier.testing.as_str()));
            reporter.error(&format!("{path}/testing"), "unknown-reference", message, "add [testing.<id>]");
        }
    }
}
