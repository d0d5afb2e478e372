//! A lab with a controller, an operator and a node that has joined: installed by hand as an operator would. For the stories beside it.

use std::path::Path;

use anyhow::{Context as _, Result};
use fleet_tests::lab::Lab;
use fleet_tests::own_process::OwnProcess;
use fleet_tests::programs::program;
use fleet_tests::wait::{PATIENCE, wait_for};
use fleet_types::job::{JobState, Outcome};
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

/// A node of a site; by the product the profile of a firewall is its.
pub const LABELS: [&str; 2] = ["site=lab", "product=zehrasec"];

/// A lab with a controller, an operator and a node that has joined.
pub struct Story {
    pub lab: Lab,
    pub folder: tempfile::TempDir,
    fleetctl: String,
    pub controller: OwnProcess,
}

impl Story {
    pub async fn begin(labels: &[&str]) -> Result<Option<Self>> {
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
        story.join(labels).await?;
        Ok(Some(story))
    }

    /// Installs the agent as the README of a release would say.
    async fn join(&self, labels: &[&str]) -> Result<()> {
        let mut create = vec!["join-token", "create", "fw-1", "-q"];
        create.extend(labels.iter().flat_map(|label| ["--label", label]));
        let token = self.say(&create).await?;
        self.lab
            .shell("n1", "useradd --system --shell /usr/sbin/nologin fleet-agent; mkdir -p /etc/fleet")
            .await?;
        self.lab.copy(&program("fleet-agent", "fleet-agent")?, "n1", "/usr/bin/fleet-agent").await?;
        self.lab.write("n1", "/etc/fleet/agent.toml", AGENT).await?;
        self.lab.write("n1", "/etc/systemd/system/fleet-agent.service", UNIT).await?;
        self.lab.run("n1", &["fleet-agent", "enrol", "--token", token.trim()]).await?;
        self.lab.shell("n1", "systemctl daemon-reload; systemctl enable --now fleet-agent").await?;
        self.online().await
    }

    pub async fn online(&self) -> Result<()> {
        wait_for("the node", PATIENCE, async || {
            let status = self.say(&["node", "list", "-o", "json"]).await?;
            Ok(status.contains("\"online\"").then_some(()))
        })
        .await
    }

    /// A call of fleetctl beside the controller, which must end well.
    pub async fn say(&self, arguments: &[&str]) -> Result<String> {
        let config = format!("FLEET_CONFIG_DIR={}", self.folder.path().join("operator").display());
        let call = ["env", &config, &self.fleetctl, "--no-input"];
        self.lab.run("ctl1", &[&call, arguments].concat()).await
    }

    /// Starts a run and gives its id.
    pub async fn start(&self, procedure: &str) -> Result<String> {
        self.start_with(procedure, &[]).await
    }

    /// The same with parameters.
    pub async fn start_with(&self, procedure: &str, params: &[&str]) -> Result<String> {
        let call =
            ["run", "start", procedure, "--node", "fw-1", "--yes", "--reason", "a story", "-o", "name"];
        Ok(self.say(&[&call, params].concat()).await?.trim().to_owned())
    }

    /// The number of a program that a step has started.
    pub async fn program_of_step(&self, line: &str) -> Result<String> {
        wait_for("the step's program", PATIENCE, async || {
            Ok(self.lab.run("n1", &["pgrep", "-x", "-f", line]).await.ok())
        })
        .await
        .map(|pid| pid.trim().to_owned())
    }

    /// How the run's only job ended.
    pub async fn ended(&self, run: &str) -> Result<JobState> {
        wait_for("the end of a run", PATIENCE * 4, async || {
            let view: RunView = read_printed(&self.say(&["run", "show", run, "-o", "json"]).await?)?;
            Ok(view.item.state.is_terminal().then_some(()))
        })
        .await?;
        Ok(self.job(run).await?.item.state)
    }

    /// The run's only job, with its report.
    pub async fn job(&self, run: &str) -> Result<JobView> {
        let job = format!("{run}/fw-1");
        Ok(read_printed(&self.say(&["run", "show", &job, "-o", "json"]).await?)?)
    }

    pub async fn outcome(&self, procedure: &str) -> Result<(Outcome, String)> {
        let run = self.start(procedure).await?;
        match self.ended(&run).await? {
            JobState::Ended { outcome, reason, .. } => Ok((outcome, reason)),
            other => anyhow::bail!("{other:?} is no end"),
        }
    }
}
