//! `tuning.apply`, `tuning.revert` and `ruleset.*` on a real kernel: packet filter and settings of a network namespace and a mount of a mount namespace
//! that belong to the test alone. Needs root; in CI it fails where it cannot run, elsewhere it says that it did not.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[path = "support/step.rs"]
mod step;

use std::path::PathBuf;
use std::process::Command;

use fleet_executor::host::LinuxHost;
use fleet_executor::tasks::{JobView, Task, TaskError, find};
use fleet_types::document::profile::Profile;
use fleet_types::report::TaskReport;

use step::Step;

/// The folder of the test, in the process that has namespaces of its own.
const INSIDE: &str = "FLEET_TEST_INSIDE";

/// The folder to work in, in the process that has namespaces of its own; else the test is run again in such a one, and the
/// folder is cleared away here, where nothing is mounted below it.
fn inside(test: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return Some(PathBuf::from(folder));
    }
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "the tests of a real kernel need root");
        eprintln!("NOT PROVED HERE: settings of a real kernel; run the tests as root for that");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut again = Command::new("unshare");
    again.args(["--net", "--mount", "--propagation", "private", "--"]);
    again.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let output = again.env(INSIDE, folder.path()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    None
}

fn run(argv: &[&str]) {
    let output = Command::new(argv[0]).args(&argv[1..]).output().unwrap();
    assert!(output.status.success(), "{argv:?}: {}", String::from_utf8_lossy(&output.stderr));
}

struct Node {
    folder: PathBuf,
    host: LinuxHost,
    profile: Profile,
}

impl Node {
    /// A node whose kernel is this one, and whose files are its own.
    fn new(folder: PathBuf, tables: &str) -> Self {
        let root = folder.join("root");
        std::fs::create_dir_all(root.join("proc")).unwrap();
        run(&["mount", "--rbind", "/proc", root.join("proc").to_str().unwrap()]);
        let host = step::open(&folder);
        Self { folder, host, profile: step::profile(tables) }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.join("root").join(path.trim_start_matches('/'))
    }

    fn step<'a>(&'a self, id: &'a str) -> Step<'a> {
        let with = format!(r#"{{"tuning":["{id}"]}}"#);
        Step { name: id, ..Step::new(&self.host, &self.profile, &with) }
    }

    fn apply(&self, action: &str, id: &str) -> Result<TaskReport, TaskError> {
        self.step(id).carry_out(action)
    }
}

fn setting(key: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/{key}")).unwrap().trim().to_owned()
}

#[test]
fn settings_of_a_kernel_are_set_refused_and_put_back() {
    let Some(folder) = inside("settings_of_a_kernel_are_set_refused_and_put_back") else { return };
    let node = Node::new(
        folder,
        "[tuning.good]\nkind = \"sysctl\"\nfile = \"/etc/sysctl.d/60-fw.conf\"\n\
         set = { \"net.ipv4.tcp_sack\" = 0, \"net.ipv4.tcp_rmem\" = \"4096 80000 4000000\" }\n\
         [tuning.bad]\nkind = \"sysctl\"\nfile = \"/etc/sysctl.d/61-fw.conf\"\n\
         set = { \"net.core.somaxconn\" = 77, \"net.ipv4.ip_default_ttl\" = 256 }\n",
    );
    let keys = ["net/ipv4/tcp_sack", "net/ipv4/tcp_rmem", "net/core/somaxconn", "net/ipv4/ip_default_ttl"];
    let before = keys.map(setting);
    assert_eq!(node.apply("tuning.apply", "good").unwrap().changes.len(), 3);
    assert_eq!((setting(keys[0]).as_str(), setting(keys[1]).as_str()), ("0", "4096\t80000\t4000000"));
    assert!(node.at("/etc/sysctl.d/60-fw.conf").exists());
    assert!(node.apply("tuning.apply", "good").unwrap().changes.is_empty());
    // The kernel refuses the second value: the first goes back, and no file is written for the next start.
    let error = node.apply("tuning.apply", "bad").unwrap_err().to_string();
    assert!(error.contains("net.ipv4.ip_default_ttl") && error.ends_with("all is as before"), "{error}");
    assert_eq!(setting(keys[2]), before[2]);
    assert!(!node.at("/etc/sysctl.d/61-fw.conf").exists());
    assert_eq!(node.apply("tuning.revert", "good").unwrap().changes.len(), 3);
    assert_eq!(keys.map(setting), before);
    assert!(!node.at("/etc/sysctl.d/60-fw.conf").exists());
}

#[test]
fn a_mount_gets_options_and_loses_them_again() {
    let Some(folder) = inside("a_mount_gets_options_and_loses_them_again") else { return };
    let path = folder.join("mounted");
    let tuning = |id: &str, options: &str| {
        let path = path.display();
        format!("[tuning.{id}]\nkind = \"mount\"\npath = \"{path}\"\noptions = [{options}]\n")
    };
    let tables = tuning("good", "\"noatime\", \"noexec\"") + &tuning("stays", "\"size=1m\"");
    let node = Node::new(folder, &tables);
    std::fs::create_dir(&path).unwrap();
    run(&["mount", "-t", "tmpfs", "-o", "nodev", "tmpfs", path.to_str().unwrap()]);
    let options = || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = mounts.lines().find(|line| line.contains(&format!(" {} ", path.display()))).unwrap();
        line.split(' ').nth(5).unwrap().to_owned()
    };
    assert_eq!(options(), "rw,nodev,relatime");
    assert_eq!(node.apply("tuning.apply", "good").unwrap().changes.len(), 1);
    assert_eq!(options(), "rw,nodev,noexec,noatime");
    assert!(node.apply("tuning.apply", "good").unwrap().changes.is_empty());
    // What could not be taken back is not given.
    let error = node.apply("tuning.apply", "stays").unwrap_err().to_string();
    assert!(error.contains("could not be put back live"), "{error}");
    let Some(Task::Change(task)) = find("tuning.revert") else { panic!("built") };
    assert_eq!(node.step("good").act(|context| task.plan(context)).unwrap().changes.len(), 1);
    node.apply("tuning.revert", "good").unwrap();
    assert_eq!(options(), "rw,nodev,relatime");
}

