//! Real programs under the real supervisor: how they end, and what is known when the agent, the supervisor or
//! the program dies in between.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[path = "support/step.rs"]
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use fleet_executor::host::{
    Activity, Exit, Host, Input, Invocation, LinuxHost, ProcessError, ProcessOutcome, Purpose, Running,
    UnitError, UnitName,
};
use fleet_executor::tasks::{CancelFlag, OutputSink};
use fleet_types::digest::Digest;
use fleet_types::id::RunId;
use fleet_types::time::Timestamp;

use step::{identity, open, open_under, supervisor, wait_for};

#[derive(Default)]
struct Collected(Mutex<Vec<u8>>);

impl OutputSink for Collected {
    fn write(&self, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }
}

struct Node {
    folder: tempfile::TempDir,
    host: LinuxHost,
    output: Collected,
    cancel: CancelFlag,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("root/usr/bin")).unwrap();
        std::fs::create_dir_all(folder.path().join("root/etc/systemd/system")).unwrap();
        let host = open(folder.path());
        Self { folder, host, output: Collected::default(), cancel: CancelFlag::default() }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Puts a shell script into the node's folder of programs.
    fn program(&self, name: &str, script: &str) {
        let path = self.root().join("usr/bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(
        &self,
        argv: &[&str],
        limit: Duration,
        name: Option<&UnitName>,
    ) -> Result<ProcessOutcome, ProcessError> {
        let invocation = Invocation::new(argv.iter().map(|a| (*a).to_owned()).collect(), limit);
        let running = Running { output: &self.output, cancel: &self.cancel };
        let purpose = name.map_or(Purpose::ReadOnly, Purpose::Effect);
        self.host.processes().run(&invocation, purpose, &running)
    }

    fn record(&self, run: RunId) -> PathBuf {
        let runs = self.folder.path().join("state/runs").join(run.to_string());
        std::fs::read_dir(runs).unwrap().next().unwrap().unwrap().path()
    }
}

fn unit_name() -> UnitName {
    UnitName::new(&identity("upgrade", 1, Timestamp::clamped(1_763_820_131_000)), "main")
}

