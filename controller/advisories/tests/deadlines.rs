//! From a file of a mirror to a deadline on a node: the pieces one after the other, as their caller joins them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use fleet_advisories::advisory::Distribution;
use fleet_advisories::clock::{
    Lane, Rules, Start, StartedBy, Testing, Verdict, deadline, lane, mirror_lag, verdict,
};
use fleet_advisories::import::Importer;
use fleet_advisories::inventory::{Inventory, NodeState, Package};
use fleet_advisories::matching::{Index, Standing, find};
use fleet_types::package_version::PackageFormat;
use fleet_types::severity::Severity;
use fleet_types::time::Timestamp;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn z08_an_advisory_becomes_a_deadline_on_the_node_that_has_the_hole() {
    let mut importer = Importer::default();
    importer.file(
        "a.json",
        br#"{"id":"A-1","modified":"2026-11-20T08:00:00Z","published":"2026-11-20T08:00:00Z","upstream":["CVE-2026-1111"],
        "affected":[{"package":{"ecosystem":"Debian:12","name":"openssl"},"ranges":[{"type":"ECOSYSTEM",
        "events":[{"introduced":"0"},{"fixed":"3.0.17-1~deb12u2"}]}]}]}"#,
    );
    importer.file(
        "scores.jsonl",
        br#"{"cve":"CVE-2026-1111","scores":[{"by":"cna","vector":"CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:H/I:H/A:H","base_score":8.1}]}"#,
    );
    importer.file(
        "kev.json",
        br#"{"catalogVersion":"1","count":1,"vulnerabilities":[{"cveID":"CVE-2026-1111","dateAdded":"2026-11-21"}]}"#,
    );
    let set = importer.finish().unwrap().set;
    let index = Index::new(&set);
    let package = Package {
        source: "openssl".to_owned(),
        source_version: "3.0.17-1~deb12u1".to_owned(),
        name: "libssl3".to_owned(),
        version: "3.0.17-1~deb12u1".to_owned(),
        architecture: "amd64".to_owned(),
    };
    let debian = Distribution::of_node("debian", "12");
    let inventory = Inventory::new(PackageFormat::Dpkg, debian, vec![package]).unwrap();
    let state = NodeState::default();
    let findings = find(&index, &inventory, &state);
    let [finding] = findings.findings.as_slice() else { panic!("{findings:?}") };

    let (given, scored) = set.score_of(finding.advisory).unwrap();
    assert_eq!((given.by.as_str(), scored.score.to_string().as_str()), ("cna", "8.1"));
    let rules = Rules::default();
    let exploited = set.exploited_of(finding.advisory).is_some();
    let lane = lane(Some(scored.score), exploited, &rules);
    assert_eq!(
        lane,
        Lane::Scored { tier: Severity::Critical, raised: true },
        "high, and known to be exploited"
    );
    let tier = rules.tier(lane).unwrap();
    assert_eq!(tier.testing, Testing::Minimal);

    let now = at("2026-11-20T22:00:00Z");
    let start = Start { published: finding.advisory.published, available: None, found: now };
    let clock = deadline(&start, tier, &rules, now);
    assert_eq!((clock.by, clock.due), (StartedBy::Published, at("2026-11-21T08:00:00Z")));
    assert_eq!(verdict(Some(&clock), None, findings.is_known, now), Verdict::AtRisk { due: clock.due });

    // The fix is published and not in the node's archive: that is told too.
    let is_missing = matches!(finding.standing, Standing::FixNotInArchive { .. });
    let lag = mirror_lag(finding.advisory.published, is_missing, &rules, now).unwrap();
    assert_eq!(lag.lag, std::time::Duration::from_hours(14));
}
