//! Checks of a rollout policy that need more than one key.

use std::collections::{BTreeMap, BTreeSet};

use fleet_types::document::rollout_policy::{RolloutPolicy, Tier};

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
        check_scores(reporter, &path, id.as_str(), tier);
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

/// The qualitative rating scale of CVSS (3.1 section 5, 4.0 section 6), and what has no score.
const BANDS: [(&str, Option<(&str, &str)>); 5] = [
    ("critical", Some(("9.0", "10.0"))),
    ("high", Some(("7.0", "8.9"))),
    ("medium", Some(("4.0", "6.9"))),
    ("low", Some(("0.1", "3.9"))),
    ("unknown", None),
];

/// A tier is one of the ratings: with other bounds the same word would mean two things in one fleet.
fn check_scores(reporter: &mut Reporter<'_>, path: &str, id: &str, tier: &Tier) {
    let Some((_, scores)) = BANDS.iter().find(|(band, _)| *band == id) else {
        let message = format!("{} is no rating of CVSS", quoted(id));
        reporter.error(path, "bad-value", message, "name it critical, high, medium, low or unknown");
        return;
    };
    let said = tier.cvss.as_ref().map(|said| (said.min.as_str(), said.max.as_str()));
    if said.is_some() && said != *scores {
        let (message, fix) = match scores {
            Some((min, max)) => (
                format!("{} is {min} to {max}, by the rating scale of CVSS", quoted(id)),
                format!("write cvss = {{ min = \"{min}\", max = \"{max}\" }}, or leave it out"),
            ),
            None => (format!("{} is for what has no score", quoted(id)), "leave cvss out".to_owned()),
        };
        reporter.error(&format!("{path}/cvss"), "bad-value", message, &fix);
    }
    if tier.respond_within.length().is_zero() {
        let message = "no time at all: everything would be late at once".to_owned();
        reporter.error(
            &format!("{path}/respond_within"),
            "bad-value",
            message,
            "write a time such as \"24h\"",
        );
    }
}