fn pid_in(record: &Path, file: &str, keys: &[&str]) -> i32 {
    let text = std::fs::read_to_string(record.join(file)).unwrap();
    let mut value: &serde_json::Value = &serde_json::from_str(&text).unwrap();
    for key in keys {
        value = &value[*key];
    }
    i32::try_from(value.as_i64().unwrap()).unwrap()
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn kill(pid: i32) {
    signal(pid, rustix::process::Signal::KILL);
}

const LONG: Duration = Duration::from_mins(1);

#[test]
fn a_program_runs_in_a_clean_environment_without_a_shell() {
    let node = Node::new();
    node.program(
        "show",
        "printf '%s|' \"$@\"; env | sort; pwd; read x || echo no input; echo err >&2; exit 3",
    );
    let outcome = node.run(&["show", "a b", "$HOME;*"], LONG, None).unwrap();
    let text = String::from_utf8(outcome.output.clone()).unwrap();
    assert_eq!(outcome.exit, Exit::Status(3));
    assert!(text.starts_with("a b|$HOME;*|"), "{text}");
    let root = node.root().canonicalize().unwrap();
    assert!(text.contains(&format!("PATH={}/usr/local/sbin:", root.display())), "{text}");
    assert!(text.contains("LANG=C.UTF-8") && !text.contains("CARGO"), "{text}");
    assert!(text.contains("no input") && text.ends_with("err\n"), "{text}");
    assert_eq!(*node.output.0.lock().unwrap(), outcome.output);
    assert_eq!(outcome.output_sha256, Digest::of(&outcome.output));
    assert!(matches!(node.run(&["/bin/sh"], LONG, None), Err(ProcessError::NotStarted { .. })));
    // Nothing of a look is kept.
    assert_eq!(std::fs::read_dir(node.folder.path().join("state/probes")).unwrap().count(), 0);
}

#[test]
fn looks_of_a_process_that_lives_are_not_ended_by_another_that_starts() {
    let node = Node::new();
    let (began, go) = (node.root().join("began"), node.root().join("go"));
    node.program(
        "look",
        &format!("touch {}; until [ -e {} ]; do sleep 0.02; done; echo whole", began.display(), go.display()),
    );
    // What a process left that is gone: no process has this number.
    let left = node.folder.path().join("state/probes/4194305.7.left");
    std::fs::create_dir_all(&left).unwrap();
    std::thread::scope(|scope| {
        let look = scope.spawn(|| node.run(&["look"], LONG, None).unwrap());
        wait_for("the look to begin", || began.exists());
        let _other = open(node.folder.path());
        std::fs::write(&go, "").unwrap();
        assert_eq!(look.join().unwrap().output, b"whole\n");
    });
    assert!(!left.exists());
}

#[test]
fn a_program_ends_at_its_time_limit_with_all_its_children() {
    let node = Node::new();
    let marker = node.root().join("child");
    node.program("hang", &format!("sh -c 'echo $$ > {}; sleep 1000' & wait", marker.display()));
    let outcome = node.run(&["hang"], Duration::from_millis(1500), None).unwrap();
    assert_eq!(outcome.exit, Exit::TimedOut);
    let child: u32 = std::fs::read_to_string(&marker).unwrap().trim().parse().unwrap();
    wait_for("the child has ended", || !Path::new(&format!("/proc/{child}")).exists());
}

/// As a package manager's scripts are: in a session of their own, their parent long gone.
#[test]
fn what_a_stopped_program_started_is_stopped_with_it_whatever_session_it_is_in() {
    /// The machine goes down, or the supervisor's unit is stopped.
    const SIGNAL: &str = "SIGTERM to the supervisor";
    for way in ["a cancel", "the limit", SIGNAL] {
        let node = Node::new();
        let marker = node.root().join("child");
        let child = format!("setsid sh -c 'echo $$ > {}; sleep 1000' &", marker.display());
        node.program("spread", &format!("sh -c \"{}\"; exec sleep 1000", child.replace('$', "\\$")));
        let limit = if way == "the limit" { Duration::from_millis(1500) } else { LONG };
        let exit = std::thread::scope(|scope| {
            let running = scope.spawn(|| node.run(&["spread"], limit, Some(&unit_name())));
            wait_for("its child", || {
                std::fs::read_to_string(&marker).is_ok_and(|pid| !pid.trim().is_empty())
            });
            match way {
                "a cancel" => node.cancel.cancel(),
                SIGNAL => {
                    let supervisor =
                        pid_in(&node.record(RunId::from_number(7)), "begun", &["supervisor", "pid"]);
                    signal(supervisor, rustix::process::Signal::TERM);
                }
                _ => {}
            }
            running.join().unwrap().unwrap().exit
        });
        assert_eq!(exit, if way == "the limit" { Exit::TimedOut } else { Exit::Cancelled }, "{way}");
        let child: u32 = std::fs::read_to_string(&marker).unwrap().trim().parse().unwrap();
        assert!(!is_alive(child), "{child} goes on");
    }
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

#[test]
fn a_cancelled_program_is_stopped() {
    let node = Node::new();
    let begun = node.root().join("begun");
    node.program("hang", &format!("touch {}; exec sleep 1000", begun.display()));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| node.run(&["hang"], LONG, Some(&unit_name())));
        wait_for("it runs", || begun.exists());
        node.cancel.cancel();
        assert_eq!(running.join().unwrap().unwrap().exit, Exit::Cancelled);
    });
}

#[test]
fn much_output_is_cut_in_the_middle_and_counted_whole() {
    let node = Node::new();
    node.program("loud", "echo first; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last");
    let outcome = node.run(&["loud"], LONG, None).unwrap();
    assert_eq!(outcome.output_bytes, 3_000_012);
    assert!(outcome.output.len() < 600_000);
    let text = String::from_utf8(outcome.output).unwrap();
    assert!(text.starts_with("first\n") && text.ends_with("last\n") && text.contains("bytes left out"));
}

/// What a second life of the agent finds when the first was killed: here simply another host on the same state.
#[test]
fn a_program_goes_on_without_the_agent_and_is_found_again() {
    let node = Node::new();
    let (count, go) = (node.root().join("count"), node.root().join("go"));
    node.program(
        "effect",
        &format!(
            "echo x >> {}; until test -e {}; do sleep 0.05; done; echo done",
            count.display(),
            go.display()
        ),
    );
    let name = unit_name();
    let second_life = open(node.folder.path());
    std::thread::scope(|scope| {
        let first = scope.spawn(|| node.run(&["effect"], LONG, Some(&name)));
        wait_for("it runs", || count.exists());
        let second = scope.spawn(|| {
            let output = Collected::default();
            let cancel = CancelFlag::default();
            let running = Running { output: &output, cancel: &cancel };
            let invocation = Invocation::new(vec!["effect".to_owned()], LONG);
            second_life.processes().run(&invocation, Purpose::Effect(&name), &running)
        });
        std::fs::write(&go, "").unwrap();
        let (first, second) = (first.join().unwrap().unwrap(), second.join().unwrap().unwrap());
        assert_eq!(first, second);
        assert_eq!(second.output, b"done\n");
    });
    // Long after its end the record still answers, and nothing was started a second time.
    assert_eq!(node.run(&["effect"], LONG, Some(&name)).unwrap().exit, Exit::Status(0));
    assert_eq!(std::fs::read_to_string(&count).unwrap(), "x\n");
    node.host.processes().keep_only(&BTreeSet::new()).unwrap();
    assert!(!node.folder.path().join("state/runs").join(RunId::from_number(7).to_string()).exists());
}

