//! Controller and agent installed from their Debian packages on nodes of their own: nothing starts before it is set up, an
//! upgrade under a running job loses nothing, a removal keeps the state, a purge leaves nothing.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use fleet_tests::clock;
use fleet_tests::lab::Lab;
use fleet_tests::programs::program;
use fleet_tests::wait::{PATIENCE, wait_for};

use fleet_types::job::{EndCause, JobState, Outcome};
use fleet_types::view::JobView;
use fleetctl::dev::packages::archive::Archive;
use fleetctl::dev::packages::programs::Caller;
use fleetctl::render::read_printed;

use super::units::procedure;

/// Whatever of the product is on a node, but for what was copied there and the journal of the system.
const LEFT: &str = "find / -xdev -name '*fleet*' -not -path '/srv/*' -not -path '/proc/*' -not -path '/var/log/*' \
     -not -path '/var/cache/apt/*' | sort; getent passwd fleet-agent fleet-controller || true";
const AGENT: &str = "schema = \"fleet/v1\"\nkind = \"agent\"\n[controller]\n\
     endpoints = [{ address = \"n2:7443\", role = \"main\" }]\nenrol = \"n2:7444\"\nserver_name = \"n2\"\n\
     backoff.max = \"2s\"\n[timers]\ndrain = \"2s\"\n[policy]\nmode = \"enforce\"\n";
const PROFILE: &str = "schema = \"fleet/v1\"\nkind = \"profile\"\nname = \"debian\"\nversion = 1\n\
     [service.cron]\nunit = \"cron.service\"\n\
     [command.work]\nargv = [\"/usr/local/bin/works\"]\n\
     timeout = \"5m\"\nchanges = true\n\
     [package.agent]\nname = \"fleet-agent\"\nmanager = \"apt\"\ntouches_network = true\n";

/// Works until it is let go.
const WORKS: &str = "#!/bin/sh\ntouch /run/works; while [ ! -e /run/go ]; do sleep 0.1; done\n";

/// In a container this setting shows the service the boot id of the host, not the node's own; no machine has two.
const DROP_IN: &str = "/etc/systemd/system/fleet-agent.service.d/lab.conf";
/// What the node's halves said, for a story that fails.
const SAID: &str = "journalctl -o short-precise --no-pager -u 'fleet-*' | tail -80";

/// The agent updates itself: as any package, under the guard.
const UPDATE: &str = r#"
schema = "fleet/v1"
kind = "procedure"
name = "update-agent"
version = 1
profile = "debian"
changes = true
timeout = "30m"
params = { version = { type = "version", required = true } }
[[step]]
id = "refresh"
kind = "task"
uses = "package.refresh"
timeout = "2m"
on_failure = "abort"
[[step]]
id = "download"
kind = "task"
uses = "package.download"
with = { packages = ["agent"], version = "{version}" }
timeout = "2m"
on_failure = "abort"
[[step]]
id = "upgrade"
kind = "task"
uses = "package.upgrade"
with = { packages = ["agent"], version = "{version}" }
timeout = "2m"
guard = { confirm_within = "20s" }
on_failure = "rollback"
[[rollback]]
id = "downgrade"
uses = "package.downgrade"
with = { packages = ["agent"], to = "previous" }
timeout = "2m"
undoes = ["upgrade"]
"#;
/// A version whose program ends at once: from FOLDER/0.1.2 into FOLDER/0.1.3.
const BREAK: &str = "cd \"$1\"; dpkg-deb -R 0.1.2/fleet-agent_0.1.2_*.deb tree
    sed -i 's/^Version: .*/Version: 0.1.3/' tree/DEBIAN/control
    printf '#!/bin/sh\nexit 1\n' >tree/usr/bin/fleet-agent
    mkdir 0.1.3; dpkg-deb --root-owner-group -Znone -b tree 0.1.3/fleet-agent_0.1.3_broken.deb";

