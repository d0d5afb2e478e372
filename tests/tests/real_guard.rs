//! T18, T19: a change that cuts a node off from its controller, with real programs: it is put back by the guard, whoever
//! dies meanwhile, and one that cuts nothing off stays.
//!
//! The change is a setting of the kernel below `net`, written into the node's private root; what drops the packets is a
//! relay that reads it. On a real node with a real packet filter the same is told by `real_node`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use fleet_tests::sandbox::node::SandboxNode;
use fleet_tests::sandbox::{ENFORCE, Sandbox, processes};
use fleet_tests::small_disk::SmallDisk;
use fleet_tests::wait::{PATIENCE, wait_for, wait_until};
use fleet_types::id::RunId;
use fleet_types::job::{EndCause, Outcome};
use fleet_types::report::{Report, StepState};
use fleet_types::view::JobView;
use fleetctl::dev::node_spec::nodes;
use fleetctl::dev::packet_filter::PacketFilter;
use rustix::process::{Pid, Signal, kill_process};

const PROFILE: &str = r#"
schema = "fleet/v1"
kind = "profile"
name = "guarded"
version = 1
selector = "product=zehrasec"

[tuning.harmless]
kind = "sysctl"
file = "/etc/sysctl.d/60-harmless.conf"
set = { "net.core.somaxconn" = 4096 }

[tuning.cut]
kind = "sysctl"
file = "/etc/sysctl.d/60-cut.conf"
set = { "net.ipv4.drop_all" = 1 }
"#;

/// A harmless change, then one that cuts the node off; both guarded.
fn procedure(name: &str, within: &str, last: &str) -> String {
    let step = |tuning: &str| {
        format!(
            "[[step]]\nid = \"{tuning}\"\nkind = \"task\"\ntitle = \"Set {tuning}\"\nuses = \"tuning.apply\"\n\
             with = {{ tuning = [\"{tuning}\"] }}\nguard = {{ confirm_within = \"{within}\" }}\ntimeout = \"10s\"\n\
             on_failure = \"rollback\"\n\n"
        )
    };
    format!(
        "schema = \"fleet/v1\"\nkind = \"procedure\"\nname = \"{name}\"\nversion = 1\ndescription = \"A change of the network\"\n\
         profile = \"guarded\"\nchanges = true\ntimeout = \"30m\"\n\n{}{}",
        step("harmless"),
        if last.is_empty() { String::new() } else { step(last) }
    )
}

struct Story {
    sandbox: Sandbox,
    _filter: PacketFilter,
    root: PathBuf,
}

const SOMAXCONN: &str = "proc/sys/net/core/somaxconn";
const DROP_ALL: &str = "proc/sys/net/ipv4/drop_all";

impl Story {
    async fn start() -> Result<Self> {
        Self::start_with(None, "").await
    }

    /// The same with what is the agent's own on a disk that can be filled, and more lines of the owner's policy.
    async fn start_with(disk: Option<&SmallDisk>, policy: &str) -> Result<Self> {
        let mut sandbox = Sandbox::without_nodes().await?;
        let spec = nodes(1).first().context("one node")?.clone();
        let node = SandboxNode::lay_out(&sandbox.path("nodes"), &spec)?;
        let node = match disk {
            Some(disk) => node.keeping_in(disk.path()),
            None => node,
        };
        sandbox.join_as(node, &spec, &format!("{ENFORCE}{policy}")).await?;
        let root = sandbox.nodes[0].root();
        for (file, value) in [(SOMAXCONN, "128"), (DROP_ALL, "0")] {
            let file = root.join(file);
            std::fs::create_dir_all(file.parent().context("it has a folder")?)?;
            std::fs::write(file, value)?;
        }
        std::fs::create_dir_all(root.join("etc/sysctl.d"))?;
        let to = sandbox.controller.agent_address();
        let filter = PacketFilter::before(to, &root.join(DROP_ALL), |rules| rules.starts_with('1')).await?;
        let config = sandbox.nodes[0].config();
        let text = std::fs::read_to_string(&config)?;
        ensure!(text.contains(&to.to_string()), "the configuration names the controller");
        std::fs::write(&config, text.replacen(&to.to_string(), &filter.address().to_string(), 1))?;
        sandbox.nodes[0].start(&[])?;
        sandbox.all_online().await?;
        let folder = sandbox.path("guarded");
        std::fs::create_dir_all(&folder)?;
        for (name, text) in [
            ("profile.toml", PROFILE.to_owned()),
            ("stays.toml", procedure("stays", "10s", "")),
            ("cuts.toml", procedure("cuts", "3s", "cut")),
            ("cuts-long.toml", procedure("cuts-long", "10m", "cut")),
        ] {
            std::fs::write(folder.join(name), text)?;
        }
        let folder = folder.to_str().context("the folder has an odd name")?.to_owned();
        sandbox.operator.good(&["config", "apply", &folder, "--yes"]).await?;
        Ok(Self { sandbox, _filter: filter, root })
    }