/// The same with a process of its own for the first life, killed for real.
#[test]
fn a_program_outlives_a_killed_agent() {
    let node = Node::new();
    let (count, go) = (node.root().join("count"), node.root().join("go"));
    let wait = format!("until test -e {}; do sleep 0.05; done", go.display());
    node.program("effect", &format!("echo x >> {}; {wait}; echo done", count.display()));
    let mut agent = agent(&supervisor(), &node);
    drop(agent.stdin.take());
    wait_for("it runs", || count.exists());
    agent.kill().unwrap();
    agent.wait().unwrap();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| node.run(&["effect"], LONG, Some(&unit_name())));
        assert!(!second.is_finished());
        std::fs::write(&go, "").unwrap();
        let outcome = second.join().unwrap().unwrap();
        assert_eq!((outcome.exit, outcome.output.as_slice()), (Exit::Status(0), b"done\n".as_slice()));
    });
    assert_eq!(std::fs::read_to_string(&count).unwrap(), "x\n");
}

fn agent(program: &Path, node: &Node) -> std::process::Child {
    let mut command = std::process::Command::new(program);
    command.arg("run").arg(node.folder.path()).stdin(std::process::Stdio::piped()).spawn().unwrap()
}

/// As after an upgrade of the package: the program's file is another one, or none for a moment.
#[test]
fn an_agent_whose_file_was_replaced_still_starts_programs() {
    let node = Node::new();
    node.program("effect", "exit 0");
    let program = node.folder.path().join("agent");
    std::fs::copy(supervisor(), &program).unwrap();
    let mut agent = agent(&program, &node);
    std::fs::remove_file(&program).unwrap();
    drop(agent.stdin.take());
    assert!(agent.wait().unwrap().success());
}

#[test]
fn a_killed_supervisor_leaves_an_unknown_outcome_and_never_a_second_start() {
    let node = Node::new();
    let count = node.root().join("count");
    node.program("effect", &format!("echo x >> {}; exec sleep 1000", count.display()));
    let name = unit_name();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| node.run(&["effect"], LONG, Some(&name)));
        wait_for("it runs", || count.exists());
        let record = node.record(RunId::from_number(7));
        wait_for("it is noted", || record.join("started").exists());
        kill(pid_in(&record, "begun", &["supervisor", "pid"]));
        // The program itself still runs, so nothing can be said yet.
        assert!(!running.is_finished());
        kill(pid_in(&record, "started", &["pid"]));
        assert!(matches!(running.join().unwrap(), Err(ProcessError::OutcomeUnknown { .. })));
    });
    assert!(matches!(node.run(&["effect"], LONG, Some(&name)), Err(ProcessError::OutcomeUnknown { .. })));
    assert_eq!(std::fs::read_to_string(&count).unwrap(), "x\n");
}

#[test]
fn a_record_of_another_boot_is_an_unknown_outcome() {
    let node = Node::new();
    node.program("effect", "exit 0");
    let name = unit_name();
    node.run(&["effect"], LONG, Some(&name)).unwrap();
    let record = node.record(RunId::from_number(7));
    std::fs::remove_file(record.join("exit")).unwrap();
    let text = std::fs::read_to_string(record.join("started")).unwrap();
    let mut started: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    // Even a living process of that number and start time is another one after a reboot.
    started.insert("pid".into(), std::process::id().into());
    started.insert("boot_id".into(), "another".into());
    std::fs::write(record.join("started"), serde_json::to_vec(&started).unwrap()).unwrap();
    assert!(matches!(node.run(&["effect"], LONG, Some(&name)), Err(ProcessError::OutcomeUnknown { .. })));
}

