//! One node of a sandbox: a private root, a configuration, a real agent that is killed and started again.
//!
//! The stand-in of the firewall's command line gets two lines more: every signature update is written down, and
//! waits while a story holds it, so that "in the middle of a step" is a place and not a moment.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use fleet_types::digest::Digest;
use fleet_types::id::RunId;
use fleet_types::job::JobState;
use fleetctl::dev::config_files::{self, NodeFolders};
use fleetctl::dev::node_spec::NodeSpec;
use fleetctl::dev::{firewall, launch};
use rustix::process::Signal;
use serde::Deserialize;
use tokio::time::timeout;

use crate::clock;
use crate::controller_process::ControllerProcess;
use crate::own_process::OwnProcess;
use crate::programs::program;
use crate::wait::{PATIENCE, wait_until};

/// Its timers: a twentieth of the real ones, like the controller's.
const TIMERS: &str = "[controller.backoff]\nmin = \"50ms\"\nmax = \"1s\"\n[timers]\nstable_link = \"3s\"\nspread = \"100ms\"\n\
                      keepalive = \"2s\"\nhello = \"5s\"\nreport_resend = \"500ms\"\ndocument = \"3s\"\nhalves = \"1s\"\ndrain = \"3s\"\n";
/// The agent's log below the node's folder.
const LOG: &str = "agent.log";
/// After this line of the stand-in the root is known.
const ROOT_LINE: &str = "root=$(CDPATH= cd -P -- \"$(dirname -- \"$0\")/../../..\" && pwd)\n";
/// What a story adds there.
const PROBE: &str = "if [ \"$*\" = \"signatures update\" ]; then\n    echo \"$$\" >>\"$root/updates\"\n    \
                     while [ -e \"$root/hold\" ]; do sleep 0.02; done\nfi\n";

/// What `fleet-agent journal -o json` prints.
#[derive(Debug, Deserialize)]
pub struct Journal {
    /// One entry a job and attempt.
    pub jobs: Vec<JournalJob>,
    /// Damage, if the journal has any.
    pub damage: Option<serde_json::Value>,
}

/// A job in a journal.
#[derive(Debug, Deserialize)]
pub struct JournalJob {
    /// The run.
    pub run: RunId,
    /// The attempt.
    pub attempt: u32,
    /// Where it stands.
    pub state: JobState,
    /// Was its report acknowledged?
    pub acknowledged: bool,
    /// Digest of the request that it was accepted for.
    pub request: Option<Digest>,
    /// Digest of its report.
    pub report: Option<Digest>,
}

/// A node.
#[derive(Debug)]
pub struct SandboxNode {
    /// Its name.
    pub name: String,
    folder: PathBuf,
    /// Where the agent keeps what is its own: journal, reports, records of steps.
    own: PathBuf,
    program: PathBuf,
    /// Variables of every call, beside those of this process.
    variables: Vec<(String, String)>,
    process: OwnProcess,
}

impl SandboxNode {
    /// Makes its folder and its root below `nodes`.
    pub fn lay_out(nodes: &Path, spec: &NodeSpec) -> Result<Self> {
        let folder = nodes.join(&spec.name);
        std::fs::create_dir_all(&folder)?;
        firewall::lay_out(&folder.join("root"), spec, clock::now())?;
        let cli = folder.join("root/usr/local/sbin/zehrasec-cli");
        let text = std::fs::read_to_string(&cli)?;
        ensure!(text.contains(ROOT_LINE), "the stand-in has changed: no line {ROOT_LINE:?}");
        std::fs::write(&cli, text.replace(ROOT_LINE, &format!("{ROOT_LINE}{PROBE}")))?;
        Ok(Self {
            name: spec.name.clone(),
            own: folder.clone(),
            process: OwnProcess::new(&spec.name, &folder.join(LOG)),
            folder,
            program: program("fleet-agent", "fleet-agent --features crash-points")?,
            variables: Vec::new(),
        })
    }

