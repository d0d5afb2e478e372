//! The real fleetctl with a configuration folder of its own; nothing of the user's own is read or changed.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;
use tokio::process::Command;
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

    /// A call that must end with 0; gives its standard output.
    pub async fn good(&self, arguments: &[&str]) -> Result<String> {
        let said = self.ask(arguments).await?;
        ensure!(said.code == Some(0), "fleetctl {}: {said:?}", arguments.join(" "));
        Ok(said.out)
    }

    /// The view that a call prints as JSON.
    pub async fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let out = self.good(&[arguments, &["-o", "json"]].concat()).await?;
        serde_json::from_str(&out).with_context(|| format!("fleetctl {}: {out}", arguments.join(" ")))
    }
}
