//! Matching, one rule a test: what is compared with what, and what is never called fixed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::time::Duration;

use fleet_advisories::advisory::Distribution;
use fleet_advisories::import::{AdvisorySet, Importer};
use fleet_advisories::inventory::{Available, Inventory, NodeState, OldFiles, Package};
use fleet_advisories::matching::{Findings, Index, find};
use fleet_types::package_version::PackageFormat;

/// An advisory of one package.
fn advisory(id: &str, ecosystem: &str, package: &str, events: &[(&str, &str)]) -> String {
    let events: Vec<String> =
        events.iter().map(|(kind, version)| format!(r#"{{"{kind}":"{version}"}}"#)).collect();
    format!(
        r#"{{"id":"{id}","modified":"2024-10-24T00:00:00Z","affected":[{{"package":{{"ecosystem":"{ecosystem}",
        "name":"{package}"}},"ranges":[{{"type":"ECOSYSTEM","events":[{}]}}]}}]}}"#,
        events.join(",")
    )
}

fn set(documents: &[String]) -> AdvisorySet {
    let mut importer = Importer::default();
    for (number, document) in documents.iter().enumerate() {
        importer.file(&format!("{number}.json"), document.as_bytes());
    }
    importer.finish().unwrap().set
}

fn package(name: &str, version: &str, source: &str, source_version: &str) -> Package {
    Package {
        source: source.to_owned(),
        source_version: source_version.to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: "x86_64".to_owned(),
    }
}

fn debian(packages: Vec<Package>) -> Inventory {
    Inventory::new(PackageFormat::Dpkg, Distribution::of_node("debian", "12"), packages).unwrap()
}

fn alma(packages: Vec<Package>) -> Inventory {
    Inventory::new(PackageFormat::Rpm, Distribution::of_node("almalinux", "9.4"), packages).unwrap()
}

fn told(findings: &Findings<'_>) -> Vec<String> {
    findings.findings.iter().map(|one| format!("{}: {}", one.advisory.id, one.stands())).collect()
}

const FIXED_IN_2: &[(&str, &str)] = &[("introduced", "0"), ("fixed", "2.0-1")];

#[test]
fn packages_of_dpkg_are_matched_by_source_and_its_version() {
    let set = set(&[
        advisory("A-1", "Debian:12", "openssl", FIXED_IN_2),
        advisory("B-1", "Debian:12", "libssl3", FIXED_IN_2),
        advisory("C-1", "Debian:11", "openssl", FIXED_IN_2),
        advisory("D-1", "Debian", "openssl", FIXED_IN_2),
        advisory("E-1", "Ubuntu:22.04:LTS", "openssl", FIXED_IN_2),
    ]);
    let index = Index::new(&set);
    // The binary was built again: its own version is later than the fix, the source's is not.
    let inventory = debian(vec![
        package("libssl3", "2.0-1+b1", "openssl", "1.9-1"),
        package("openssl", "1.9-1", "openssl", "1.9-1"),
    ]);
    let state = NodeState::default();
    let findings = find(&index, &inventory, &state);
    assert_eq!(told(&findings), ["A-1: fixed in 2.0-1, which this node's archives do not have"]);
    assert_eq!(
        findings.findings[0].why(),
        "libssl3 is built from source openssl; 1.9-1 is before 2.0-1, where it is fixed, in the order of dpkg for debian 12"
    );
    assert!(findings.is_known && findings.kernel_known);
    let fixed = debian(vec![package("libssl3", "1.0-1", "openssl", "2.0-1")]);
    assert!(find(&index, &fixed, &state).findings.is_empty());
    let other =
        Inventory::new(PackageFormat::Dpkg, Distribution::of_node("debian", "10"), Vec::new()).unwrap();
    assert!(!find(&index, &other, &state).is_known, "nothing is known of this release");
}

#[test]
fn packages_of_rpm_are_matched_by_their_own_name_within_their_module() {
    let fixed = |version| [("introduced", "0"), ("fixed", version)];
    let set = set(&[
        advisory("A-1", "AlmaLinux:9", "openssl-libs", &fixed("1:3.0.7-28.el9_4")),
        advisory("B-1", "AlmaLinux:9", "openssl", &fixed("1:3.0.7-28.el9_4")),
        advisory("C-1", "AlmaLinux:9", "nginx", &fixed("1:1.22.1-5.module_el9.2+1")),
    ]);
    let index = Index::new(&set);
    let inventory = alma(vec![
        package("openssl-libs", "1:3.0.7-27.el9", "openssl", "1:3.0.7-27.el9"),
        package("nginx", "1:1.20.1-16.el9", "nginx", "1:1.20.1-16.el9"),
    ]);
    let state = NodeState::default();
    assert_eq!(
        told(&find(&index, &inventory, &state)),
        ["A-1: fixed in 1:3.0.7-28.el9_4, which this node's archives do not have"]
    );
}

