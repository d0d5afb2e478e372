//! Work on real Debian nodes with systemd (tests/lab): installed by hand as an operator would, then used.

mod guard;
mod installed;
mod packages;
mod restart;

use std::path::Path;

use anyhow::{Context as _, Result};
use fleet_tests::lab::Lab;
use fleet_tests::own_process::OwnProcess;
use fleet_tests::programs::program;
use fleet_tests::wait::{PATIENCE, wait_for};
use fleet_types::job::{EndCause, JobState, Outcome};
use fleet_types::view::{JobView, RunView};
use fleetctl::render::read_printed;

const AGENT: &str = r#"
schema = "fleet/v1"
kind = "agent"
[controller]
endpoints = [{ address = "ctl1:7443", role = "main" }]
enrol = "ctl1:7444"
server_name = "ctl1"
backoff.max = "2s"
[timers]
drain = "1s"
[policy]
mode = "enforce"
max_disruptive_jobs = { count = 50, within = "24h" }
allow_actions = ["*"]
reboot = "always"
reboot_cooldown = "1s"
"#;

const UNIT: &str =
    "[Service]\nExecStart=/usr/bin/fleet-agent run\nRestart=always\n[Install]\nWantedBy=multi-user.target\n";

/// Units that stand in the way of a stop, need one another, and are told to open their logs anew.
const UNITS: [(&str, &str); 4] = [
    (
        "stuck",
        "[Service]\nExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'\nTimeoutStopSec=infinity\n",
    ),
    ("base", "[Service]\nExecStart=/bin/sleep infinity\n"),
    (
        "needs",
        "[Unit]\nRequires=base.service\nAfter=base.service\n[Service]\nExecStart=/bin/sleep infinity\n",
    ),
    (
        "reloads",
        "[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/sh -c 'echo told >> /var/log/story/told'\n",
    ),
];

/// By the product the profile of a firewall is its.
const LABELS: [&str; 4] = ["--label", "site=lab", "--label", "product=zehrasec"];

/// A profile of units that every Debian has, and of some that it has not.
const PROFILE: &str = r#"
schema = "fleet/v1"
kind = "profile"
name = "debian"
version = 1
[service.cron]
unit = "cron.service"
[service.rotate]
unit = "logrotate.timer"
[service.loops]
unit = "loops.service"
[service.absent]
unit = "absent.service"
[check.cron]
kind = "service"
service = "cron"
every = "5m"
[check.loops]
kind = "service"
service = "loops"
every = "5m"
[service.alias]
unit = "syslogd-of-story.service"
[service.stuck]
unit = "stuck.service"
[service.masked]
unit = "masked.service"
[service.base]
unit = "base.service"
[service.needs]
unit = "needs.service"
[log.hourly]
paths = ["/var/log/story/*.log"]
rotate = { every = "hourly", keep = 3 }
after = { reload = ["cron-like"] }
[service.cron-like]
unit = "reloads.service"
[tuning.mount]
kind = "mount"
path = "/srv/story"
options = ["noatime"]
[tuning.kernel]
kind = "sysctl"
file = "/etc/sysctl.d/60-story.conf"
set = { "kernel.panic" = 17 }
touches_network = false
[command.slow]
argv = ["/bin/sleep", "60"]
timeout = "5m"
changes = true
[command.short]
argv = ["/bin/sleep", "10"]
timeout = "5m"
changes = true
[command.leaves]
argv = ["/usr/local/bin/leaves"]
timeout = "5m"
changes = true
"#;

fn procedure(name: &str, changes: bool, step: &str) -> String {
    format!(
        "schema = \"fleet/v1\"\nkind = \"procedure\"\nname = \"{name}\"\nversion = 1\nprofile = \"debian\"\n\
         changes = {changes}\ntimeout = \"10m\"\n[[step]]\nid = \"step\"\nkind = \"task\"\ntitle = \"{name}\"\n\
         timeout = \"5m\"\non_failure = \"abort\"\n{step}\n"
    )
}

/// A lab with a controller, an operator and a node that has joined.
struct Story {
    lab: Lab,
    folder: tempfile::TempDir,
    fleetctl: String,
    controller: OwnProcess,
}

