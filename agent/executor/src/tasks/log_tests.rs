//! Tests of `log.prune` over real files.

use std::io::Read;
use std::time::Duration;

use super::testing::Bench;
use crate::host::{FileProblem, Host};

const PROFILE: &str = r#"
    [vars]
    log_dir = "/var/log/fw"
    [log.cleanup]
    paths = ["{log_dir}/**/*.log"]
    exclude = ["{log_dir}/archive/**", "{log_dir}/audit/**"]
    archive = { after = "7d", directory = "{log_dir}/archive", compress = true }
    delete = { after = "30d", paths = ["{log_dir}/archive/*.log.gz"] }
    remove_empty_directories = { under = "{log_dir}", keep = ["{log_dir}/archive"] }
    [log.reports]
    paths = ["/reports/*.html"]
    compress_after = "7d"
    [log.greedy]
    paths = ["{log_dir}/**/*.log"]
    exclude = ["{log_dir}/audit/**"]
    delete = { after = "1d" }
"#;
const WITH: &str = r#"{"logs":["cleanup"]}"#;

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

fn bench() -> Bench {
    let bench = Bench::new(PROFILE);
    for (path, age) in [
        ("/var/log/fw/new.log", 1),
        ("/var/log/fw/fw.log", 10),
        ("/var/log/fw/a/fw.log", 10),
        ("/var/log/fw/b/fw.log", 10),
        ("/var/log/fw/audit/audit.log", 400),
        ("/var/log/fw/archive/old-20250101T000000Z.log.gz", 40),
    ] {
        bench.file(path, path.as_bytes());
        bench.age(path, days(age));
    }
    bench
}

#[test]
fn a_plan_changes_nothing_and_applying_twice_changes_nothing_more() {
    let bench = bench();
    let plan = bench.plan("log.prune", &bench.with(WITH)).unwrap();
    assert_eq!(plan.changes.len(), 4, "{:?}", plan.changes);
    let with = bench.with(r#"{"logs":["cleanup"],"plan_only":true}"#);
    assert_eq!(bench.apply("log.prune", &with).unwrap().changes.len(), 4);
    assert_eq!(bench.names("/var/log/fw"), ["a", "archive", "audit", "b", "fw.log", "new.log"]);

    let report = bench.apply("log.prune", &bench.with(WITH)).unwrap();
    assert_eq!(bench.names("/var/log/fw"), ["archive", "audit", "new.log"]);
    // Three of one name, none lost; the time of the last change is kept.
    let stamp = "20251112T140211Z";
    assert_eq!(
        bench.names("/var/log/fw/archive"),
        [format!("a.fw-{stamp}.log.gz"), format!("b.fw-{stamp}.log.gz"), format!("fw-{stamp}.log.gz")]
    );
    let packed = std::fs::File::open(bench.at("/var/log/fw/archive").join(format!("a.fw-{stamp}.log.gz")));
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "/var/log/fw/a/fw.log");
    assert!(report.samples.iter().any(|s| s.metric == "bytes_freed" && s.value > 0.0));
    assert!(bench.apply("log.prune", &bench.with(WITH)).unwrap().changes.is_empty());
    // Three weeks later they are old enough to go.
    bench.host.clock().pause(days(21), &bench.cancel);
    let report = bench.apply("log.prune", &bench.with(WITH)).unwrap();
    assert_eq!(report.changes.iter().filter(|c| c.action == "deleted").count(), 3);
    assert_eq!(bench.names("/var/log/fw/audit"), ["audit.log"]);
}