#[test]
fn a_fix_in_the_nodes_archive_is_told_from_one_that_is_only_published() {
    let set = set(&[
        advisory("A-1", "Debian:12", "nginx", FIXED_IN_2),
        advisory("B-1", "Debian:12", "nginx", &[("introduced", "0")]),
        advisory("C-1", "Debian:12", "nginx", &[("introduced", "0"), ("last_affected", "1.5-1")]),
    ]);
    let index = Index::new(&set);
    let inventory = debian(vec![package("nginx", "1.0-1", "nginx", "1.0-1")]);
    let with = |version: &str| NodeState {
        available: [(
            "nginx".to_owned(),
            Available {
                version: version.to_owned(),
                source_version: version.to_owned(),
                origin: "security".to_owned(),
            },
        )]
        .into(),
        ..NodeState::default()
    };
    for (available, expected) in [
        (
            "2.0-1",
            [
                "A-1: a fix is in this node's archive: 2.0-1 from security",
                "B-1: no fix is known yet",
                "C-1: a fix is in this node's archive: 2.0-1 from security",
            ],
        ),
        (
            "1.5-1",
            [
                "A-1: fixed in 2.0-1, which this node's archives do not have",
                "B-1: no fix is known yet",
                "C-1: no fix is known yet",
            ],
        ),
    ] {
        assert_eq!(told(&find(&index, &inventory, &with(available))), expected);
    }
}

#[test]
fn of_several_kernels_the_running_one_counts() {
    let set = set(&[advisory("A-1", "Debian:12", "linux", &[("introduced", "0"), ("fixed", "6.1.119-1")])]);
    let index = Index::new(&set);
    let image = |release: &str, version: &str| {
        package(
            &format!("linux-image-{release}-amd64"),
            version,
            "linux-signed-amd64",
            &version.replace('-', "+"),
        )
    };
    let (old, new) = (image("6.1.0-25", "6.1.106-3"), image("6.1.0-28", "6.1.119-1"));
    let meta = package("linux-image-amd64", "6.1.106-3", "linux-signed-amd64", "6.1.106+3");
    let headers = package("linux-libc-dev", "6.1.106-3", "linux", "6.1.106-3");
    let running =
        |release: &str| NodeState { running_kernel: Some(release.to_owned()), ..NodeState::default() };
    let both = debian(vec![old.clone(), new.clone(), meta.clone(), headers.clone()]);
    let state = running("6.1.0-25-amd64");
    let findings = find(&index, &both, &state);
    assert_eq!(told(&findings), ["A-1: fixed, reboot pending: 6.1.119-1 is installed, 6.1.106-3 runs"]);
    assert!(findings.findings[0].why().starts_with("linux-image-6.1.0-25-amd64 is built from source linux"));
    // The old one may stay installed: it does not run.
    assert!(find(&index, &both, &running("6.1.0-28-amd64")).findings.is_empty());
    let alone = debian(vec![old.clone(), meta, headers]);
    assert_eq!(
        told(&find(&index, &alone, &state)),
        ["A-1: fixed in 6.1.119-1, which this node's archives do not have"]
    );
    // A new kernel comes under a name of its own, behind the meta package.
    let available = Available {
        version: "6.1.119-1".to_owned(),
        source_version: "6.1.119+1".to_owned(),
        origin: "security".to_owned(),
    };
    let offered = NodeState { available: [("linux-image-amd64".to_owned(), available)].into(), ..state };
    assert_eq!(
        told(&find(&index, &alone, &offered)),
        ["A-1: a fix is in this node's archive: 6.1.119-1 from security"]
    );
    // Which one runs is not known: then each counts.
    let other = running("5.10.0-custom");
    let findings = find(&index, &both, &other);
    assert!(!findings.kernel_known);
    assert_eq!(findings.findings.len(), 1);
}