/// Packages of this build under a version, made by the command that makes releases.
async fn packages(folder: &Path, version: &str) -> Result<PathBuf> {
    let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/debian/make.sh");
    let out = folder.join(version);
    let programs = program("fleet-agent", "fleet-agent")?;
    let binaries = programs.parent().context("a program lies in a folder")?;
    for (package, name) in [("fleetctl", "fleetctl"), ("fleet-controller", "fleet-controller")] {
        program(package, name)?;
    }
    let mut command = tokio::process::Command::new(make);
    command.arg("--binaries").arg(binaries).args(["--fast", "--version", version]).arg(&out);
    let outcome = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    ensure!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
    Ok(out)
}

struct Site {
    lab: Lab,
    folder: tempfile::TempDir,
}

impl Site {
    async fn install(&self, node: &str, packages: &[&str], version: &str) -> Result<()> {
        let files: Vec<_> =
            packages.iter().map(|package| format!("/srv/{version}/{package}_{version}_*.deb")).collect();
        // "dpkg -i": the packages that they need are there, and nothing else is to be fetched.
        self.lab.shell(node, &format!("dpkg -i {}", files.join(" "))).await.map(drop)
    }

    /// fleetctl beside the controller.
    async fn say(&self, arguments: &str) -> Result<String> {
        self.lab.shell("n2", &format!("FLEET_CONFIG_DIR=/srv/operator fleetctl --no-input {arguments}")).await
    }

    async fn is_online(&self) -> Result<()> {
        wait_for("the node", PATIENCE, async || {
            Ok(self.say("node list -o json").await?.contains("\"online\"").then_some(()))
        })
        .await
    }

    async fn controller(&self) -> Result<()> {
        self.install("n2", &["fleet-controller", "fleetctl"], "0.1.0").await?;
        let quiet = "systemctl is-enabled fleet-controller; systemctl is-active fleet-controller || true
            systemctl --failed --no-legend";
        assert_eq!(
            self.lab.shell("n2", quiet).await?,
            "enabled\ninactive\n",
            "nothing starts before it is set up"
        );
        let init = "sed -i 's/^server_names.*/server_names = [\"n2\"]/' /etc/fleet/controller.toml
            install -d -m 700 -o fleet-controller /run/root-key
            runuser -u fleet-controller -- fleet-controller init --data /var/lib/fleet-controller --name lab \
                --operator ada --root-key /run/root-key/root.key --json >/srv/made
             systemctl start fleet-controller";
        self.lab.shell("n2", init).await?;
        let exposure = "systemd-analyze security fleet-controller --no-pager | sed -n 's/.*exposure level[^:]*: \\([0-9.]*\\).*/\\1/p'";
        let exposure: f64 = self.lab.shell("n2", exposure).await?.trim().parse()?;
        assert!(exposure <= 1.5, "{exposure}");
        let made: serde_json::Value = serde_json::from_str(&self.lab.shell("n2", "cat /srv/made").await?)?;
        let invite = made["invite"].as_str().context("no invite")?;
        let login = format!("login {invite} --root-key /run/root-key/root.key --server n2");
        wait_for("the controller", PATIENCE, async || Ok(self.say(&login).await.ok())).await.map(drop)
    }

    async fn agent(&self) -> Result<()> {
        // The account is there already, as on a node that had the agent before.
        self.lab.shell("n1", "useradd --system --shell /usr/sbin/nologin fleet-agent").await?;
        self.install("n1", &["fleet-agent"], "0.1.0").await?;
        let quiet = "systemctl is-enabled fleet-agent fleet-guard; systemctl is-active fleet-agent || true
            systemctl --failed --no-legend";
        assert_eq!(self.lab.shell("n1", quiet).await?, "enabled\nenabled\ninactive\n");
        self.lab.write("n1", "/etc/fleet/agent.toml", AGENT).await?;
        self.lab.write("n1", "/usr/local/bin/works", WORKS).await?;
        self.lab.shell("n1", "chmod 755 /usr/local/bin/works").await?;
        let drop_in = format!(
            "mkdir -p $(dirname {DROP_IN}); printf '[Service]\\nProtectControlGroups=no\\n' >{DROP_IN}
            systemctl daemon-reload"
        );
        self.lab.shell("n1", &drop_in).await?;
        let token = self.say("join-token create fw-1 -q --label site=lab").await?;
        self.lab.run("n1", &["fleet-agent", "enrol", "--token", token.trim()]).await?;
        self.lab.shell("n1", "systemctl start fleet-agent").await?;
        self.is_online().await
    }

