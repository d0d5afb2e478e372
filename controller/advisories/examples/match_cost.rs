//! Measures a whole match: nodes, packages and advisories as many as the arguments say, each inventory another one.
//!
//! For: docs/benchmarks.md. `cargo run --release -p fleet-advisories --example match_cost -- [NODES [PACKAGES [ADVISORIES]]]`
//! Must never: be read as a test; it judges nothing.

use std::fmt::Write as _;
use std::time::Duration;

use fleet_advisories::advisory::Distribution;
use fleet_advisories::import::{AdvisorySet, Importer};
use fleet_advisories::inventory::{Inventory, InventoryProblem, NodeState, Package};
use fleet_advisories::matching::{Index, find};
use fleet_types::package_version::PackageFormat;

/// Source packages that advisories are about; a Debian release has 30,000, of which a tenth is ever named.
const SOURCES: usize = 3_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut next = |default| arguments.next().unwrap_or(Ok(default));
    let (nodes, packages, advisories) = (next(10_000)?, next(600)?, next(50_000)?);

    let begin = worked()?;
    let set = advisory_set(advisories)?;
    println!("import of {advisories} advisories: {:.2?}", worked()?.saturating_sub(begin));
    let begin = worked()?;
    let index = Index::new(&set);
    println!("index: {:.2?}", worked()?.saturating_sub(begin));

    // One inventory after the other, as a store hands them out; making one is not part of the match.
    let state = NodeState::default();
    let (mut took, mut slowest, mut found) = (Duration::ZERO, Duration::ZERO, 0);
    for node in 0..nodes {
        let inventory = inventory(node, packages)?;
        let begin = worked()?;
        found += find(&index, &inventory, &state).findings.len();
        let one = worked()?.saturating_sub(begin);
        (took, slowest) = (took + one, slowest.max(one));
    }
    println!(
        "whole match of {nodes} nodes x {packages} packages, all different: {took:.2?}, {found} findings"
    );
    println!("slowest node: {slowest:.2?}");
    let status = std::fs::read_to_string("/proc/self/status")?;
    if let Some(peak) = status.lines().find(|line| line.starts_with("VmHWM")) {
        println!("most memory: {}", peak.split_whitespace().skip(1).collect::<Vec<_>>().join(" "));
    }
    Ok(())
}

fn advisory_set(count: usize) -> Result<AdvisorySet, Box<dyn std::error::Error>> {
    let mut importer = Importer::default();
    let mut text = String::new();
    for n in 0..count {
        text.clear();
        let (source, minor) = (n % SOURCES, n / SOURCES);
        write!(
            text,
            r#"{{"id":"M-{n}","modified":"2026-01-01T00:00:00Z","summary":"A hole in source-{source}, as long as such lines are",
            "upstream":["CVE-2024-{:04}"],"severity":[{{"type":"CVSS_V3",
            "score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}}],"affected":[{{"package":{{"ecosystem":"Debian:12",
            "name":"source-{source}"}},"ranges":[{{"type":"ECOSYSTEM","events":[{{"introduced":"0"}},
            {{"fixed":"1:2.{minor}.4-3+deb12u{minor}"}}]}}]}}]}}"#,
            1000 + n
        )?;
        importer.file(&format!("{n}.json"), text.as_bytes());
    }
    Ok(importer.finish()?.set)
}

fn inventory(node: usize, packages: usize) -> Result<Inventory, InventoryProblem> {
    let packages = (0..packages).map(|n| {
        // Every node has some packages of its own, and most of its versions are nearly the newest.
        let source = (n * 5 + node % 5) % SOURCES;
        let minor = 12 + (n * 7 + node) % 6;
        let version = format!("1:2.{minor}.4-3+deb12u{minor}");
        Package {
            source: format!("source-{source}"),
            source_version: version.clone(),
            name: format!("package-{n}-of-{source}"),
            version,
            architecture: "amd64".to_owned(),
        }
    });
    Inventory::new(PackageFormat::Dpkg, Distribution::of_node("debian", "12"), packages.collect())
}

/// Processor time of this thread, which other work on the machine does not lengthen (`proc_schedstat`: nanoseconds first).
fn worked() -> Result<Duration, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(text.split(' ').next().unwrap_or_default().parse()?))
}