#[test]
fn the_running_kernel_of_rpm_is_found_by_its_version() {
    let set = set(&[advisory(
        "A-1",
        "AlmaLinux:9",
        "kernel-core",
        &[("introduced", "0"), ("fixed", "5.14.0-503.11.1.el9_5")],
    )]);
    let index = Index::new(&set);
    let core = |version: &str| package("kernel-core", version, "kernel", version);
    let inventory = alma(vec![core("5.14.0-427.42.1.el9_4"), core("5.14.0-503.11.1.el9_5")]);
    let running =
        |release: &str| NodeState { running_kernel: Some(release.to_owned()), ..NodeState::default() };
    let state = running("5.14.0-427.42.1.el9_4.x86_64");
    assert_eq!(
        told(&find(&index, &inventory, &state)),
        ["A-1: fixed, reboot pending: 5.14.0-503.11.1.el9_5 is installed, 5.14.0-427.42.1.el9_4 runs"]
    );
    assert!(find(&index, &inventory, &running("5.14.0-503.11.1.el9_5.x86_64")).findings.is_empty());
}

#[test]
fn what_services_still_run_is_not_called_fixed() {
    let set = set(&[
        advisory("A-1", "Debian:12", "openssl", FIXED_IN_2),
        advisory("B-1", "Debian:12", "openssl", &[("introduced", "0"), ("fixed", "1.0-1")]),
    ]);
    let index = Index::new(&set);
    let inventory = debian(vec![package("libssl3", "2.0-1", "openssl", "2.0-1")]);
    let runs = |source_version: Option<&str>| NodeState {
        old_files: [(
            "libssl3".to_owned(),
            OldFiles {
                source_version: source_version.map(str::to_owned),
                services: vec!["nginx.service".to_owned()],
            },
        )]
        .into(),
        ..NodeState::default()
    };
    // An advisory that the old one had fixed already says nothing new.
    let state = runs(Some("1.5-1"));
    let findings = find(&index, &inventory, &state);
    assert_eq!(told(&findings), ["A-1: fixed in 2.0-1; services still run the old file of 1.5-1"]);
    let state = runs(None);
    let findings = find(&index, &inventory, &state);
    assert!(findings.findings.is_empty());
    assert_eq!(findings.old_files_unknown[0].package, "libssl3");
}

#[test]
fn what_its_origin_took_back_matches_nothing() {
    let withdrawn = advisory("A-1", "Debian:12", "nginx", FIXED_IN_2).replacen(
        r#""modified""#,
        r#""withdrawn":"2024-10-25T00:00:00Z","modified""#,
        1,
    );
    let set = set(&[withdrawn, advisory("B-1", "Debian:12", "nginx", FIXED_IN_2)]);
    let inventory = debian(vec![package("nginx", "1.0-1", "nginx", "1.0-1")]);
    let (index, state) = (Index::new(&set), NodeState::default());
    let findings = find(&index, &inventory, &state);
    assert_eq!(findings.findings.iter().map(|one| one.advisory.id.as_str()).collect::<Vec<_>>(), ["B-1"]);
    assert_eq!(set.advisories.len(), 2, "it is kept");
}

/// One changed node costs as much as its own packages do, however many advisories there are: 50,000 of them here, and a
/// build without optimisation. The whole fleet is measured by the example `match_cost`.
#[test]
fn one_changed_node_is_matched_in_50_ms() {
    let documents: Vec<String> = (0..50_000)
        .map(|n| advisory(&format!("A-{n}"), "Debian:12", &format!("package-{}", n % 5_000), FIXED_IN_2))
        .collect();
    let set = set(&documents);
    let index = Index::new(&set);
    let packages = (0..600).map(|n| {
        let (name, version) = (format!("package-{n}"), if n % 10 == 0 { "1.0-1" } else { "2.0-1" });
        package(&name, version, &name, version)
    });
    let (inventory, state) = (debian(packages.collect()), NodeState::default());
    let took = (0..5)
        .map(|_| {
            let before = worked();
            assert_eq!(find(&index, &inventory, &state).findings.len(), 600);
            worked().saturating_sub(before)
        })
        .min()
        .unwrap();
    assert!(took <= Duration::from_millis(50), "{took:?}");
}

/// Processor time of this thread, which other work on the machine does not lengthen (`proc_schedstat`: nanoseconds first).
fn worked() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}
