//! Tasks and files on the real machine, below a root: ways out of it, a disk that is really full, the node's own
//! Python, and the throughput of a backup.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[path = "support/step.rs"]
mod step;

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_executor::facts;
use fleet_executor::host::{FileProblem, Host, LinuxHost, read_all, write_atomic};
use fleet_executor::tasks::TaskError;
use fleet_types::report::TaskReport;

use step::Step;

struct Node {
    folder: tempfile::TempDir,
    host: LinuxHost,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        let host = step::open(folder.path());
        Self { folder, host }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path.trim_start_matches('/'))
    }

    fn file(&self, path: &str, bytes: &[u8]) {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn apply(&self, tables: &str, action: &str, with: &str) -> Result<TaskReport, TaskError> {
        let profile = step::profile(tables);
        let facts = facts::gather(&self.host, "0.1.0");
        Step { facts, ..Step::new(&self.host, &profile, with) }.carry_out(action)
    }
}

#[test]
fn no_way_leads_out_of_the_root() {
    let node = Node::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    node.file("/etc/in", b"inside");
    symlink(outside.path(), node.at("/out")).unwrap();
    symlink(outside.path().join("secret"), node.at("/etc/secret")).unwrap();
    symlink("../../../../../../../../etc/passwd", node.at("/etc/up")).unwrap();
    symlink("/proc/self/root/etc/passwd", node.at("/etc/magic")).unwrap();
    symlink("/etc", node.at("/alias")).unwrap();
    let files = node.host.files();
    for path in ["/out/secret", "/etc/secret", "/etc/up", "/etc/magic", "/etc/../../etc/passwd", "relative"] {
        assert!(read_all(files, Path::new(path), 100).is_err(), "{path}");
    }
    // A link inside the root is followed by readers, and by nothing that changes anything.
    assert_eq!(read_all(files, Path::new("/alias/in"), 100).unwrap(), b"inside");
    assert_eq!(files.canonical(Path::new("/alias/in")).unwrap(), Path::new("/etc/in"));
    for error in [
        write_atomic(files, Path::new("/alias/new"), b"x", 0o600).unwrap_err(),
        files.remove_file(Path::new("/alias/in")).unwrap_err(),
        files.rename(Path::new("/etc/in"), Path::new("/alias/in2")).unwrap_err(),
        files.list(Path::new("/alias")).unwrap_err(),
        files.make_directories(Path::new("/alias/d"), 0o700).unwrap_err(),
    ] {
        // The kernel calls a link in a folder's place ELOOP or ENOTDIR.
        assert!(matches!(error.problem, FileProblem::Link | FileProblem::WrongKind), "{error}");
    }
    assert!(files.create(Path::new("/out/new"), 0o600).is_err());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    write_atomic(files, Path::new("/etc/in"), b"new", 0o640).unwrap();
    assert_eq!(std::fs::read(node.at("/etc/in")).unwrap(), b"new");
    assert_eq!(files.stat(Path::new("/etc/in")).unwrap().mode, 0o640);
    let error = read_all(files, Path::new("/etc/in"), 2).unwrap_err();
    assert_eq!(error.problem, FileProblem::TooLarge);
}

#[test]
fn a_pipe_in_a_files_place_holds_nobody() {
    let node = Node::new();
    let pipe = node.at("/pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = node.host.files().open(Path::new("/pipe")).err().unwrap();
    assert_eq!(error.problem, FileProblem::WrongKind);
}

const BACKUP: &str = "[backup.data]\nkind = \"files\"\nsources = [\"/data\"]\ndirectory = \"/backups\"\n\
    file_name = \"data-{timestamp}.tar.gz\"\nkeep = { count = 2 }\n";

/// Mounts a file system of one megabyte; says loudly where that is not permitted, because then only the scripted
/// full disk has been tried.
#[test]
fn a_backup_onto_a_full_disk_leaves_nothing() {
    let node = Node::new();
    std::fs::create_dir(node.at("/backups")).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "none"])
        .arg(node.at("/backups"))
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        let _ = writeln!(
            std::io::stderr(),
            "NOT TRIED: a really full disk, because mounting is not permitted here; \
             backup_tests tries a scripted one"
        );
        return;
    }
    // Random enough not to be compressed below a megabyte.
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(3_000_000)
    .collect();
    node.file("/data/noise", &noise);
    let result = node.apply(BACKUP, "backup.run", r#"{"backup":"data"}"#);
    let left = std::fs::read_dir(node.at("/backups")).unwrap().count();
    let unmounted = std::process::Command::new("umount").arg(node.at("/backups")).status().unwrap();
    assert!(unmounted.success());
    let Err(TaskError::Failed { report, .. }) = result else { panic!("the disk is full: {result:?}") };
    assert_eq!(report.problems[0].code, "disk_full", "{:?}", report.problems);
    assert_eq!(left, 0);
}