#[test]
fn what_its_supervisor_never_began_leaves_nothing_for_a_late_one() {
    let mut node = Node::new();
    let count = node.root().join("count");
    node.program("effect", &format!("echo x >> {}", count.display()));
    let name = unit_name();
    node.host = open_under(node.folder.path(), PathBuf::from("/bin/false"));
    let failed = node.run(&["effect"], LONG, Some(&name));
    assert!(matches!(failed, Err(ProcessError::NotStarted { .. })), "{failed:?}");
    let run = node.folder.path().join("state/runs").join(RunId::from_number(7).to_string());
    assert_eq!(std::fs::read_dir(run).unwrap().count(), 0, "nobody can begin it later");
    node.host = open(node.folder.path());
    assert_eq!(node.run(&["effect"], LONG, Some(&name)).unwrap().exit, Exit::Status(0));
    assert_eq!(std::fs::read_to_string(&count).unwrap(), "x\n");
}

#[test]
fn what_certainly_never_began_is_started_once() {
    let node = Node::new();
    let count = node.root().join("count");
    node.program("effect", &format!("echo x >> {}", count.display()));
    let name = unit_name();
    node.run(&["effect"], LONG, Some(&name)).unwrap();
    let record = node.record(RunId::from_number(7));
    // The agent died between writing the record and starting the supervisor.
    let spec = std::fs::read(record.join("spec")).unwrap();
    for entry in std::fs::read_dir(&record).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    std::fs::write(record.join("spec"), &spec).unwrap();
    assert_eq!(node.run(&["effect"], LONG, Some(&name)).unwrap().exit, Exit::Status(0));
    assert_eq!(std::fs::read_to_string(&count).unwrap(), "x\nx\n");
    // The supervisor of the first start comes late: its nonce is no longer the record's.
    let late: serde_json::Value = serde_json::from_slice(&spec).unwrap();
    let status = std::process::Command::new(supervisor())
        .args(["supervise", "--record"])
        .arg(&record)
        .args(["--nonce", late["nonce"].as_str().unwrap()])
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success());
    assert_eq!(std::fs::read_to_string(&count).unwrap(), "x\nx\n");
}