#[test]
fn an_open_file_stays() {
    let bench = bench();
    bench.host.hold_open("/var/log/fw/fw.log");
    let report = bench.apply("log.prune", &bench.with(WITH)).unwrap();
    assert!(report.summary.ends_with("1 files are open for writing and stay"), "{}", report.summary);
    assert!(bench.at("/var/log/fw/fw.log").exists());
    let report = bench.apply("log.prune", &bench.with(r#"{"logs":["greedy"]}"#)).unwrap();
    assert!(bench.at("/var/log/fw/fw.log").exists());
    assert!(report.summary.contains("1 files are open"));
    assert!(bench.at("/var/log/fw/audit/audit.log").exists(), "what is excluded stays");
}

#[test]
fn no_link_is_followed() {
    let bench = bench();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("x.log"), "x").unwrap();
    bench.file("/elsewhere/y.log", b"y");
    bench.age("/elsewhere/y.log", days(50));
    std::os::unix::fs::symlink(outside.path(), bench.at("/var/log/fw/out")).unwrap();
    std::os::unix::fs::symlink("/elsewhere", bench.at("/var/log/fw/in")).unwrap();
    std::os::unix::fs::symlink("/elsewhere/y.log", bench.at("/var/log/fw/y.log")).unwrap();
    for with in [WITH, r#"{"logs":["greedy"]}"#] {
        bench.apply("log.prune", &bench.with(with)).unwrap();
    }
    assert!(outside.path().join("x.log").exists());
    assert!(bench.at("/elsewhere/y.log").exists());
    assert!(bench.at("/var/log/fw/y.log").symlink_metadata().is_ok());
}

#[test]
fn a_failure_leaves_the_log_where_it_was() {
    let bench = bench();
    bench.host.script().disk_left = Some(20);
    let (_, report) = bench.failure("log.prune", &bench.with(WITH));
    assert_eq!(report.problems[0].code, "disk_full");
    assert!(bench.at("/var/log/fw/a/fw.log").exists());
    assert!(bench.names("/var/log/fw/archive").iter().all(|name| !name.contains("fleet-tmp")));
    bench.host.script().disk_left = None;
    // Written, and not yet removed where it was: a crash in between.
    bench.host.fail("remove", "/var/log/fw/a/fw.log", FileProblem::Other);
    bench.failure("log.prune", &bench.with(WITH));
    assert!(bench.at("/var/log/fw/a/fw.log").exists());
    bench.host.heal();
    bench.apply("log.prune", &bench.with(WITH)).unwrap();
    assert_eq!(bench.names("/var/log/fw/archive").len(), 3);
}

#[test]
fn reports_are_compressed_where_they_lie() {
    let bench = bench();
    bench.file("/reports/a.html", &[b'a'; 10_000]);
    bench.age("/reports/a.html", days(8));
    bench.file("/reports/b.html", b"b");
    let with = bench.with(r#"{"logs":["reports"]}"#);
    bench.apply("log.prune", &with).unwrap();
    assert_eq!(bench.names("/reports"), ["a.html.gz", "b.html"]);
    // Another one of that name a week later costs the first nothing, and a crash after its copy makes no third.
    bench.file("/reports/a.html", &[b'z'; 10_000]);
    bench.age("/reports/a.html", days(9));
    let plan = bench.plan("log.prune", &with).unwrap();
    assert_eq!(plan.changes[0].after, "/reports/a.html-20251113T140211Z.gz");
    bench.host.fail("remove", "/reports/a.html", FileProblem::Other);
    bench.failure("log.prune", &with);
    bench.host.heal();
    let report = bench.apply("log.prune", &with).unwrap();
    assert!(report.changes[0].after.starts_with("/reports/a.html-20251113T140211Z.gz ("), "{report:?}");
    assert_eq!(bench.names("/reports"), ["a.html-20251113T140211Z.gz", "a.html.gz", "b.html"]);
    for (name, byte) in [("a.html.gz", 'a'), ("a.html-20251113T140211Z.gz", 'z')] {
        let packed = std::fs::File::open(bench.at("/reports").join(name)).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        assert!(text.len() == 10_000 && text.chars().all(|c| c == byte), "{name}");
    }
    let none = Bench::new(PROFILE);
    let report = none.apply("log.prune", &none.with(r#"{"logs":["reports"]}"#)).unwrap();
    assert_eq!(report.problems[0].code, "empty_source");
}