#[test]
fn the_nodes_own_python_finds_broken_scripts_and_writes_nothing() {
    let node = Node::new();
    let profile = "[validator.scripts]\nkind = \"python_syntax\"\npaths = [\"/scripts/**/*.py\"]\n";
    let with = r#"{"validators":["scripts"]}"#;
    node.file("/scripts/good.py", b"import nothing_of_this_name\nprint(1)\n");
    if let Err(TaskError::Failed { report, .. }) = node.apply(profile, "config.validate", with) {
        let _ = writeln!(std::io::stderr(), "NOT TRIED: python3 is not here: {:?}", report.problems);
        assert!(report.problems.iter().all(|p| p.code == "not_available"));
        return;
    }
    node.file("/scripts/a/broken.py", b"x = 1\ndef f(:\n");
    node.file("/scripts/b/nul.py", b"x = '\0'\n");
    let Err(TaskError::Failed { report, .. }) = node.apply(profile, "config.validate", with) else {
        panic!("two scripts are broken")
    };
    let subjects: Vec<_> = report.problems.iter().map(|p| p.subject.as_str()).collect();
    assert_eq!(subjects.len(), 2, "{:?}", report.problems);
    assert_eq!(subjects[0], "/scripts/a/broken.py:2");
    assert!(subjects[1].starts_with("/scripts/b/nul.py"));
    assert!(!node.at("/scripts/__pycache__").exists() && !node.at("/scripts/a/__pycache__").exists());
}

/// A node of its own facts; the score of a check on it; a log that this very process holds open.
#[test]
fn the_machine_is_read_for_real() {
    let node = Node::new();
    node.file("/etc/os-release", b"ID=debian\nVERSION_ID=\"12\"\n");
    let facts = facts::gather(&node.host, "0.1.0");
    assert_eq!((facts.os.as_str(), facts.units.as_str()), ("debian", "supervised"));
    assert!(facts.cpus > 0 && facts.memory_bytes > 0 && facts.boot_id.len() == 36);
    let report = node.apply("", "metrics.collect", "{}").unwrap();
    assert!(report.samples.iter().any(|s| s.metric == "cpu_used"));
    let checks = "[check.memory]\nkind = \"memory_used\"\ncritical = 100\nevery = \"1m\"\n\
                  [check.disk]\nkind = \"disk_free\"\npath = \"/\"\ncritical = 0\nevery = \"1m\"\n";
    let report = node.apply(checks, "health.check", "{}").unwrap();
    assert!(report.summary.contains("health score 100"), "{}", report.summary);

    let logs = "[log.old]\npaths = [\"/log/*.log\"]\ndelete = { after = \"1d\" }\n";
    node.file("/log/open.log", b"x");
    node.file("/log/closed.log", b"x");
    let old = std::time::UNIX_EPOCH + Duration::from_hours(500_000 - 100_000);
    let held = std::fs::File::options().append(true).open(node.at("/log/open.log")).unwrap();
    held.set_modified(old).unwrap();
    std::fs::File::options()
        .append(true)
        .open(node.at("/log/closed.log"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    node.apply(logs, "log.prune", r#"{"logs":["old"]}"#).unwrap();
    assert!(node.at("/log/open.log").exists() && !node.at("/log/closed.log").exists());
    drop(held);
    node.apply(logs, "log.prune", r#"{"logs":["old"]}"#).unwrap();
    assert!(!node.at("/log/open.log").exists());
}