    /// From now on its core has a process and an account of its own, as on a real machine. Needs root. The
    /// program is copied into the node's folder, and the way there opened, because the account may have no
    /// way to where the build lies.
    pub fn set_apart(&mut self, core_user: &str) -> Result<()> {
        let copy = self.folder.join("fleet-agent");
        std::fs::copy(&self.program, &copy)?;
        self.program = copy;
        self.variables.push(("FLEET_RUNTIME__CORE_USER".to_owned(), core_user.to_owned()));
        for folder in self.folder.ancestors().take_while(|folder| *folder != std::env::temp_dir()) {
            std::fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// The process id of its agent.
    pub fn pid(&self) -> Result<u32> {
        self.process.pid()
    }

    /// The same with the agent's own files elsewhere, such as on a small disk.
    #[must_use]
    pub fn keeping_in(self, own: &Path) -> Self {
        Self { own: own.to_owned(), ..self }
    }

    /// The same with another file for what the agent logs, such as one that takes nothing.
    #[must_use]
    pub fn logging_to(mut self, log: &Path) -> Self {
        self.process.log_to(log);
        self
    }

    /// Writes the agent's configuration; `policy` are its last tables.
    pub fn configure(&self, controller: &ControllerProcess, policy: &str) -> Result<()> {
        let folders = NodeFolders {
            identity: self.identity(),
            state: self.state(),
            work: self.own.join("work"),
            root: self.root(),
        };
        let text =
            config_files::agent(&self.name, &folders, &controller.served(), &format!("{TIMERS}{policy}"));
        Ok(std::fs::write(self.config(), text)?)
    }

    /// Joins the fleet.
    pub async fn enrol(&self, token: &str) -> Result<()> {
        let output = self.call(&["enrol"], &[("FLEET_JOIN_TOKEN", token)]).await?;
        ensure!(output.0.success(), "{} did not join: {}", self.name, output.2);
        Ok(())
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = launch::agent(&self.program, verb, &self.config());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the agent; `extra` are arguments of `run`.
    pub fn start(&mut self, extra: &[&str]) -> Result<()> {
        let mut command = self.command("run");
        command.args(extra);
        self.process.start(command)
    }

    /// SIGKILL, and waits until the process is gone.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    /// SIGTERM; it must end by itself with success.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop().await
    }

    /// Waits until the agent ends by itself.
    pub async fn wait_end(&mut self) -> Result<ExitStatus> {
        self.process.wait_end(PATIENCE).await
    }

    /// Stops the agent and the firewall's services.
    pub async fn stop_all(&mut self) -> Result<()> {
        if self.process.is_started() {
            self.stop().await?;
        }
        let (status, _, err) = self.call(&["stop-units"], &[]).await?;
        ensure!(status.success(), "units of {} do not stop: {err}", self.name);
        Ok(())
    }

    /// Ends what runs, after a failure; blocks shortly.
    pub fn give_up(&mut self) {
        let _ = self.process.signal(Signal::KILL);
        let _ = launch::into_log(&mut self.command("stop-units"), Path::new("/dev/null"))
            .and_then(Command::status);
    }

    /// Runs one command of the agent to its end: status, standard output, standard error.
    pub async fn call(
        &self,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<(ExitStatus, String, String)> {
        let (verb, rest) = arguments.split_first().context("the agent has no command without a name")?;
        let mut command = self.command(verb);
        command.args(rest).envs(variables.iter().copied()).stdin(Stdio::null());
        let call = tokio::process::Command::from(command).kill_on_drop(true).output();
        let output = timeout(PATIENCE, call).await.context("the agent's command does not end")??;
        Ok((
            output.status,
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }

    /// Its journal, as the agent prints it.
    pub async fn journal(&self) -> Result<Journal> {
        let (status, out, err) = self.call(&["journal", "-o", "json"], &[]).await?;
        if !status.success() {
            bail!("the journal of {} cannot be read: {err}", self.name);
        }
        serde_json::from_str(&out).with_context(|| format!("the journal of {}", self.name))
    }

    /// Lets signature updates wait.
    pub fn hold(&self) -> Result<()> {
        Ok(std::fs::write(self.root().join("hold"), "")?)
    }

    /// Lets them go on.
    pub fn release(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.root().join("hold"))?)
    }

    /// Signature updates that began.
    pub fn updates(&self) -> usize {
        std::fs::read_to_string(self.root().join("updates")).map_or(0, |text| text.lines().count())
    }

    /// Waits until so many signature updates have begun.
    pub async fn updating(&self, count: usize) -> Result<()> {
        let what = format!("signature update {count} of {}", self.name);
        wait_until(&what, PATIENCE, || self.updates() >= count).await
    }

    /// Files in the folder of backups, by name.
    pub fn archives(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.root().join("var/backups/zehrasec"))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Is the process there?
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Its root.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Its state: journal, reports, notes.
    pub fn state(&self) -> PathBuf {
        self.own.join("state")
    }

    /// Its identity; of a node apart it lies in the state, as by default on a real machine.
    pub fn identity(&self) -> PathBuf {
        if self.variables.is_empty() { self.folder.join("identity") } else { self.state().join("identity") }
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.join("agent.toml")
    }

    /// Everything that the agent logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The end of its log, for a failed story.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}
