//! `log.configure` and `log.rotate` with the machine's own logrotate on files of a temporary root, and a real service that
//! opens its log anew. Needs the package logrotate; where it is not, these tests fail.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[path = "support/step.rs"]
mod step;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use fleet_executor::host::{Host, LinuxHost};
use fleet_executor::tasks::TaskError;
use fleet_types::document::profile::Profile;
use fleet_types::report::TaskReport;

use step::{Step, wait_for};

struct Node {
    folder: tempfile::TempDir,
    host: LinuxHost,
    profile: Profile,
}

impl Node {
    fn new(tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        let host = step::open(folder.path());
        Self { folder, host, profile: step::profile(tables) }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path.trim_start_matches('/'))
    }

    fn file(&self, path: &str, text: &str, mode: u32) {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn apply(&self, action: &str, with: &str, try_number: u32) -> Result<TaskReport, TaskError> {
        Step { try_number, ..Step::new(&self.host, &self.profile, with) }.carry_out(action)
    }
}

impl Drop for Node {
    /// Also after a failure: a service that goes on outlives the test.
    fn drop(&mut self) {
        let _ = self.host.units().stop_all();
    }
}

const WITH: &str = r#"{"logs":["main"],"only_due":false}"#;

#[test]
fn logs_are_rotated_compressed_and_opened_anew() {
    let node = Node::new(
        "[service.fw]\nunit = \"fw.service\"\n[log.main]\npaths = [\"/var/log/fw/*.log\"]\n\
         rotate = { every = \"hourly\", keep = 2 }\ncompress = true\nskip_empty = true\nafter = { reload = [\"fw\"] }\n",
    );
    let log = node.at("/var/log/fw/fw.log");
    node.file("/var/log/fw/fw.log", "", 0o644);
    node.file("/var/log/fw/empty.log", "", 0o644);
    let daemon = format!(
        "#!/bin/sh\nlog={0}\nexec >>\"$log\"\necho began\ntrap 'exec >>\"$log\"; echo again' HUP\n\
         while :; do sleep 0.05; done\n",
        log.display()
    );
    node.file("/usr/bin/fwd", &daemon, 0o755);
    let unit = "[Service]\nExecStart=/usr/bin/fwd\nExecReload=/bin/kill -HUP $MAINPID\n";
    node.file("/etc/systemd/system/fw.service", unit, 0o644);
    node.host.units().start("fw.service", Duration::from_secs(20)).unwrap();
    let text = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    wait_for("the service's first line", || text(&log) == "began\n");
    let report = node.apply("log.configure", WITH, 1).unwrap();
    assert_eq!(report.changes.len(), 1, "{report:?}");
    let before = std::fs::metadata(&log).unwrap().ino();
    let report = node.apply("log.rotate", WITH, 1).unwrap();
    let subjects: Vec<_> = report.changes.iter().map(|change| change.subject.as_str()).collect();
    assert_eq!(subjects, ["/var/log/fw/fw.log"], "the empty one stays: {report:?}");
    assert!(node.at("/var/log/fw/fw.log.1.gz").exists());
    wait_for("a line in the new log", || text(&log) == "again\n");
    assert_ne!(std::fs::metadata(&log).unwrap().ino(), before);
    // What is not due is left alone, and what ran once in a step does not run twice.
    let due = node.apply("log.rotate", r#"{"logs":["main"]}"#, 2).unwrap();
    assert!(due.changes.is_empty(), "{due:?}");
    let again = node.apply("log.rotate", WITH, 1).unwrap();
    assert_eq!(again.changes.len(), 1, "what it did is told: {again:?}");
    assert!(!node.at("/var/log/fw/fw.log.2.gz").exists());
    node.host.units().stop_all().unwrap();
}

#[test]
fn a_rule_with_an_error_is_never_put_in_place() {
    let node = Node::new(
        "[log.main]\npaths = [\"/var/log/fw/*.log\"]\nrotate = { every = \"daily\", keep = 2 }\n\
         create = { mode = \"0640\", user = \"nobody-of-this-name\", group = \"root\" }\n",
    );
    let error = node.apply("log.configure", WITH, 1).unwrap_err();
    assert!(error.to_string().contains("unknown user 'nobody-of-this-name'"), "{error}");
    let left: Vec<_> = std::fs::read_dir(node.at("/etc/logrotate.d")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