impl Story {
    async fn begin() -> Result<Option<Self>> {
        let Some(lab) = Lab::up(1).await? else { return Ok(None) };
        let folder = tempfile::tempdir()?;
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is no text");
        let fleetctl = text(&program("fleetctl", "fleetctl")?)?;
        let controller_program = text(&program("fleet-controller", "fleet-controller")?)?;
        let at = |name: &str| text(&folder.path().join(name));
        let (data, key, config, ready) = (at("data")?, at("root.key")?, at("controller.toml")?, at("ready")?);
        let made =
            ["init", "--data", &data, "--name", "lab", "--operator", "ada", "--root-key", &key, "--json"];
        let made = lab.run("ctl1", &[&[controller_program.as_str()], made.as_slice()].concat()).await?;
        let made: serde_json::Value = serde_json::from_str(&made)?;
        let invite = made["invite"].as_str().with_context(|| format!("no invite: {made}"))?;
        let text = format!("data_directory = \"{data}\"\n[server]\nserver_names = [\"ctl1\"]\n");
        std::fs::write(&config, text)?;
        let mut controller = OwnProcess::new("the controller", &folder.path().join("controller.log"));
        let run = [controller_program.as_str(), "run", "--config", &config, "--ready-file", &ready];
        controller.start(lab.going_on("ctl1", &run))?;
        wait_for("the controller", PATIENCE, async || Ok(Path::new(&ready).exists().then_some(()))).await?;
        let story = Self { lab, folder, fleetctl, controller };
        story.say(&["login", invite, "--root-key", &key, "--server", "ctl1"]).await?;
        story.join().await?;
        story.apply().await?;
        Ok(Some(story))
    }

    /// Installs the agent as the README of a release would say.
    async fn join(&self) -> Result<()> {
        let create = [&["join-token", "create", "fw-1", "-q"][..], &LABELS].concat();
        let token = self.say(&create).await?;
        self.lab
            .shell("n1", "useradd --system --shell /usr/sbin/nologin fleet-agent; mkdir -p /etc/fleet")
            .await?;
        self.lab.copy(&program("fleet-agent", "fleet-agent")?, "n1", "/usr/bin/fleet-agent").await?;
        self.lab.write("n1", "/etc/fleet/agent.toml", AGENT).await?;
        self.lab.write("n1", "/etc/systemd/system/fleet-agent.service", UNIT).await?;
        let loops = "[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=1h\n";
        self.lab.write("n1", "/etc/systemd/system/loops.service", loops).await?;
        self.lab.write("n1", "/usr/local/bin/leaves", "#!/bin/sh\nsetsid /bin/sleep 61 & wait\n").await?;
        self.lab.shell("n1", "chmod 755 /usr/local/bin/leaves").await?;
        for (unit, text) in UNITS {
            self.lab.write("n1", &format!("/etc/systemd/system/{unit}.service"), text).await?;
        }
        let rest = "ln -s base.service /etc/systemd/system/syslogd-of-story.service
            ln -s /dev/null /etc/systemd/system/masked.service
            mkdir -p /srv/story /var/log/story; mount -t tmpfs tmpfs /srv/story; echo old > /var/log/story/a.log";
        self.lab.shell("n1", rest).await?;
        self.lab.run("n1", &["fleet-agent", "enrol", "--token", token.trim()]).await?;
        self.lab.shell("n1", "systemctl daemon-reload; systemctl enable --now fleet-agent").await?;
        self.online().await
    }

    async fn online(&self) -> Result<()> {
        wait_for("the node", PATIENCE, async || {
            let status = self.say(&["node", "list", "-o", "json"]).await?;
            Ok(status.contains("\"online\"").then_some(()))
        })
        .await
    }

