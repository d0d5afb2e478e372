//! The real fleetctl with a configuration folder of its own; nothing of the user's own is read or changed.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use fleetctl::render::read_printed;
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::programs::program;
use crate::wait::PATIENCE;

/// What a call of fleetctl said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// fleetctl as one operator calls it.
#[derive(Debug)]
pub struct Fleetctl {
    program: PathBuf,
    folder: PathBuf,
}

impl Fleetctl {
    /// With `folder` as its configuration folder.
    pub fn new(folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self { program: program("fleetctl", "fleetctl")?, folder })
    }

    /// Its configuration folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A call that is ready to be started. Of our variables it sees PATH alone, so that no user's habit shows.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("FLEET_CONFIG_DIR", &self.folder)
            // As a terminal of this width: what is cut is cut in stories, too.
            .env("COLUMNS", "80")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a call to its end.
    pub async fn ask(&self, arguments: &[&str]) -> Result<Said> {
        let call = self.command(arguments).output();
        let output = timeout(PATIENCE * 3, call)
            .await
            .with_context(|| format!("fleetctl {} does not end", arguments.join(" ")))??;
        Ok(Said {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts a call that goes on for a while; what it says goes into files, so it sees no terminal.
    pub fn begin(&self, arguments: &[&str]) -> Result<Running> {
        let (out, err) = (NamedTempFile::new()?, NamedTempFile::new()?);
        let child = self.command(arguments).stdout(out.reopen()?).stderr(err.reopen()?).spawn()?;
        Ok(Running { child, out, err })
    }

    /// A call that must end with 0; gives its standard output.
    pub async fn good(&self, arguments: &[&str]) -> Result<String> {
        let said = self.ask(arguments).await?;
        ensure!(said.code == Some(0), "fleetctl {}: {said:?}", arguments.join(" "));
        Ok(said.out)
    }

    /// The view that a call prints as JSON.
    pub async fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let out = self.good(&[arguments, &["-o", "json"]].concat()).await?;
        read_printed(&out).with_context(|| format!("fleetctl {}: {out}", arguments.join(" ")))
    }
}

/// A call that goes on.
#[derive(Debug)]
pub struct Running {
    child: Child,
    out: NamedTempFile,
    err: NamedTempFile,
}

impl Running {
    /// What came on standard output so far.
    pub fn out(&self) -> String {
        text_of(&self.out)
    }

    /// What came on standard error so far.
    pub fn err(&self) -> String {
        text_of(&self.err)
    }

    /// Does it go on?
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ctrl-C: SIGINT, and waits until it has ended by itself.
    pub async fn interrupt(mut self) -> Result<Said> {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        kill_process(pid.with_context(|| format!("fleetctl has ended: {}", self.err()))?, Signal::INT)?;
        let ended = timeout(PATIENCE, self.child.wait()).await;
        let status = ended.with_context(|| format!("fleetctl does not end: {}", self.err()))??;
        Ok(Said { code: status.code(), out: self.out(), err: self.err() })
    }
}

fn text_of(file: &NamedTempFile) -> String {
    std::fs::read(file.path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
