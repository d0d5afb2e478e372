//! Units, settings and logs of a real node: asked, changed and put back, also over restarts and a power cut.

use anyhow::{Context as _, Result};
use fleet_types::job::{EndCause, JobState, Outcome};

use super::story::{LABELS, Story};

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

pub fn procedure(name: &str, changes: bool, step: &str) -> String {
    format!(
        "schema = \"fleet/v1\"\nkind = \"procedure\"\nname = \"{name}\"\nversion = 1\nprofile = \"debian\"\n\
         changes = {changes}\ntimeout = \"10m\"\n[[step]]\nid = \"step\"\nkind = \"task\"\ntitle = \"{name}\"\n\
         timeout = \"5m\"\non_failure = \"abort\"\n{step}\n"
    )
}

impl Story {
    /// A node with the units and documents of these stories.
    async fn with_units() -> Result<Option<Self>> {
        let Some(story) = Self::begin(&LABELS).await? else { return Ok(None) };
        story.make_units().await?;
        story.apply().await?;
        Ok(Some(story))
    }

    async fn make_units(&self) -> Result<()> {
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
        self.lab.run("n1", &["systemctl", "daemon-reload"]).await.map(drop)
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
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_node_works_through_restarts_stopped_units_and_a_power_cut() -> Result<()> {
    let Some(mut story) = Story::with_units().await? else { return Ok(()) };
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
    let Some(mut story) = Story::with_units().await? else { return Ok(()) };
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