    async fn apply(&self) -> Result<()> {
        let folder = self.folder.path().join("documents");
        std::fs::create_dir(&folder)?;
        let write = |name: &str, text: &str| std::fs::write(folder.join(format!("{name}.toml")), text);
        write("profile", PROFILE)?;
        for (name, changes, step) in [
            (
                "cron-runs",
                false,
                "uses = \"service.assert_active\"\nwith = { services = [\"cron\", \"rotate\"] }",
            ),
            ("loops-runs", false, "uses = \"service.assert_active\"\nwith = { services = [\"loops\"] }"),
            ("absent-runs", false, "uses = \"service.assert_active\"\nwith = { services = [\"absent\"] }"),
            ("checks", false, "uses = \"health.check\"\nwith = { checks = [\"cron\"] }"),
            ("slow", true, "uses = \"command.run\"\nwith = { command = \"slow\" }"),
            ("short", true, "uses = \"command.run\"\nwith = { command = \"short\" }"),
            ("leaves", true, "uses = \"command.run\"\nwith = { command = \"leaves\" }"),
            ("stop-cron", true, "uses = \"service.stop\"\nwith = { services = [\"cron\"] }"),
            ("start-cron", true, "uses = \"service.start\"\nwith = { services = [\"cron\"] }"),
            ("restart-cron", true, "uses = \"service.restart\"\nwith = { services = [\"cron\"] }"),
            ("stop-alias", true, "uses = \"service.stop\"\nwith = { services = [\"alias\"] }"),
            ("stop-base", true, "uses = \"service.stop\"\nwith = { services = [\"base\"] }"),
            ("stop-both", true, "uses = \"service.stop\"\nwith = { services = [\"base\", \"needs\"] }"),
            ("start-masked", true, "uses = \"service.start\"\nwith = { services = [\"masked\"] }"),
            ("start-loops", true, "uses = \"service.start\"\nwith = { services = [\"loops\"] }"),
            ("configure-logs", true, "uses = \"log.configure\"\nwith = { logs = [\"hourly\"] }"),
            ("rotate-logs", true, "uses = \"log.rotate\"\nwith = { logs = [\"hourly\"], only_due = false }"),
            ("tune-mount", true, "uses = \"tuning.apply\"\nwith = { tuning = [\"mount\"] }"),
            ("untune-mount", true, "uses = \"tuning.revert\"\nwith = { tuning = [\"mount\"] }"),
            ("tune-kernel", true, "uses = \"tuning.apply\"\nwith = { tuning = [\"kernel\"] }"),
        ] {
            write(name, &procedure(name, changes, step))?;
        }
        let limited = "uses = \"service.stop\"\nwith = { services = [\"stuck\"] }";
        write(
            "stop-stuck",
            &procedure("stop-stuck", true, limited).replace("timeout = \"5m\"", "timeout = \"5s\""),
        )?;
        // Whatever it changed is put back when a later step fails.
        let changes = procedure(
            "undone",
            true,
            "uses = \"service.stop\"\nwith = { services = [\"cron\"] }\n\
             [[step]]\nid = \"logs\"\nkind = \"task\"\ntitle = \"logs\"\nuses = \"log.configure\"\n\
             with = { logs = [\"hourly\"] }\ntimeout = \"1m\"\non_failure = \"rollback\"\n\
             [[step]]\nid = \"mount\"\nkind = \"task\"\ntitle = \"mount\"\nuses = \"tuning.apply\"\n\
             with = { tuning = [\"mount\"] }\ntimeout = \"1m\"\non_failure = \"rollback\"\n\
             [[step]]\nid = \"fails\"\nkind = \"task\"\ntitle = \"fails\"\nuses = \"service.start\"\n\
             with = { services = [\"loops\"] }\ntimeout = \"1m\"\non_failure = \"rollback\"",
        );
        write("undone", &changes.replace("on_failure = \"abort\"", "on_failure = \"rollback\""))?;
        let folder = folder.to_str().context("a path that is no text")?.to_owned();
        self.say(&["config", "apply", &folder, "--yes"]).await.map(drop)
    }

    /// A call of fleetctl beside the controller, which must end well.
    async fn say(&self, arguments: &[&str]) -> Result<String> {
        let config = format!("FLEET_CONFIG_DIR={}", self.folder.path().join("operator").display());
        let call = ["env", &config, &self.fleetctl, "--no-input"];
        self.lab.run("ctl1", &[&call, arguments].concat()).await
    }