/// The real nft for a node whose files lie below a root: paths are below it too.
fn with_nft(node: &Node) {
    let program = node.at("/usr/sbin/nft");
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    let root = node.at("/");
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = -f ]; then exec /usr/sbin/nft -f \"{}$2\"; fi\nexec /usr/sbin/nft \"$@\"\n",
        root.display()
    );
    std::fs::write(&program, text).unwrap();
    run(&["chmod", "755", program.to_str().unwrap()]);
}

fn rules() -> String {
    let output = Command::new("/usr/sbin/nft").args(["-s", "list", "ruleset"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const RULE_SETS: &str = r#"
[ruleset.good]
kind = "nftables"
file = "/etc/nftables.conf"
text = '''
#!/usr/sbin/nft -f
flush ruleset
table inet filter {
  set admins { type ipv4_addr; flags timeout; elements = { 192.0.2.1 timeout 1h } }
  chain input { type filter hook input priority 0; policy drop;
    ct state established,related accept
    ip saddr @admins tcp dport { 22, 443 } counter accept
  }
}
'''
[ruleset.wrong]
kind = "nftables"
file = "/etc/nftables.conf"
text = "flush ruleset\ntable inet filter { bogus }\n"
[ruleset.adds]
kind = "nftables"
file = "/etc/nftables.conf"
text = "table inet more { }\n"
"#;

#[test]
fn rule_sets_are_judged_loaded_once_and_put_back_exactly() {
    let Some(folder) = inside("rule_sets_are_judged_loaded_once_and_put_back_exactly") else { return };
    let node = Node::new(folder, RULE_SETS);
    with_nft(&node);
    std::fs::create_dir_all(node.at("/etc")).unwrap();
    let former_file = "# by hand\nflush ruleset\n";
    std::fs::write(node.at("/etc/nftables.conf"), former_file).unwrap();
    let by_hand = "add table ip byhand; add chain ip byhand c; add rule ip byhand c counter accept";
    run(&["nft", &format!("{by_hand}; add set ip byhand seen {{ type ipv4_addr; }}")]);
    let former = rules();
    let step = |name: &'static str, id: &str| {
        let with = format!(r#"{{"ruleset":"{id}"}}"#);
        Step { name, ..Step::new(&node.host, &node.profile, &with) }
    };
    let Some(Task::Change(apply)) = find("ruleset.apply") else { panic!("built") };
    let refused = |name, id, words: &str| {
        let error = step(name, id).carry_out("ruleset.apply").unwrap_err();
        assert!(format!("{error:?}").contains(words), "{error:?}");
        assert_eq!((rules(), file(&node)), (former.clone(), former_file.to_owned()), "nothing was touched");
    };
    refused("wrong", "wrong", "syntax error");
    refused("adds", "adds", "does not begin with");

    let one = step("one", "good");
    let plan = one.act(|context| apply.plan(context)).unwrap();
    assert!(plan.changes.iter().any(|c| c.action == "line removed" && c.before == "# by hand"), "{plan:?}");
    assert_eq!(rules(), former, "a plan loads nothing");
    let undo = one.act(|context| apply.undo(context)).unwrap();
    let report = one.carry_out("ruleset.apply").unwrap();
    assert_eq!(report.changes, plan.changes, "what was planned");
    let loaded = rules();
    assert!(loaded.contains("policy drop") && !loaded.contains("byhand"), "{loaded}");
    assert!(file(&node).contains("@admins") && !node.at("/etc/nftables.conf~").exists());
    // Twice changes nothing; what somebody changes by hand is drift, and loaded over.
    assert!(step("two", "good").carry_out("ruleset.apply").unwrap().changes.is_empty());
    assert!(step("look", "good").carry_out("ruleset.check").unwrap().problems.is_empty());
    // What traffic puts into sets is none.
    run(&["nft", "add element inet filter admins { 192.0.2.9 }"]);
    assert!(step("look", "good").carry_out("ruleset.check").unwrap().problems.is_empty());
    run(&["nft", "add table ip byhand"]);
    assert_eq!(step("look", "good").carry_out("ruleset.check").unwrap().problems.len(), 1);
    assert_eq!(step("three", "good").carry_out("ruleset.apply").unwrap().changes.len(), 1);
    assert!(!rules().contains("byhand"));

    let back = Step { name: "undo:one", ..step("undo:one", "good") };
    let report = back.act(|context| apply.revert(context, &undo)).unwrap();
    assert_eq!(report.changes.len(), 2);
    assert_eq!((rules(), file(&node)), (former.clone(), former_file.to_owned()), "to the byte");
    // A machine that goes down on the way back has other rules when it is up again, however often that is.
    for _ in 0..3 {
        run(&["nft", "flush ruleset"]);
        let again = Step { job: JobView { resumed: true, ..JobView::default() }, ..step("undo:one", "good") };
        assert_eq!(again.act(|context| apply.revert(context, &undo)).unwrap().changes.len(), 1);
        assert_eq!(rules(), former);
    }
    let again = step("undo:one-again", "good");
    assert!(again.act(|context| apply.revert(context, &undo)).unwrap().changes.is_empty());
}

fn file(node: &Node) -> String {
    std::fs::read_to_string(node.at("/etc/nftables.conf")).unwrap()
}
