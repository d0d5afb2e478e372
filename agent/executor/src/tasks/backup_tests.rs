//! Tests of backups over real files: what is in an archive, what happens when something breaks, and what goes.

use std::io::Read;
use std::time::Duration;

use fleet_types::digest::Digest;
use fleet_types::id::RunId;
use fleet_types::listing;
use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;

use super::TaskError;
use super::testing::{Bench, With};
use crate::host::{FileProblem, Host};

const PROFILE: &str = r#"
    [backup.config]
    kind = "files"
    sources = ["/etc/edgefw", "/var/log/*.log", "/nothing/*"]
    exclude = ["/etc/edgefw/cache/**"]
    directory = "/var/backups"
    file_name = "config-{timestamp}.tar.gz"
    keep = { days = 30, count = 2 }
    fresh_within = "8d"
    verify = ["checksum", "list"]
"#;
const ARCHIVE: &str = "/var/backups/config-20251122T140211Z.tar.gz";

fn bench() -> (Bench, With) {
    let bench = Bench::new(PROFILE);
    bench.file("/etc/edgefw/firewall.json", b"{\"a\":1}");
    bench.file("/etc/edgefw/scripts/x.py", &vec![b'x'; 100_000]);
    bench.file("/etc/edgefw/cache/c", b"cache");
    bench.file("/var/log/fw.log", b"log");
    let with = bench.with(r#"{"backup":"config"}"#);
    (bench, with)
}

fn days(days: u64) -> Duration {
    Duration::from_hours(24 * days)
}

/// The next day, and another run.
fn next_day(bench: &mut Bench, number: u64) {
    bench.host.clock().pause(days(1), &bench.cancel);
    bench.step.job_started = bench.host.clock().now();
    bench.step.run = RunId::from_number(1000 + number);
}

fn codes(report: &TaskReport) -> Vec<&str> {
    report.problems.iter().map(|p| p.code.as_str()).collect()
}

/// Only whole archives and their checksums may lie there.
fn assert_nothing_half(bench: &Bench) {
    for name in bench.names("/var/backups") {
        assert!(!name.contains("fleet-tmp"), "{name}");
        let archive = name.trim_end_matches(".sha256");
        assert!(bench.at("/var/backups").join(archive).exists(), "{name} without its archive");
    }
}

#[test]
fn an_archive_holds_what_is_declared_and_reads_back() {
    let (bench, with) = bench();
    assert_eq!(bench.plan("backup.run", &with).unwrap().changes.len(), 1);
    assert!(bench.names("/var/backups").is_empty(), "a plan only reads");
    let report = bench.apply("backup.run", &with).unwrap();
    assert_eq!(codes(&report), ["empty_source"]);
    let artifact = &report.artifacts[0];
    assert_eq!((artifact.path.as_str(), artifact.verified), (ARCHIVE, true));
    assert_eq!(artifact.tag, bench.step.run.to_string());

    let file = std::fs::File::open(bench.at(ARCHIVE)).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut names = Vec::new();
    let mut manifest = String::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        names.push(entry.path().unwrap().display().to_string());
        if names.last().unwrap() == "manifest.json" {
            entry.read_to_string(&mut manifest).unwrap();
        }
    }
    assert_eq!(
        names,
        [
            "etc/edgefw",
            "etc/edgefw/firewall.json",
            "etc/edgefw/scripts",
            "etc/edgefw/scripts/x.py",
            "var/log/fw.log",
            "manifest.json"
        ]
        .map(str::to_owned)
        .map(|name| names.iter().find(|n| n.trim_end_matches('/') == name).cloned().unwrap_or(name))
    );
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let member = &manifest["members"][1];
    assert_eq!(member["path"], "/etc/edgefw/firewall.json");
    assert_eq!(member["sha256"], Digest::of(b"{\"a\":1}").to_string());

    let verify = bench.with(r#"{"backups":["config"]}"#);
    assert_eq!(bench.apply("backup.verify", &verify).unwrap().artifacts[0].sha256, artifact.sha256);
    let by_tag = bench.with(&format!(r#"{{"backups":["config"],"tag":"{}"}}"#, bench.step.run));
    assert!(bench.apply("backup.verify", &by_tag).is_ok());
    let by_day = bench.with(r#"{"backups":["config"],"date":"20251122"}"#);
    assert!(bench.apply("backup.verify", &by_day).is_ok());
    let other = bench.with(r#"{"backups":["config"],"date":"20251121"}"#);
    assert_eq!(codes(&bench.failure("backup.verify", &other).1), ["no_backup"]);
    bench.host.clock().pause(days(9), &bench.cancel);
    assert_eq!(codes(&bench.failure("backup.verify", &verify).1), ["stale_backup"]);
}

#[test]
fn w05_an_archive_is_listed_so_that_it_can_be_compared() {
    use std::os::unix::ffi::OsStrExt as _;
    let (bench, with) = bench();
    let odd = std::ffi::OsStr::from_bytes(b"a\xff\nb");
    std::fs::write(bench.at("/etc/edgefw").join(odd), "odd").unwrap();
    std::os::unix::fs::symlink("firewall.json", bench.at("/etc/edgefw/link")).unwrap();
    let archive = bench.apply("backup.run", &with).unwrap().artifacts[0].sha256;
    let made = listing::read(&bench.printed.text(), archive).unwrap();
    let found: Vec<_> = made.iter().map(|entry| (entry.kind.as_str(), entry.path.as_str())).collect();
    assert_eq!(
        found,
        [
            ("directory", "/etc/edgefw"),
            ("file", "/etc/edgefw/a\\xff\nb"),
            ("file", "/etc/edgefw/firewall.json"),
            ("link", "/etc/edgefw/link"),
            ("directory", "/etc/edgefw/scripts"),
            ("file", "/etc/edgefw/scripts/x.py"),
            ("file", "/var/log/fw.log"),
        ]
    );
    assert_eq!(made[2].sha256, Some(Digest::of(b"{\"a\":1}")));
    assert_eq!(made[3].target.as_deref(), Some("firewall.json"));
    // Who verifies it lists it where that is asked for, and only there.
    let printed = bench.printed.text();
    bench.apply("backup.verify", &bench.with(r#"{"backups":["config"]}"#)).unwrap();
    assert_eq!(bench.printed.text(), printed);
    bench.apply("backup.verify", &bench.with(r#"{"backups":["config"],"listing":true}"#)).unwrap();
    assert_eq!(bench.printed.text(), printed.repeat(2));
}

#[test]
fn carried_out_again_it_takes_what_is_there() {
    let (bench, with) = bench();
    let first = bench.apply("backup.run", &with).unwrap();
    // A crash after the rename: the checksum may be missing, and the sources may have changed since.
    std::fs::remove_file(bench.at(&format!("{ARCHIVE}.sha256"))).unwrap();
    bench.file("/etc/edgefw/firewall.json", b"changed");
    let second = bench.apply("backup.run", &with).unwrap();
    assert!(second.changes.is_empty());
    assert_eq!(second.artifacts, first.artifacts);
    assert_eq!(bench.names("/var/backups").len(), 2);
    // A crash in the middle of writing: what it left goes.
    std::fs::remove_file(bench.at(ARCHIVE)).unwrap();
    bench.file("/var/backups/.config-20251122T140211Z.tar.gz.fleet-tmp", b"half");
    assert!(bench.apply("backup.run", &with).is_ok());
    assert_nothing_half(&bench);
}

#[test]
fn the_same_content_gives_the_same_bytes() {
    let (bench, with) = bench();
    let first = bench.apply("backup.run", &with).unwrap();
    std::fs::remove_file(bench.at(ARCHIVE)).unwrap();
    let second = bench.apply("backup.run", &with).unwrap();
    assert_eq!(first.artifacts[0].sha256, second.artifacts[0].sha256);
}

#[test]
fn runs_that_begin_in_one_second_have_an_archive_each() {
    let (mut bench, with) = bench();
    let first = bench.apply("backup.run", &with).unwrap();
    bench.step.run = RunId::from_number(99);
    let second = bench.apply("backup.run", &with).unwrap();
    assert!(second.artifacts[0].path.ends_with("config-20251122T140211Z-2.tar.gz"), "{second:?}");
    // Its own is found again, also when the plain name has become free.
    std::fs::remove_file(bench.at(ARCHIVE)).unwrap();
    assert_eq!(bench.apply("backup.run", &with).unwrap().artifacts, second.artifacts);
    assert_ne!(first.artifacts[0].path, second.artifacts[0].path);
    assert!(!bench.at(ARCHIVE).exists());
}

#[test]
fn an_archive_of_another_run_is_never_replaced() {
    let mut bench = Bench::new(&PROFILE.replace("config-{timestamp}.tar.gz", "config.tar.gz"));
    bench.file("/etc/edgefw/firewall.json", b"{}");
    let with = bench.with(r#"{"backup":"config"}"#);
    bench.apply("backup.run", &with).unwrap();
    bench.step.run = RunId::from_number(99);
    let (message, _) = bench.failure("backup.run", &with);
    assert!(message.contains("of another run"), "{message}");
    let verify = bench.with(r#"{"backups":["config"]}"#);
    assert!(bench.apply("backup.verify", &verify).is_ok());
}

#[test]
fn whatever_breaks_no_half_archive_stays_and_nothing_older_goes() {
    let (mut bench, with) = bench();
    for day in 0..3 {
        bench.apply("backup.run", &with).unwrap();
        next_day(&mut bench, day);
    }
    // Old enough to go with the next good one.
    bench.host.clock().pause(days(40), &bench.cancel);
    let before = bench.names("/var/backups");
    let faults: [(&str, &str, FileProblem, &str); 6] = [
        ("open", "/etc/edgefw/firewall.json", FileProblem::Denied, "unreadable_file"),
        ("read", "/etc/edgefw/scripts/x.py", FileProblem::Other, "unreadable_file"),
        ("list", "/etc/edgefw/scripts", FileProblem::Denied, "unreadable_file"),
        ("create", "/var/backups", FileProblem::Full, "disk_full"),
        ("rename", "/var/backups", FileProblem::Other, "unreadable_file"),
        ("fsync", "/var/backups", FileProblem::Other, "unreadable_file"),
    ];
    for (operation, path, problem, code) in faults {
        bench.host.fail(operation, path, problem);
        let (message, report) = bench.failure("backup.run", &with);
        assert!(message.starts_with("backup config failed"), "{message}");
        assert!(codes(&report).contains(&code), "{operation}: {:?}", report.problems);
        bench.host.heal();
        if operation != "fsync" {
            assert_eq!(bench.names("/var/backups"), before, "{operation}");
        }
        assert_nothing_half(&bench);
    }
    bench.apply("backup.run", &with).unwrap();
    assert!(bench.names("/var/backups").len() <= before.len(), "a good one lets old ones go");
}

#[test]
fn what_goes_away_or_has_no_content_is_noted_and_fails_nothing() {
    let (bench, with) = bench();
    std::os::unix::net::UnixListener::bind(bench.at("/etc/edgefw/socket")).unwrap();
    std::fs::hard_link(bench.at("/etc/edgefw/firewall.json"), bench.at("/etc/edgefw/same.json")).unwrap();
    // As seen by a walk: listed, and gone when it is opened, or when the folder is listed.
    bench.host.fail("open", "/etc/edgefw/scripts/x.py", FileProblem::NotFound);
    let report = bench.apply("backup.run", &with).unwrap();
    assert_eq!(codes(&report), ["empty_source", "special_file", "vanished", "hard_links"]);
    let manifest = manifest(&bench);
    let left_out = &manifest["left_out"];
    assert_eq!(left_out[0]["path"], "/etc/edgefw/scripts/x.py");
    assert_eq!((&left_out[0]["why"], &left_out[1]["why"]), (&"vanished".into(), &"special".into()));
    let same = manifest["members"].as_array().unwrap().iter().find(|m| m["path"] == "/etc/edgefw/same.json");
    assert_eq!(same.unwrap()["same_as"], "/etc/edgefw/firewall.json");
    bench.host.heal();
    assert!(bench.apply("backup.verify", &bench.with(r#"{"backups":["config"]}"#)).is_ok());

    let (bench, with) = self::bench();
    bench.host.fail("list", "/etc/edgefw/scripts", FileProblem::NotFound);
    assert!(bench.apply("backup.run", &with).is_ok());
}

#[test]
fn attributes_and_old_times_are_kept() {
    let (bench, with) = bench();
    // A capability holds line breaks and zeros.
    let value = b"\x01\n\0\x02=\n".to_vec();
    let attribute = [("security.capability".to_owned(), value.clone())];
    bench.host.script().attributes.insert("/etc/edgefw/firewall.json".into(), attribute.to_vec());
    let old = std::time::UNIX_EPOCH - Duration::from_hours(24);
    let file = std::fs::File::options().append(true).open(bench.at("/var/log/fw.log")).unwrap();
    file.set_modified(old).unwrap();
    bench.apply("backup.run", &with).unwrap();
    let mut tar = Vec::new();
    let packed = std::fs::File::open(bench.at(ARCHIVE)).unwrap();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut tar).unwrap();
    let has = |bytes: &[u8]| tar.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(&[b" SCHILY.xattr.security.capability=".as_slice(), &value].concat()));
    assert!(has(b" mtime=-86400\n"));
    let manifest = manifest(&bench);
    assert_eq!(manifest["members"][1]["attributes"][0], "security.capability");
    assert!(bench.apply("backup.verify", &bench.with(r#"{"backups":["config"]}"#)).is_ok());
}

fn manifest(bench: &Bench) -> serde_json::Value {
    let file = std::fs::File::open(bench.at(ARCHIVE)).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut text = String::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().display().to_string() == "manifest.json" {
            entry.read_to_string(&mut text).unwrap();
        }
    }
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_source_that_is_a_link_is_refused() {
    let (bench, with) = bench();
    std::fs::rename(bench.at("/etc/edgefw"), bench.at("/etc/real")).unwrap();
    std::os::unix::fs::symlink("real", bench.at("/etc/edgefw")).unwrap();
    let (message, report) = bench.failure("backup.run", &with);
    assert!(message.contains("it is a link, which is not followed"), "{message}");
    assert!(codes(&report).contains(&"unreadable_file"));
    assert!(bench.names("/var/backups").is_empty());
    // A link of this account above the source is the machine's own layout.
    let bench = Bench::new(&PROFILE.replace("\"/etc/edgefw\"", "\"/etc/edgefw/deep\""));
    bench.file("/etc/real/deep/x", b"x");
    std::os::unix::fs::symlink("real", bench.at("/etc/edgefw")).unwrap();
    assert!(bench.apply("backup.run", &bench.with(r#"{"backup":"config"}"#)).is_ok());
}

#[test]
fn there_must_be_room_for_all_of_it_before_it_begins() {
    let (bench, with) = bench();
    bench.host.script().space = Some(crate::host::Space { total: 1 << 30, available: 100_000, used: 0 });
    let (message, report) = bench.failure("backup.run", &with);
    assert!(message.contains("100000 are free"), "{message}");
    assert!(codes(&report).contains(&"disk_full"));
    assert!(bench.names("/var/backups").is_empty());
}

#[test]
fn a_cancel_ends_within_a_large_file() {
    let (bench, with) = bench();
    bench.file("/etc/edgefw/scripts/x.py", &vec![b'x'; 4 << 20]);
    bench.host.script().cancel_on_read = Some(bench.cancel.clone());
    assert!(matches!(bench.apply("backup.run", &with), Err(TaskError::Cancelled(_))));
    assert!(bench.names("/var/backups").is_empty());
}

#[test]
fn a_full_disk_fails_the_backup_at_any_byte() {
    let (bench, with) = bench();
    for left in [0, 10, 100, 300, 600] {
        bench.host.script().disk_left = Some(left);
        let (_, report) = bench.failure("backup.run", &with);
        assert!(codes(&report).contains(&"disk_full"), "{left}: {:?}", report.problems);
        assert!(bench.names("/var/backups").is_empty(), "{left}");
    }
    bench.host.script().disk_left = None;
    assert!(bench.apply("backup.run", &with).is_ok());
}

#[test]
fn links_are_noted_and_never_followed_out() {
    let (bench, with) = bench();
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(outside.path(), "secret").unwrap();
    std::os::unix::fs::symlink(outside.path(), bench.at("/etc/edgefw/out")).unwrap();
    std::os::unix::fs::symlink(".", bench.at("/etc/edgefw/loop")).unwrap();
    std::os::unix::fs::symlink("/../../../../etc", bench.at("/etc/edgefw/up")).unwrap();
    let report = bench.apply("backup.run", &with).unwrap();
    assert_eq!(codes(&report).iter().filter(|c| **c == "link").count(), 3);
    let file = std::fs::File::open(bench.at(ARCHIVE)).unwrap();
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut text).unwrap();
    assert!(!text.windows(6).any(|window| window == b"secret"));
    // A folder of archives that leads out is refused as well.
    std::fs::remove_dir_all(bench.at("/var/backups")).unwrap();
    std::os::unix::fs::symlink("/tmp", bench.at("/var/backups")).unwrap();
    bench.failure("backup.run", &with);
}

#[test]
fn a_damaged_archive_is_found_wherever_it_is_damaged() {
    let (bench, with) = bench();
    bench.apply("backup.run", &with).unwrap();
    let verify = bench.with(r#"{"backups":["config"]}"#);
    let good = std::fs::read(bench.at(ARCHIVE)).unwrap();
    for at in (10..good.len()).step_by(good.len() / 40 + 1) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(bench.at(ARCHIVE), &bad).unwrap();
        let (_, report) = bench.failure("backup.verify", &verify);
        assert_eq!(report.problems[0].severity, Severity::Critical, "byte {at}");
    }
    std::fs::write(bench.at(ARCHIVE), &good[..good.len() - 1]).unwrap();
    bench.failure("backup.verify", &verify);
    std::fs::write(bench.at(ARCHIVE), &good).unwrap();
    assert!(bench.apply("backup.verify", &verify).is_ok());
}

#[test]
fn pruning_never_takes_the_last_good_one() {
    let (mut bench, with) = bench();
    for day in 0..5 {
        let no_prune = bench.with(r#"{"backup":"config","prune":false}"#);
        bench.apply("backup.run", &no_prune).unwrap();
        next_day(&mut bench, day);
    }
    // Foreign files that look the same stay whatever happens.
    bench.file("/var/backups/config-x.tar.gz", b"not ours");
    bench.host.clock().pause(days(400), &bench.cancel);
    // The four newest are damaged: the only good one is the oldest.
    let archives: Vec<_> =
        bench.names("/var/backups").into_iter().filter(|n| n.ends_with("Z.tar.gz")).collect();
    assert_eq!(archives.len(), 5);
    for name in &archives[1..] {
        let path = bench.at("/var/backups").join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        std::fs::write(&path, bytes).unwrap();
    }
    let prune = bench.with(r#"{"backups":["config"]}"#);
    let planned = bench.plan("backup.prune", &prune).unwrap().changes.len();
    let report = bench.apply("backup.prune", &prune).unwrap();
    assert_eq!(report.changes.len(), planned);
    let left = bench.names("/var/backups");
    assert!(left.contains(&archives[0]), "{left:?}");
    assert!(left.contains(&"config-x.tar.gz".to_owned()));
    assert!(bench.apply("backup.prune", &prune).unwrap().changes.is_empty(), "a second time changes nothing");
    // With none good, none goes.
    std::fs::write(bench.at("/var/backups").join(&archives[0]), b"").unwrap();
    let before = bench.names("/var/backups");
    bench.host.heal();
    let result = bench.apply("backup.prune", &prune);
    assert!(matches!(result, Err(TaskError::Failed { .. })), "{result:?}");
    assert_eq!(bench.names("/var/backups"), before);
    assert!(bench.apply("backup.run", &with).is_ok());
}

#[test]
fn what_is_not_built_says_so() {
    let mut bench = Bench::new(
        "[backup.db]\nkind = \"database\"\ndatabase = \"main\"\ndirectory = \"/b\"\n\
         file_name = \"x-{timestamp}.gz\"\nkeep = { days = 1 }\n\
         [backup.none]\nwhen = \"facts.edgefw\"\nkind = \"files\"\nsources = [\"/x\"]\ndirectory = \"/b\"\n\
         file_name = \"n-{timestamp}.gz\"\nkeep = { days = 1 }\n",
    );
    let error = bench.apply("backup.run", &bench.with(r#"{"backup":"db"}"#)).unwrap_err();
    assert_eq!(error.to_string(), "the profile declares no database \"main\"");
    let error = bench.apply("backup.run", &bench.with(r#"{"backup":"none"}"#)).unwrap_err();
    assert!(error.to_string().contains("fact edgefw is not known on this node"), "{error}");
    bench.facts.flags.insert("edgefw".to_owned(), false);
    let report = bench.apply("backup.run", &bench.with(r#"{"backup":"none"}"#)).unwrap();
    assert!(report.summary.starts_with("skipped"), "{}", report.summary);
}

#[test]
fn a_cancel_or_the_end_of_the_time_leaves_nothing_behind() {
    let (bench, with) = bench();
    let super::Task::Change(task) = super::find("backup.run").unwrap() else { panic!("it changes") };
    let mut context = bench.context(&with);
    context.deadline = std::time::Instant::now();
    let error = task.apply(&context).unwrap_err();
    let timeout = Some(super::RetryKind::Timeout);
    assert!(matches!(&error, TaskError::Failed { retry, .. } if *retry == timeout), "{error:?}");
    bench.cancel.cancel();
    assert!(matches!(bench.apply("backup.run", &with), Err(TaskError::Cancelled(_))));
    assert!(bench.names("/var/backups").is_empty());
}