    /// Starts a run and gives its id.
    async fn start(&self, procedure: &str) -> Result<String> {
        self.start_with(procedure, &[]).await
    }

    /// The same with parameters.
    async fn start_with(&self, procedure: &str, params: &[&str]) -> Result<String> {
        let call =
            ["run", "start", procedure, "--node", "fw-1", "--yes", "--reason", "a story", "-o", "name"];
        Ok(self.say(&[&call, params].concat()).await?.trim().to_owned())
    }

    /// The number of a program that a step has started.
    async fn program_of_step(&self, line: &str) -> Result<String> {
        wait_for("the step's program", PATIENCE, async || {
            Ok(self.lab.run("n1", &["pgrep", "-x", "-f", line]).await.ok())
        })
        .await
        .map(|pid| pid.trim().to_owned())
    }

    /// How the run's only job ended.
    async fn ended(&self, run: &str) -> Result<JobState> {
        wait_for("the end of a run", PATIENCE, async || {
            let view: RunView = read_printed(&self.say(&["run", "show", run, "-o", "json"]).await?)?;
            Ok(view.item.state.is_terminal().then_some(()))
        })
        .await?;
        Ok(self.job(run).await?.item.state)
    }

    /// The run's only job, with its report.
    async fn job(&self, run: &str) -> Result<JobView> {
        let job = format!("{run}/fw-1");
        Ok(read_printed(&self.say(&["run", "show", &job, "-o", "json"]).await?)?)
    }