    fn value(&self, file: &str) -> String {
        std::fs::read_to_string(self.root.join(file)).unwrap_or_default()
    }

    /// Everything that the procedures change, as it lies there.
    fn state(&self) -> Vec<String> {
        let drop_ins = std::fs::read_dir(self.root.join("etc/sysctl.d")).into_iter().flatten().flatten();
        let mut state: Vec<_> =
            drop_ins.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        state.sort_unstable();
        state.extend([self.value(SOMAXCONN), self.value(DROP_ALL)]);
        state
    }

    async fn report(&self, run: RunId) -> Result<Report> {
        self.sandbox.ended(run).await?;
        let node = &self.sandbox.nodes[0].name;
        let view: JobView = self.sandbox.operator.json(&["run", "show", &format!("{run}/{node}")]).await?;
        view.report.context("the job has a report")
    }

    async fn cut(&self) -> Result<()> {
        wait_until("the node to be cut off", PATIENCE, || self.value(DROP_ALL).starts_with('1')).await
    }

    /// The guard's process.
    fn guard(&self) -> Result<Option<Pid>> {
        let folder = self.sandbox.nodes[0].state().join("guard");
        for entry in std::fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let text = String::from_utf8_lossy(&line);
            if text.contains("\0--folder\0") && text.contains(&*folder.to_string_lossy()) {
                return Ok(Pid::from_raw(pid));
            }
        }
        Ok(None)
    }

    async fn kill_guard(&self) -> Result<()> {
        let pid = self.guard()?.context("the guard runs")?;
        kill_process(pid, Signal::KILL)?;
        wait_until("the guard's end", PATIENCE, || self.guard().is_ok_and(|now| now != Some(pid))).await
    }

    fn assert_put_back(&self, report: &Report, before: &[String]) {
        assert_eq!(self.state(), before, "all is as it was, byte for byte");
        let end = (report.outcome, report.cause);
        assert_eq!(end, (Outcome::RolledBack, Some(EndCause::Unconfirmed)), "{}", report.reason);
        let ends: Vec<_> = report.steps.iter().map(|step| (step.id.as_str(), step.state)).collect();
        let expected = [
            ("harmless", StepState::Succeeded),
            ("cut", StepState::Failed),
            ("guard:cut", StepState::Succeeded),
            ("undo:harmless", StepState::Succeeded),
        ];
        assert_eq!(ends, expected);
    }

    async fn finish(self) -> Result<()> {
        wait_until("the last guard's end", PATIENCE, || self.guard().is_ok_and(|now| now.is_none())).await?;
        self.sandbox.finish().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t18_a_change_that_cuts_the_node_off_is_put_back_and_one_that_does_not_stays() -> Result<()> {
    let story = Story::start().await?;
    let before = story.state();
    let run = story.sandbox.start_run("cuts").await?;
    let report = story.report(run).await?;
    story.assert_put_back(&report, &before);
    assert!(report.reason.contains("no controller accepts a new connection"), "{}", report.reason);

    let run = story.sandbox.start_run("stays").await?;
    let report = story.report(run).await?;
    assert_eq!(report.outcome, Outcome::Succeeded, "{}", report.reason);
    assert_eq!((story.value(SOMAXCONN), story.state().len()), ("4096".to_owned(), before.len() + 1));
    let left = std::fs::read_dir(story.sandbox.nodes[0].state().join("guard"))?.count();
    assert_eq!(left, 0, "nothing is pending any more");
    story.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn t19_the_guard_puts_back_though_the_agent_is_killed() -> Result<()> {
    let mut story = Story::start().await?;
    let before = story.state();
    let run = story.sandbox.start_run("cuts").await?;
    story.cut().await?;
    story.sandbox.nodes[0].kill().await?;
    // Nobody else is there who could.
    wait_until("the guard to put it back", PATIENCE, || story.value(DROP_ALL).starts_with('0')).await?;
    story.sandbox.nodes[0].start(&[])?;
    let report = story.report(run).await?;
    story.assert_put_back(&report, &before);
    story.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_keeps_a_change_while_no_controller_answers() -> Result<()> {
    let witness = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    // One that is not there is passed over.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let policy = format!("witness = [\"{gone}\", \"{}\"]\n", witness.local_addr()?);
    let story = Story::start_with(None, &policy).await?;
    let run = story.sandbox.start_run("cuts").await?;
    let report = story.report(run).await?;
    assert_eq!(report.outcome, Outcome::Succeeded, "{}", report.reason);
    assert_eq!(story.value(DROP_ALL), "1", "it stays, and so does the link of before");
    drop(witness);
    std::fs::write(story.root.join(DROP_ALL), "0")?;
    story.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_a_guard_puts_back_though_the_disk_is_full() -> Result<()> {
    let Some(disk) = SmallDisk::mount("a guard on a full disk", 48)? else { return Ok(()) };
    let mut story = Story::start_with(Some(&disk), "").await?;
    let before = story.state();
    let run = story.sandbox.start_run("cuts").await?;
    story.cut().await?;
    story.sandbox.nodes[0].kill().await?;
    // Nobody is there who could give up the reserve.
    disk.fill(0)?;
    wait_until("the guard to put it back", PATIENCE, || story.value(DROP_ALL).starts_with('0')).await?;
    wait_until("the guard's end", PATIENCE, || story.guard().is_ok_and(|now| now.is_none())).await?;
    disk.clear()?;
    story.sandbox.nodes[0].start(&[])?;
    let report = story.report(run).await?;
    story.assert_put_back(&report, &before);
    story.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_is_killed_is_there_again_and_an_agent_that_comes_back_confirms() -> Result<()> {
    let mut story = Story::start().await?;
    let run = story.sandbox.start_run("cuts-long").await?;
    story.cut().await?;
    // The agent is there and finds the guard gone.
    story.kill_guard().await?;
    wait_until("another guard", PATIENCE, || story.guard().is_ok_and(|now| now.is_some())).await?;
    // All of them, as when the node runs out of memory.
    story.sandbox.nodes[0].kill().await?;
    story.kill_guard().await?;
    assert_eq!(story.guard()?, None, "nobody is left to start it");
    // Somebody mends by hand what cut the node off; the agent comes back in time.
    std::fs::write(story.root.join(DROP_ALL), "0")?;
    story.sandbox.nodes[0].start(&[])?;
    // It carries the step out once more, which cuts it off again, under a guard that lives.
    wait_for("the guard and the change", PATIENCE, async || {
        Ok((story.guard()?.is_some() && story.value(DROP_ALL).starts_with('1')).then_some(()))
    })
    .await?;
    std::fs::write(story.root.join(DROP_ALL), "0")?;
    let report = story.report(run).await?;
    assert_eq!(
        report.outcome,
        Outcome::Succeeded,
        "confirmed as soon as the way was open: {}",
        report.reason
    );
    assert!(!processes::below(&story.root)?.iter().any(|line| line.contains("--folder")));
    story.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_at_the_console_keeps_undoes_holds_and_releases() -> Result<()> {
    let story = Story::start().await?;
    let before = story.state();
    let node = &story.sandbox.nodes[0];
    let at_console = async |arguments: &[&str]| -> Result<(bool, String)> {
        let (status, out, err) = node.call(arguments, &[("SUDO_USER", "grace")]).await?;
        Ok((status.success(), format!("{out}{err}")))
    };
    let (good, said) = at_console(&["keep", "--reason", "none"]).await?;
    assert!(!good && said.contains("no change waits"), "{said}");
    let run = story.sandbox.start_run("cuts-long").await?;
    story.cut().await?;
    wait_for("the change to be pending", PATIENCE, async || {
        Ok(at_console(&["status"]).await?.1.contains("waits to be confirmed").then_some(()))
    })
    .await?;
    assert!(at_console(&["undo", "--reason", "the phone rang"]).await?.0);
    let report = story.report(run).await?;
    story.assert_put_back(&report, &before);
    assert!(report.reason.contains("grace") && report.reason.contains("the phone rang"), "{}", report.reason);

    let run = story.sandbox.start_run("cuts-long").await?;
    story.cut().await?;
    wait_for("the change to be kept", PATIENCE, async || {
        Ok(at_console(&["keep", "--reason", "I am here"]).await?.0.then_some(()))
    })
    .await?;
    std::fs::write(story.root.join(DROP_ALL), "0")?;
    let report = story.report(run).await?;
    assert_eq!(report.outcome, Outcome::Succeeded, "{}", report.reason);
    let said: Vec<_> = report.steps.iter().map(|step| step.body.summary.as_str()).collect();
    assert!(said[1].contains("kept at the console by grace") && said[1].contains("I am here"), "{said:?}");

    assert!(at_console(&["hold", "--reason", "new disks"]).await?.0);
    let run = story.sandbox.start_run("stays").await?;
    let report = story.report(run).await?;
    assert!(report.outcome == Outcome::Refused && report.reason.contains("hold"), "{}", report.reason);
    assert!(at_console(&["release"]).await?.0);
    let run = story.sandbox.start_run("stays").await?;
    assert_eq!(story.report(run).await?.outcome, Outcome::Succeeded);
    story.finish().await
}
