//! One node of a sandbox: a private root, a configuration, a real agent that is killed and started again.
//!
//! The stand-in of the firewall's command line gets two lines more: every signature update is written down, and
//! waits while a story holds it, so that "in the middle of a step" is a place and not a moment.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fleet_types::digest::Digest;
use fleet_types::id::RunId;
use fleet_types::job::JobState;
use fleetctl::dev::firewall;
use fleetctl::dev::node_spec::NodeSpec;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::clock;
use crate::controller_process::ControllerProcess;
use crate::programs::program;
use crate::wait::{PATIENCE, wait_until};

/// An agent drains for at most three seconds here.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Shown of a log when a story fails.
const TAIL_BYTES: usize = 3000;
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
    log_to: PathBuf,
    program: PathBuf,
    /// Variables of every call, beside those of this process.
    variables: Vec<(String, String)>,
    child: Option<Child>,
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
            log_to: folder.join(LOG),
            folder,
            program: program("fleet-agent", "fleet-agent --features crash-points")?,
            variables: Vec::new(),
            child: None,
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
        self.child.as_ref().and_then(Child::id).with_context(|| format!("{} does not run", self.name))
    }

    /// The same with the agent's own files elsewhere, such as on a small disk.
    #[must_use]
    pub fn keeping_in(self, own: &Path) -> Self {
        Self { own: own.to_owned(), ..self }
    }

    /// The same with another file for what the agent logs, such as one that takes nothing.
    #[must_use]
    pub fn logging_to(self, log: &Path) -> Self {
        Self { log_to: log.to_owned(), ..self }
    }

    /// Writes the agent's configuration; `policy` are its last tables.
    pub fn configure(&self, controller: &ControllerProcess, policy: &str) -> Result<()> {
        let text = format!(
            "schema = \"fleet/v1\"\nkind = \"agent\"\nname = \"{}\"\n\
             [controller]\nendpoints = [{{ address = \"{}\" }}]\nenrol = \"{}\"\nserver_name = \"localhost\"\n\
             backoff.min = \"50ms\"\nbackoff.max = \"1s\"\n\
             [identity]\ndirectory = \"{}\"\n[runtime]\nstate_directory = \"{}\"\nwork_directory = \"{}\"\n\
             [timers]\nstable_link = \"3s\"\nspread = \"100ms\"\nkeepalive = \"2s\"\nhello = \"5s\"\n\
             report_resend = \"500ms\"\ndocument = \"3s\"\ndrain = \"3s\"\n\
             [dev]\nroot = \"{}\"\n{policy}",
            self.name,
            controller.agent_address(),
            controller.enrol_address(),
            self.identity().display(),
            self.state().display(),
            self.own.join("work").display(),
            self.root().display(),
        );
        Ok(std::fs::write(self.config(), text)?)
    }

    /// Joins the fleet.
    pub async fn enrol(&self, token: &str) -> Result<()> {
        let output = self.call(&["enrol"], &[("FLEET_JOIN_TOKEN", token)]).await?;
        ensure!(output.0.success(), "{} did not join: {}", self.name, output.2);
        Ok(())
    }

    /// Starts the agent; `extra` are arguments of `run`.
    pub fn start(&mut self, extra: &[&str]) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let log = std::fs::File::options().create(true).append(true).open(&self.log_to)?;
        let child = Command::new(&self.program)
            .arg("run")
            .arg("--config")
            .arg(self.config())
            .args(extra)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// SIGKILL, and waits until the process is gone.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        signal(&child, Signal::KILL)?;
        child.wait().await?;
        Ok(())
    }

    /// SIGTERM; it must end by itself with success.
    pub async fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        signal(&child, Signal::TERM)?;
        let status = timeout(STOP_LIMIT, child.wait()).await.context("the agent does not stop")??;
        ensure!(status.success(), "{} stopped with {status}", self.name);
        Ok(())
    }

    /// Waits until the agent ends by itself.
    pub async fn wait_end(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        timeout(PATIENCE, child.wait())
            .await
            .with_context(|| format!("{} was to end by itself", self.name))?
            .map_err(Into::into)
    }

    /// Stops the agent and the firewall's services.
    pub async fn stop_all(&mut self) -> Result<()> {
        if self.child.is_some() {
            self.stop().await?;
        }
        let (status, _, err) = self.call(&["stop-units"], &[]).await?;
        ensure!(status.success(), "units of {} do not stop: {err}", self.name);
        Ok(())
    }

    /// Ends what runs, after a failure; blocks shortly.
    pub fn give_up(&mut self) {
        if let Some(child) = self.child.take() {
            let _ = signal(&child, Signal::KILL);
        }
        let _ = std::process::Command::new(&self.program)
            .args(["stop-units", "--config"])
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }

    /// Runs one command of the agent to its end: status, standard output, standard error.
    pub async fn call(
        &self,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<(ExitStatus, String, String)> {
        let call = Command::new(&self.program)
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
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
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
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

    fn log_path(&self) -> PathBuf {
        self.folder.join(LOG)
    }

    /// Everything that the agent logged.
    pub fn log(&self) -> String {
        std::fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The end of its log, for a failed story.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let mut from = log.len().saturating_sub(TAIL_BYTES);
        while !log.is_char_boundary(from) {
            from += 1;
        }
        format!("--- the log of {} ends with:\n{}", self.name, &log[from..])
    }
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    // None: it ended and was waited for; its number may be somebody else's now.
    if let Some(pid) = pid {
        kill_process(pid, signal)?;
    }
    Ok(())
}