    async fn outcome(&self, procedure: &str) -> Result<(Outcome, String)> {
        let run = self.start(procedure).await?;
        match self.ended(&run).await? {
            JobState::Ended { outcome, reason, .. } => Ok((outcome, reason)),
            other => anyhow::bail!("{other:?} is no end"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_node_works_through_restarts_stopped_units_and_a_power_cut() -> Result<()> {
    let Some(mut story) = Story::begin().await? else { return Ok(()) };
    // Units, as systemd knows them.
    assert_eq!(story.outcome("cron-runs").await?.0, Outcome::Succeeded);
    assert_eq!(story.outcome("checks").await?.0, Outcome::Succeeded);
    story.lab.run("n1", &["systemctl", "stop", "cron"]).await?;
    let (outcome, reason) = story.outcome("cron-runs").await?;
    assert!(outcome == Outcome::Failed && reason.contains("cron"), "{reason}");
    assert_eq!(story.outcome("checks").await?.0, Outcome::Failed);
    story.lab.run("n1", &["systemctl", "start", "cron"]).await?;
    assert_eq!(story.outcome("cron-runs").await?.0, Outcome::Succeeded);
    // One that is started again and again does not run, and neither does one that is not there.
    story.lab.run("n1", &["systemctl", "start", "--no-block", "loops"]).await?;
    for (procedure, unit) in [("loops-runs", "loops"), ("absent-runs", "absent")] {
        let (outcome, reason) = story.outcome(procedure).await?;
        assert!(outcome == Outcome::Failed && reason.contains(unit), "{reason}");
    }
    // The agent is restarted, as an upgrade of its package does, with a step under way: the step goes on in its unit.
    let run = story.start("short").await?;
    let program = story.program_of_step("/bin/sleep 10").await?;
    let group = story.lab.run("n1", &["cat", &format!("/proc/{program}/cgroup")]).await?;
    assert!(group.contains(&format!("/system.slice/fleet-step-{run}-1.step.1.main.service")), "{group}");
    story.lab.run("n1", &["systemctl", "restart", "fleet-agent"]).await?;
    story.lab.run("n1", &["test", "-e", &format!("/proc/{program}")]).await?;
    assert!(matches!(story.ended(&run).await?, JobState::Ended { outcome: Outcome::Succeeded, .. }));
    // A step whose unit is stopped by hand ends as its record says, with all that it started, and nothing is left in systemd.
    let run = story.start("leaves").await?;
    let left = story.program_of_step("/bin/sleep 61").await?;
    story.lab.shell("n1", "systemctl stop 'fleet-step-*'").await?;
    match story.ended(&run).await? {
        JobState::Ended { outcome: Outcome::Failed, cause: Some(EndCause::OutcomeUnknown), reason } => {
            assert!(reason.contains("stopped on request"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    story
        .lab
        .shell("n1", &format!("! test -e /proc/{left}; ! systemctl list-units --all | grep fleet-step"))
        .await?;
    // A power cut in the middle of a step: nobody knows how far it came.
    let run = story.start("slow").await?;
    story.program_of_step("/bin/sleep 60").await?;
    story.lab.power("n1", "cut").await?;
    story.lab.power("n1", "on").await?;
    match story.ended(&run).await? {
        JobState::Ended { outcome: Outcome::Failed, cause: Some(EndCause::OutcomeUnknown), reason } => {
            assert!(reason.contains("the machine restarted"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(story.outcome("cron-runs").await?.0, Outcome::Succeeded, "and the node works on");
    story.controller.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn services_settings_and_logs_are_changed_and_put_back() -> Result<()> {
    let Some(mut story) = Story::begin().await? else { return Ok(()) };
    let shell = async |script: &str| story.lab.shell("n1", script).await;
    let pid = async || shell("systemctl show -P MainPID cron").await;
    // Services.
    let before = pid().await?;
    assert_eq!(story.outcome("restart-cron").await?.0, Outcome::Succeeded);
    assert_ne!(pid().await?, before);
    assert_eq!(story.outcome("stop-cron").await?.0, Outcome::Succeeded);
    assert_eq!(shell("systemctl is-active cron || true").await?.trim(), "inactive");
    assert_eq!(story.outcome("start-cron").await?.0, Outcome::Succeeded);
    shell("systemctl start needs stuck reloads").await?;
    for (procedure, word) in [
        ("start-masked", "masked.service is masked"),
        ("stop-alias", "syslogd-of-story.service is another name of base.service"),
        ("stop-base", "needs.service need base.service"),
        ("start-loops", "loops.service"),
        ("stop-stuck", "stuck.service"),
        ("rotate-logs", "run log.configure first"),
    ] {
        let (outcome, reason) = story.outcome(procedure).await?;
        assert!(
            matches!(outcome, Outcome::Failed | Outcome::Refused) && reason.contains(word),
            "{procedure}: {reason}"
        );
    }
    assert_eq!(shell("systemctl is-active base needs | sort -u").await?.trim(), "active");
    assert_eq!(story.outcome("stop-both").await?.0, Outcome::Succeeded);
    // What failed, and what was undone, left nothing behind.
    let state = "systemctl is-active cron logrotate.timer; systemctl cat logrotate.timer; ls /etc/logrotate.d /etc/sysctl.d
        grep story /proc/self/mountinfo | cut -d' ' -f5-";
    let as_before = shell(state).await?;
    let (outcome, reason) = story.outcome("undone").await?;
    assert_eq!(outcome, Outcome::RolledBack, "{reason}");
    assert_eq!(shell(state).await?, as_before);
    // A node's container has the settings of its machine, to look at.
    let (outcome, reason) = story.outcome("tune-kernel").await?;
    assert!(outcome == Outcome::Failed && reason.contains("kernel.panic"), "{reason}");
    assert_eq!(shell(state).await?, as_before);
    // Mount options.
    assert_eq!(story.outcome("tune-mount").await?.0, Outcome::Succeeded);
    assert!(shell("grep /srv/story /proc/self/mountinfo").await?.contains("noatime"));
    assert_eq!(story.outcome("untune-mount").await?.0, Outcome::Succeeded);
    assert_eq!(shell(state).await?, as_before);
    // Rotation, by the job and by the timer that it leaves behind.
    assert_eq!(story.outcome("configure-logs").await?.0, Outcome::Succeeded);
    assert!(shell("systemctl show -P TimersCalendar logrotate.timer").await?.contains("*:00:00"));
    assert_eq!(story.outcome("rotate-logs").await?.0, Outcome::Succeeded);
    assert_eq!(shell("cat /var/log/story/a.log.1 /var/log/story/told").await?, "old\ntold\n");
    story.controller.stop().await
}