    async fn documents(&self) -> Result<()> {
        let folder = self.folder.path().join("documents");
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("profile.toml"), PROFILE)?;
        for (name, changes, step) in [
            ("cron-runs", false, "uses = \"service.assert_active\"\nwith = { services = [\"cron\"] }"),
            ("work", true, "uses = \"command.run\"\nwith = { command = \"work\" }"),
        ] {
            std::fs::write(folder.join(format!("{name}.toml")), procedure(name, changes, step))?;
        }
        std::fs::write(folder.join("update-agent.toml"), UPDATE)?;
        self.lab.copy(&folder, "n2", "/srv/documents").await?;
        self.say("config apply /srv/documents --yes").await.map(drop)
    }

    /// Gives the node a signed archive of versions of the agent, the last one broken.
    async fn archive(&self) -> Result<()> {
        let folder = self.folder.path();
        let broken =
            tokio::process::Command::new("sh").args(["-ec", BREAK, "sh"]).arg(folder).output().await?;
        ensure!(broken.status.success(), "{}", String::from_utf8_lossy(&broken.stderr));
        let mut files = Vec::new();
        for version in ["0.1.1", "0.1.2", "0.1.3"] {
            let all = std::fs::read_dir(folder.join(version))?.flatten().map(|entry| entry.path());
            files.extend(all.filter(|path| path.to_string_lossy().contains("fleet-agent_")));
        }
        let folder = folder.join("signed");
        let archive = Archive::of(&folder, &files, clock::now(), &Caller::new(&folder.join("log")))?;
        self.lab.copy(&archive.packages(), "n1", "/srv/archive").await?;
        self.lab.copy(&folder.join("key.gpg"), "n1", "/etc/apt/trusted.gpg.d/story.gpg").await?;
        self.lab.write("n1", "/etc/apt/sources.list.d/story.list", "deb file:/srv/archive ./\n").await?;
        self.lab.shell("n1", "chmod -R a+rX /srv/archive").await.map(drop)
    }

    /// Starts a run and gives its id.
    async fn start(&self, what: &str) -> Result<String> {
        let said = self.say(&format!("run start {what} --all --yes -q")).await?;
        Ok(said.split_whitespace().next().context("no run is named")?.to_owned())
    }

    /// Has the agent update itself; gives the run.
    async fn update(&self, version: &str) -> Result<String> {
        self.start(&format!("update-agent --param version={version}")).await
    }

    /// How the run's only job ended.
    async fn ended(&self, run: &str) -> Result<JobState> {
        self.say(&format!("run wait {run} -q || [ $? = 7 ]")).await?;
        Ok(read_printed::<JobView>(&self.say(&format!("run show {run}/fw-1 -o json")).await?)?.item.state)
    }

    /// A version that does not run was put back, and nothing is left of it.
    async fn was_put_back(&self, run: &str) -> Result<()> {
        match self.ended(run).await? {
            JobState::Ended { outcome: Outcome::RolledBack, cause: Some(EndCause::Unconfirmed), reason } => {
                let told = self.say(&format!("run show {run}/fw-1")).await?;
                let said = self.lab.shell("n1", SAID).await?;
                assert!(reason.contains("the guard put it back"), "{reason}\n{told}\n{said}");
            }
            other => panic!("{other:?}"),
        }
        let is = "dpkg-query -W -f '${Version} ${db:Status-Abbrev}\\n' fleet-agent; dpkg --audit
            dpkg --verify fleet-agent | { grep -v ' c /etc/fleet/agent.toml' || true; }; ls /var/lib/fleet-agent/guard; systemctl --failed --no-legend";
        assert_eq!(
            self.lab.shell("n1", is).await?,
            "0.1.2 ii \n",
            "the former version, whole, and nothing pending"
        );
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_install_upgrade_under_a_job_and_leave_nothing() -> Result<()> {
    let Some(lab) = Lab::up(2).await? else { return Ok(()) };
    let site = Site { lab, folder: tempfile::tempdir()? };
    let shell = async |script: &str| site.lab.shell("n1", script).await;
    for version in ["0.1.0", "0.1.1", "0.1.2"] {
        let made = packages(site.folder.path(), version).await?;
        for node in ["n1", "n2"] {
            site.lab.copy(&made, node, &format!("/srv/{version}")).await?;
        }
    }
    let before = (site.lab.shell("n1", LEFT).await?, site.lab.shell("n2", LEFT).await?);
    site.controller().await?;
    site.agent().await?;
    site.documents().await?;
    site.say("run start cron-runs --all --wait --yes").await?;

    // The agent is upgraded while a job of it works: the job's program goes on, and its end is told.
    let run = site.start("work").await?;
    let works = "[ -e /run/works ] && systemctl show -p MainPID --value fleet-agent";
    let first = wait_for("the job to work", PATIENCE, async || Ok(shell(works).await.ok())).await?;
    site.install("n1", &["fleet-agent"], "0.1.1").await?;
    // The agent lets its step end for a while before it makes room for the new one.
    let renewed = format!(
        "dpkg-query -W -f '${{Version}}' fleet-agent | grep -qx 0.1.1; systemctl is-active fleet-agent
        [ \"$(systemctl show -p MainPID --value fleet-agent)\" != {} ]",
        first.trim()
    );
    wait_for("the new agent", PATIENCE, async || Ok(shell(&renewed).await.ok())).await?;
    assert_eq!(shell("cat /etc/fleet/agent.toml").await?, AGENT, "what the owner wrote stays");
    shell("touch /run/go").await?;
    site.say(&format!("run wait {run}")).await?;

    // It updates itself; and a version that does not come up is put back by the guard of the one before.
    site.archive().await?;
    let run = site.update("0.1.2").await?;
    let ended = site.ended(&run).await?;
    let succeeded = matches!(ended, JobState::Ended { outcome: Outcome::Succeeded, .. });
    assert!(succeeded, "{ended:?}\n{}", site.lab.shell("n1", SAID).await?);
    let run = site.update("0.1.3").await?;
    site.was_put_back(&run).await?;
    // The same when the power is cut while it is there.
    let run = site.update("0.1.3").await?;
    wait_for("the broken version to be there", PATIENCE, async || {
        Ok(shell("dpkg-query -W -f '${Version} ${db:Status-Abbrev}' fleet-agent | grep -q '^0.1.3 ii'")
            .await
            .ok())
    })
    .await?;
    site.lab.power("n1", "cut").await?;
    site.lab.power("n1", "on").await?;
    site.was_put_back(&run).await?;

    // Removed, its state stays: installed again it is the same node.
    shell("dpkg -r fleet-agent; [ -e /var/lib/fleet-agent/node.json ]; [ ! -e /usr/bin/fleet-agent ]")
        .await?;
    wait_for("the node to be gone", PATIENCE, async || {
        Ok((!site.say("node list -o json").await?.contains("\"online\"")).then_some(()))
    })
    .await?;
    site.install("n1", &["fleet-agent"], "0.1.2").await?;
    site.is_online().await?;
    site.say("run start cron-runs --all --wait --yes").await?;

    shell(&format!("rm -r {DROP_IN} $(dirname {DROP_IN}); dpkg -P fleet-agent")).await?;
    site.lab.shell("n2", "dpkg -P fleet-controller fleetctl").await?;
    let after = (site.lab.shell("n1", LEFT).await?, site.lab.shell("n2", LEFT).await?);
    assert_eq!(after, before, "a purge leaves nothing");
    Ok(())
}