#[test]
fn a_program_that_cannot_be_executed_was_not_started() {
    let node = Node::new();
    let path = node.root().join("usr/bin/broken");
    std::fs::write(&path, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let name = unit_name();
    for _ in 0..2 {
        let error = node.run(&["broken"], LONG, Some(&name)).unwrap_err();
        assert!(matches!(error, ProcessError::NotStarted { .. }), "{error}");
    }
}

#[test]
fn units_run_on_and_are_found_stopped_and_failed() {
    let node = Node::new();
    let unit = |name: &str, lines: &str| {
        let path = node.root().join("etc/systemd/system").join(name);
        std::fs::write(path, format!("[Service]\n{lines}\n")).unwrap();
    };
    node.program("daemon", "trap 'exit 0' TERM; while :; do sleep 0.05; done");
    node.program("stubborn", "trap '' TERM; while :; do sleep 0.05; done");
    node.program("crash", "exit 7");
    unit("fw.service", "ExecStart=/usr/bin/daemon --flag 'a b'");
    unit("crash.service", "Type=oneshot\nExecStart=/usr/bin/crash");
    unit("fw.timer", "");
    let activity = |host: &LinuxHost, name: &str| host.units().state(name).unwrap().activity;
    let host = &node.host;
    assert_eq!(activity(host, "fw.service"), Activity::Inactive);
    assert_eq!(activity(host, "none.service"), Activity::NotFound);
    assert_eq!(host.units().start("none.service", LONG), Err(UnitError::NotFound("none.service".into())));
    assert!(matches!(host.units().state("fw.timer"), Err(UnitError::Unsupported { .. })));
    assert!(matches!(host.units().state("../../x.service"), Err(UnitError::Name(_))));

    host.units().start("fw.service", LONG).unwrap();
    let first = host.units().state("fw.service").unwrap();
    assert_eq!(first.activity, Activity::Active);
    // Another life of the agent sees the same process, and starting it again changes nothing.
    let second_life = open(node.folder.path());
    second_life.units().start("fw.service", LONG).unwrap();
    assert_eq!(second_life.units().state("fw.service").unwrap().main_pid, first.main_pid);
    host.units().restart("fw.service", LONG).unwrap();
    assert_ne!(host.units().state("fw.service").unwrap().main_pid, first.main_pid);
    host.units().stop("fw.service", LONG).unwrap();
    assert_eq!(activity(host, "fw.service"), Activity::Inactive);

    assert!(matches!(host.units().start("crash.service", LONG), Err(UnitError::Failed { .. })));
    assert_eq!(activity(host, "crash.service"), Activity::Failed);
    // A killed daemon has failed.
    host.units().start("fw.service", LONG).unwrap();
    let pid = host.units().state("fw.service").unwrap().main_pid.unwrap();
    kill(i32::try_from(pid).unwrap());
    wait_for("the end is noted", || activity(host, "fw.service") == Activity::Failed);
    host.units().start("fw.service", LONG).unwrap();
    host.units().stop_all().unwrap();
    assert_eq!(activity(host, "fw.service"), Activity::Inactive);
    // One that withstands SIGTERM is killed, and one that is masked is not started.
    unit("stubborn.service", "ExecStart=/usr/bin/stubborn");
    host.units().start("stubborn.service", LONG).unwrap();
    host.units().stop("stubborn.service", LONG).unwrap();
    assert_eq!(host.units().state("stubborn.service").unwrap().main_pid, None);
    std::os::unix::fs::symlink("/dev/null", node.root().join("etc/systemd/system/masked.service")).unwrap();
    assert!(host.units().relations("masked.service").unwrap().masked);
    assert_eq!(activity(host, "masked.service"), Activity::Inactive);
    assert!(matches!(host.units().start("masked.service", LONG), Err(UnitError::File { .. })));
}

#[test]
fn a_unit_is_reloaded_by_the_signal_that_its_file_names() {
    let node = Node::new();
    let unit = |name: &str, lines: &str| {
        let path = node.root().join("etc/systemd/system").join(name);
        std::fs::write(path, format!("[Service]\n{lines}\n")).unwrap();
    };
    let sign = node.folder.path().join("reloaded");
    let ready = node.folder.path().join("ready");
    let script = format!(
        "trap 'touch {}' HUP; touch {}; while :; do sleep 0.05; done",
        sign.display(),
        ready.display()
    );
    node.program("daemon", &script);
    unit("fw.service", "ExecStart=/usr/bin/daemon\nExecReload=/bin/kill -HUP $MAINPID");
    unit("plain.service", "ExecStart=/usr/bin/daemon");
    let units = node.host.units();
    assert!(units.relations("fw.service").unwrap().can_reload);
    assert!(!units.relations("plain.service").unwrap().can_reload);
    assert!(matches!(units.reload("plain.service", LONG), Err(UnitError::Unsupported { .. })));
    assert!(matches!(units.reload("fw.service", LONG), Err(UnitError::Failed { .. })), "it does not run");
    units.start("fw.service", LONG).unwrap();
    wait_for("the trap", || ready.exists());
    let before = units.state("fw.service").unwrap().main_pid;
    units.reload("fw.service", LONG).unwrap();
    wait_for("the reload", || sign.exists());
    assert_eq!(units.state("fw.service").unwrap().main_pid, before);
    units.stop_all().unwrap();
}

#[test]
fn files_and_texts_go_in_and_come_out_without_the_agent() {
    let node = Node::new();
    node.program("copy", "cat; echo told >&2");
    let root = node.root();
    let run = |input: Option<Input>, output: Option<&str>| {
        let mut invocation = Invocation::new(vec!["copy".to_owned()], LONG);
        invocation.input = input;
        invocation.output_file = output.map(PathBuf::from);
        let running = Running { output: &node.output, cancel: &node.cancel };
        node.host.processes().run(&invocation, Purpose::ReadOnly, &running)
    };
    let large = "0123456789".repeat(20_000);
    let outcome = run(Some(Input::Text(large.clone())), None).unwrap();
    assert_eq!(outcome.output, format!("{large}told\n").into_bytes(), "more than a pipe holds");
    std::fs::write(root.join("in"), "from a file").unwrap();
    std::fs::write(root.join("out"), "").unwrap();
    let outcome = run(Some(Input::File("/in".into())), Some("/out")).unwrap();
    assert_eq!(std::fs::read_to_string(root.join("out")).unwrap(), "from a file");
    assert_eq!(outcome.output, b"told\n", "errors alone");
    // What is no longer the empty file that the agent made is never written over, and nothing is started.
    std::fs::write(root.join("precious"), "").unwrap();
    std::fs::hard_link(root.join("precious"), root.join("twin")).unwrap();
    std::os::unix::fs::symlink("precious", root.join("link")).unwrap();
    for path in ["/out", "/twin", "/link", "/etc", "/none"] {
        let error = run(Some(Input::File("/in".into())), Some(path)).unwrap_err();
        assert!(matches!(error, ProcessError::NotStarted { .. }), "{path}: {error}");
    }
    assert!(run(Some(Input::File("/link".into())), None).is_err());
    assert_eq!(std::fs::read_to_string(root.join("out")).unwrap(), "from a file");
}
