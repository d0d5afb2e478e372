//! The firewall stand-in really does what it says: its programs are run in a freshly laid out root.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fleet_types::time::Timestamp;

use super::super::node_spec::nodes;
use super::lay_out;

/// Everything here takes milliseconds; a busy machine may need longer.
const LIMIT: Duration = Duration::from_secs(30);
/// 2026-01-05.
const NOW: Duration = Duration::from_hours(491_000);

fn laid_out() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    lay_out(folder.path(), &nodes(6)[0], Timestamp::clamped(i64::try_from(NOW.as_millis()).unwrap()))
        .unwrap();
    folder
}

fn cli(root: &Path, arguments: &[&str]) -> Output {
    // As a step runs it: found by its full path, no other variables than PATH, another working directory.
    Command::new(root.join("usr/local/sbin/zehrasec-cli"))
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn until(why: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "waited {} s for: {why}", LIMIT.as_secs());
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

struct Daemon(Child);

impl Daemon {
    fn start(root: &Path, name: &str) -> Self {
        let mut command = Command::new(root.join("usr/local/sbin").join(name));
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn stop(&mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn its_own_configuration_is_valid() {
    let root = laid_out();
    for arguments in [
        &["config", "validate", "--file", "/etc/zehrasec/firewall.json"][..],
        &["rules", "validate", "--file", "/etc/zehrasec/rules.json"],
        &["config", "validate"],
        &["rules", "validate"],
        &["db", "status"],
        &["version"],
    ] {
        let output = cli(root.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
    let config = std::fs::read_to_string(root.path().join("etc/zehrasec/firewall.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!((config["node"].as_str(), config["site"].as_str()), (Some("fw-ams2-01"), Some("ams2")));
    assert_eq!(config["high_availability"]["group"], "ams2-edge");
}

#[test]
fn mistakes_are_found_and_named() {
    let root = laid_out();
    let file = root.path().join("etc/zehrasec/firewall.json");
    let good = std::fs::read_to_string(&file).unwrap();
    let rules = std::fs::read_to_string(root.path().join("etc/zehrasec/rules.json")).unwrap();
    let cases = [
        (
            "config",
            good.replacen("\"version\": 3,", "\"version\": 3", 1),
            "firewall.json:3:3: expected , or }",
        ),
        ("config", good.replacen("\"node\"", "\"nod\"", 1), "\"node\" is missing"),
        (
            "config",
            good.replacen("\"default_action\": \"drop\"", "\"default_action\": \"accept\"", 1),
            "expected drop or reject",
        ),
        ("config", good.replacen("\"version\"", "\"node\"", 1), "\"node\" is there twice"),
        ("config", good[..good.len() / 2].to_owned(), "firewall.json:"),
        ("config", String::new(), "expected a value"),
        ("rules", rules.replacen("\"id\": 20,", "\"id\": 10,", 1), "rule 2 (invalid): id 10 is not above"),
        ("rules", rules.replacen("\"accept\"", "\"allow\"", 1), "rule 1 (established): \"action\""),
        (
            "rules",
            rules.replace("\"drop\", \"from\": \"any\"", "\"accept\", \"from\": \"any\""),
            "the last rule accepts",
        ),
        ("rules", "{\"version\": 3, \"rules\": []}".to_owned(), "there is no rule"),
    ];
    for (what, content, complaint) in cases {
        std::fs::write(&file, content).unwrap();
        let output = cli(root.path(), &[what, "validate", "--file", "/etc/zehrasec/firewall.json"]);
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        assert!(text(&output.stderr).contains(complaint), "{complaint}: {}", text(&output.stderr));
    }
    std::fs::remove_file(&file).unwrap();
    let output = cli(root.path(), &["config", "validate"]);
    assert!(text(&output.stderr).contains("no such file"), "{output:?}");
}

#[test]
fn nothing_outside_its_root_is_looked_at() {
    let root = laid_out();
    let output = cli(root.path(), &["config", "validate", "--file", "/../../etc/passwd"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("leaves the node's root"), "{output:?}");
    for wrong in [&["reboot"][..], &[], &["status", "--xml"], &["config", "validate", "/etc/x"]] {
        assert_eq!(cli(root.path(), wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn signatures_are_updated_once_a_day_and_old_ones_go() {
    let root = laid_out();
    let folder = root.path().join("var/lib/zehrasec/signatures");
    let base = std::fs::read_to_string(folder.join("signatures-base.sig")).unwrap();
    for day in 1..=8 {
        std::fs::write(folder.join(format!("signatures-2025-01-{day:02}.sig")), &base).unwrap();
    }
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let first = cli(root.path(), &["signatures", "update"]);
    assert!(first.status.success() && text(&first.stdout).contains("6 in all"), "{first:?}");
    let after = names();
    assert_eq!(after.len(), 8, "seven dated ones and the base: {after:?}");
    assert!(
        after.contains(&"signatures-base.sig".to_owned())
            && !after.contains(&"signatures-2025-01-02.sig".to_owned())
    );
    let second = cli(root.path(), &["signatures", "update"]);
    // Two updates around midnight both change something; then the third of the test cannot.
    assert!(second.status.success());
    let third = cli(root.path(), &["signatures", "update"]);
    assert!(text(&third.stdout).contains("are there already"), "{third:?}");
    // A damaged newest file is neither built upon nor replaced.
    let newest = names().into_iter().rfind(|name| !name.contains("base")).unwrap();
    std::fs::write(folder.join(&newest), "# zehrasec signatures\nZS-000001 tcp 1 x\n# end 9\n").unwrap();
    let refused = cli(root.path(), &["signatures", "update"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text(&refused.stderr).contains("damaged"), "{refused:?}");
}

#[test]
fn it_is_healthy_while_its_daemons_run() {
    let root = laid_out();
    let stopped = cli(root.path(), &["status", "--json"]);
    assert_eq!(stopped.status.code(), Some(1));
    let mut daemons =
        [Daemon::start(root.path(), "zehrasec-firewalld"), Daemon::start(root.path(), "zehrasec-webd")];
    until("both daemons run", || cli(root.path(), &["status"]).status.success());
    let status = cli(root.path(), &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((status["healthy"].as_bool(), status["rules"].as_u64()), (Some(true), Some(11)));
    for daemon in &mut daemons {
        assert!(daemon.stop().success(), "SIGTERM is a good end");
    }
    assert!(!cli(root.path(), &["status"]).status.success());
    let log = std::fs::read_to_string(root.path().join("var/log/zehrasec/firewall.log")).unwrap();
    assert!(log.contains(": started, 11 rules") && log.trim_end().ends_with("stopping"), "{log}");
    std::fs::write(root.path().join("var/lib/zehrasec/events.db"), "zehrasec-events 3\n1 x\nend 7\n")
        .unwrap();
    assert!(text(&cli(root.path(), &["db", "status"]).stderr).contains("is damaged"));
}

#[test]
fn logs_have_ages_and_files_their_modes() {
    let root = laid_out();
    let age = |path: &str| {
        let metadata = std::fs::metadata(root.path().join(path)).unwrap();
        let now = std::time::UNIX_EPOCH + NOW;
        now.duration_since(metadata.modified().unwrap()).unwrap().as_secs() / 86_400
    };
    assert_eq!(age("var/log/zehrasec/traffic.log"), 0);
    assert_eq!(age("var/log/zehrasec/system-2.log"), 9);
    assert_eq!(age("var/log/zehrasec/archive/system-9.log.gz"), 45);
    let mode = |path: &str| std::fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("usr/local/sbin/zehrasec-cli"), mode("etc/zehrasec/rules.json")), (0o755, 0o640));
}

#[test]
fn no_root_is_laid_out_twice() {
    let root = laid_out();
    let again = lay_out(root.path(), &nodes(6)[0], Timestamp::clamped(0));
    assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    let shell: PathBuf = root.path().join("usr/local/sbin/zehrasec-cli");
    assert!(Command::new("sh").arg("-n").arg(shell).status().unwrap().success());
}
