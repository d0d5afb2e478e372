//! One real controller: made, started, killed and started again on the same data and the same ports.
//!
//! Signals go to the pid of the own child only. Data, keys and log lie in a folder that goes with the value;
//! when a story fails, the log's end is shown (see [`ControllerProcess::log_tail`]).

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fleet_types::id::FleetId;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::programs::program;
use crate::wait::wait_for;

/// Starting includes the store's probe after a SIGKILL; a debug build on a busy machine takes seconds.
const START_LIMIT: Duration = Duration::from_secs(30);
/// A controller drains for at most ten seconds.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Shown of a log when a story fails.
const TAIL_BYTES: usize = 6000;
/// Its log below the folder.
const LOG: &str = "controller.log";
/// Tries for ports that another process took in between.
const PORT_TRIES: usize = 20;

/// How a controller is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Divides the protocol timers; 50 makes a heartbeat 600 ms.
    pub scale: u32,
    /// Filter of its log.
    pub log: String,
    /// Another program than the one beside this executable.
    pub program: Option<PathBuf>,
    /// Another file for what it logs, such as one that takes nothing.
    pub log_to: Option<PathBuf>,
    /// Another place for its data than the own folder, such as a small disk.
    pub data: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { scale: 50, log: "info".to_owned(), program: None, log_to: None, data: None }
    }
}

#[derive(Deserialize)]
struct Made {
    fleet: FleetId,
    invite: String,
}

/// A controller with its data.
#[derive(Debug)]
pub struct ControllerProcess {
    folder: TempDir,
    data: PathBuf,
    log_to: PathBuf,
    program: PathBuf,
    agent_port: u16,
    enrol_port: u16,
    child: Option<Child>,
    /// The fleet that was made.
    pub fleet: FleetId,
    /// The first operator's invite.
    pub invite: String,
}

impl ControllerProcess {
    /// Makes a fleet with the program's own `init` and starts the controller.
    pub async fn start_new(options: &Options) -> Result<Self> {
        let mut controller = Self::make(options).await?;
        controller.start().await?;
        Ok(controller)
    }

    /// Makes a fleet; nothing runs yet.
    pub async fn make(options: &Options) -> Result<Self> {
        let program = match &options.program {
            Some(program) => program.clone(),
            None => program("fleet-controller", "fleet-controller")?,
        };
        let folder = tempfile::Builder::new().prefix("fleet-controller-").tempdir()?;
        let data = options.data.clone().unwrap_or_else(|| folder.path().join("data"));
        let output = Command::new(&program)
            .arg("init")
            .arg("--data")
            .arg(&data)
            .args(["--name", "dev", "--operator", "ada", "--json", "--root-key"])
            .arg(folder.path().join("root.key"))
            .stdin(Stdio::null())
            .output()
            .await
            .with_context(|| format!("{} did not start", program.display()))?;
        ensure!(output.status.success(), "init failed: {}", String::from_utf8_lossy(&output.stderr));
        let made: Made = serde_json::from_slice(&output.stdout).context("init printed no such JSON")?;
        let (agent_port, enrol_port) = free_ports()?;
        let config = format!(
            "data_directory = \"{}\"\n[server]\nagent_listen = \"127.0.0.1:{agent_port}\"\n\
             enrol_listen = \"127.0.0.1:{enrol_port}\"\nserver_names = [\"localhost\"]\n\
             [timers]\nscale = {}\n[log]\nlevel = {:?}\n",
            data.display(),
            options.scale,
            options.log,
        );
        std::fs::write(folder.path().join("controller.toml"), config)?;
        let log_to = options.log_to.clone().unwrap_or_else(|| folder.path().join(LOG));
        Ok(Self {
            folder,
            data,
            log_to,
            program,
            agent_port,
            enrol_port,
            child: None,
            fleet: made.fleet,
            invite: made.invite,
        })
    }

    /// Starts it and waits until it serves.
    pub async fn start(&mut self) -> Result<()> {
        let (child, ready) = (self.spawn()?, self.ready_path());
        let child = self.child.insert(child);
        let mut ended = None;
        let served = wait_for("the controller to serve", START_LIMIT, async || {
            if let Some(status) = child.try_wait()? {
                ended = Some(status);
                return Ok(Some(()));
            }
            Ok(ready.exists().then_some(()))
        })
        .await;
        if let Some(status) = ended {
            self.child = None;
            bail!("the controller ended at its start with {status}:\n{}", self.log_tail());
        }
        served.with_context(|| self.log_tail())
    }

    fn spawn(&self) -> Result<Child> {
        ensure!(self.child.is_none(), "the controller runs already");
        let _ = std::fs::remove_file(self.ready_path());
        let log = std::fs::File::options().create(true).append(true).open(&self.log_to)?;
        Command::new(&self.program)
            .arg("run")
            .arg("--config")
            .arg(self.folder.path().join("controller.toml"))
            .arg("--ready-file")
            .arg(self.ready_path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} did not start", self.program.display()))
    }

    fn ready_path(&self) -> PathBuf {
        self.folder.path().join("ready.json")
    }

    /// SIGKILL, and waits until the process is gone.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the controller does not run")?;
        signal(&child, Signal::KILL)?;
        child.wait().await?;
        Ok(())
    }

    /// SIGKILL at once, without waiting: what runs beside this call finds the process gone.
    pub fn strike(&self) -> Result<()> {
        signal(self.child.as_ref().context("the controller does not run")?, Signal::KILL)
    }

    /// SIGTERM; it must end by itself with success.
    pub async fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the controller does not run")?;
        signal(&child, Signal::TERM)?;
        let status = timeout(STOP_LIMIT, child.wait()).await.context("the controller does not stop")??;
        ensure!(status.success(), "the controller stopped with {status}:\n{}", self.log_tail());
        Ok(())
    }

    /// Starts it where it must end by itself; gives its exit code.
    pub async fn start_in_vain(&mut self) -> Result<Option<i32>> {
        let mut child = self.spawn()?;
        let ended = timeout(START_LIMIT, child.wait()).await;
        let status = ended.with_context(|| format!("it was to end at its start\n{}", self.log_tail()))??;
        Ok(status.code())
    }

    /// SIGKILL and start.
    pub async fn kill_and_restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.start().await
    }

    /// Is the process there?
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Where agents and operators connect.
    pub fn agent_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.agent_port))
    }

    /// The enrolment port.
    pub fn enrol_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.enrol_port))
    }

    /// The root key that `init` wrote.
    pub fn root_key_path(&self) -> PathBuf {
        self.folder.path().join("root.key")
    }

    /// The controller's data directory: `store`, `pki`.
    pub fn data_directory(&self) -> PathBuf {
        self.data.clone()
    }

    /// The controller's configuration.
    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("controller.toml")
    }

    /// A folder that lives as long as this value, outside the controller's data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join(LOG)
    }

    /// Everything that it logged.
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
        format!("--- the controller's log ends with:\n{}", &log[from..])
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

/// Two ports below the range that the system gives to outgoing connections: while a controller is down, its
/// agents dial its port again and again, and from that range one of them could end up connected to itself.
fn free_ports() -> Result<(u16, u16)> {
    for _ in 0..PORT_TRIES {
        let [low, high, ..] = *uuid::Uuid::new_v4().as_bytes();
        let port = 10_000 + u16::from_be_bytes([low, high]) % 22_000;
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free(port) && free(port + 1) {
            return Ok((port, port + 1));
        }
    }
    bail!("no free pair of ports was found in {PORT_TRIES} tries")
}
