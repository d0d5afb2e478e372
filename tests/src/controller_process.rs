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
use fleetctl::dev::config_files::{self, Served};
use fleetctl::dev::launch::{self, Made};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;

use crate::own_process::OwnProcess;
use crate::programs::program;
use crate::wait::wait_for;

/// Starting includes the store's probe after a SIGKILL; a debug build on a busy machine takes seconds.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Its log below the folder.
const LOG: &str = "controller.log";
/// Written there once it serves.
const READY: &str = "ready.json";
/// Tries for ports that another process took in between.
const PORT_TRIES: usize = 20;

/// How a controller is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Divides the protocol timers; 50 makes a heartbeat 600 ms.
    pub scale: u32,
    /// Lives of certificates in seconds, each as its key in `[timers]`; none are the usual ones.
    pub lives: Vec<(&'static str, u32)>,
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
        Self { scale: 50, lives: Vec::new(), log: "info".to_owned(), program: None, log_to: None, data: None }
    }
}

/// A controller with its data.
#[derive(Debug)]
pub struct ControllerProcess {
    folder: TempDir,
    data: PathBuf,
    program: PathBuf,
    ports: (u16, u16),
    process: OwnProcess,
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
        let init = launch::init(&program, &data, &folder.path().join("root.key"), "ada");
        let output = Command::from(init)
            .stdin(Stdio::null())
            .output()
            .await
            .with_context(|| format!("{} did not start", program.display()))?;
        ensure!(output.status.success(), "init failed: {}", String::from_utf8_lossy(&output.stderr));
        let made: Made = serde_json::from_slice(&output.stdout).context("init printed no such JSON")?;
        let log_to = options.log_to.clone().unwrap_or_else(|| folder.path().join(LOG));
        let controller = Self {
            process: OwnProcess::new("the controller", &log_to),
            folder,
            data,
            program,
            ports: free_ports()?,
            fleet: made.fleet,
            invite: made.invite,
        };
        let timers = match options.scale {
            // Also a program without the feature for tests takes this.
            1 => String::new(),
            scale => format!("[timers]\nscale = {scale}\n"),
        };
        let lives: Vec<_> = options.lives.iter().map(|(key, life)| format!("{key} = {life}\n")).collect();
        let lives = lives.concat();
        let rest = format!("{timers}{lives}[log]\nlevel = {:?}\n", options.log);
        let config = config_files::controller(&controller.data, &controller.served(), &rest);
        std::fs::write(controller.config_path(), config)?;
        Ok(controller)
    }

    /// Starts it and waits until it serves.
    pub async fn start(&mut self) -> Result<()> {
        self.spawn()?;
        let (process, ready) = (&mut self.process, self.folder.path().join(READY));
        let served = wait_for("the controller to serve", START_LIMIT, async || {
            let ended = process.ended()?;
            Ok(ended.map(Some).or_else(|| ready.exists().then_some(None)))
        })
        .await;
        if let Ok(Some(status)) = served {
            bail!("the controller ended at its start with {status}:\n{}", self.log_tail());
        }
        served.map(drop).with_context(|| self.log_tail())
    }

    fn spawn(&mut self) -> Result<()> {
        let ready = self.folder.path().join(READY);
        let _ = std::fs::remove_file(&ready);
        self.process.start(launch::controller(&self.program, &self.config_path(), &ready))
    }

    /// SIGKILL, and waits until the process is gone.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    /// SIGKILL at once, without waiting: what runs beside this call finds the process gone.
    pub fn strike(&self) -> Result<()> {
        self.process.signal(Signal::KILL)
    }

    /// SIGTERM; it must end by itself with success.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop().await
    }

    /// Starts it where it must end by itself; gives its exit code.
    pub async fn start_in_vain(&mut self) -> Result<Option<i32>> {
        self.spawn()?;
        Ok(self.process.wait_end(START_LIMIT).await?.code())
    }

    /// SIGKILL and start.
    pub async fn kill_and_restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.start().await
    }

    /// Is the process there?
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        self.process.pid()
    }

    /// Where it serves.
    pub fn served(&self) -> Served {
        Served { agent: self.agent_address().to_string(), enrol: self.enrol_address().to_string() }
    }

    /// Where agents and operators connect.
    pub fn agent_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.0))
    }

    /// The enrolment port.
    pub fn enrol_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.1))
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

    /// Everything that it logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The end of its log, for a failed story.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
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
