//! Real Debian nodes with systemd, for stories (tests/lab). Needs root and namespaces.
//!
//! Where a lab cannot be, the story says loudly that it proves nothing there; in CI it fails. One lab at a time: it has a name
//! and addresses of its own. Dropping it cuts the nodes' power and removes what it made, but for the base of all nodes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::geteuid;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use crate::programs::target_directory;

/// Apart from a lab that somebody has up by hand; with these in the environment two checkouts can have stories at once.
const NAME: (&str, &str) = ("FLEET_LAB_NAME", "fltt");
const NET: (&str, &str) = ("FLEET_LAB_NET", "10.79.0");
/// The base is built with some 150 packages from a mirror, once.
const BASE_LIMIT: Duration = Duration::from_mins(8);
const CALL_LIMIT: Duration = Duration::from_mins(2);

/// See the module.
#[derive(Debug)]
pub struct Lab {
    directory: PathBuf,
    _only: MutexGuard<'static, ()>,
}

/// Stories of one process wait for each other; those of several are a group of the test runner's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

impl Lab {
    /// Brings nodes and one controller's namespace up; none where this machine cannot.
    pub async fn up(nodes: u32) -> Result<Option<Self>> {
        if !geteuid().is_root() {
            ensure!(std::env::var_os("CI").is_none(), "the stories of real nodes need root");
            eprintln!("NOT PROVED HERE: work on real nodes with systemd; run the tests as root for that");
            return Ok(None);
        }
        let lab = Self { directory: target_directory()?.join("lab"), _only: ONE_AT_A_TIME.lock().await };
        // Of a story that was killed something may be left.
        lab.call("lab-down", &["--fast"], CALL_LIMIT).await?;
        lab.call("lab-up", &["-c", "1", &nodes.to_string()], BASE_LIMIT).await?;
        Ok(Some(lab))
    }

    fn command(&self, script: &str, arguments: &[&str]) -> Command {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab");
        let mut command = Command::new(scripts.join(script));
        command
            .args(arguments)
            .env("FLEET_LAB_DIR", &self.directory)
            .env(NAME.0, of_environment(NAME))
            .env(NET.0, of_environment(NET))
            .stdin(Stdio::null());
        command
    }

    async fn call(&self, script: &str, arguments: &[&str], limit: Duration) -> Result<String> {
        let what = format!("{script} {}", arguments.join(" "));
        let mut command = tokio::process::Command::from(self.command(script, arguments));
        let output = timeout(limit, command.kill_on_drop(true).output());
        let output = output.await.with_context(|| format!("{what} does not end"))??;
        let Output { status, stdout, stderr } = output;
        let said = String::from_utf8_lossy(&stdout).into_owned();
        ensure!(status.success(), "{what}: {status}\n{said}\n{}", String::from_utf8_lossy(&stderr));
        Ok(said)
    }

    /// The address of a node.
    pub fn address(number: u32) -> String {
        format!("{}.{}", of_environment(NET), 10 + number)
    }

    /// Runs a command on a host, which must succeed; gives what it printed.
    pub async fn run(&self, host: &str, command: &[&str]) -> Result<String> {
        self.call("lab-exec", &[&[host], command].concat(), CALL_LIMIT).await
    }

    /// The same with a shell.
    pub async fn shell(&self, host: &str, script: &str) -> Result<String> {
        self.run(host, &["sh", "-ec", script]).await
    }

    /// A command that goes on on a host; for [`crate::own_process`].
    pub fn going_on(&self, host: &str, command: &[&str]) -> Command {
        self.command("lab-exec", &[&[host], command].concat())
    }

    /// Puts a file of this machine into a node.
    pub async fn copy(&self, from: &Path, node: &str, to: &str) -> Result<()> {
        let from = from.to_str().context("a path that is no text")?;
        self.call("lab-cp", &[from, &format!("{node}:{to}")], CALL_LIMIT).await.map(drop)
    }

    /// Writes a file in a node, for all to read.
    pub async fn write(&self, node: &str, to: &str, text: &str) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644))?;
        self.copy(file.path(), node, to).await
    }

    /// Switches a node's power: `on`, `off`, `cut`, `reboot`.
    pub async fn power(&self, node: &str, what: &str) -> Result<()> {
        self.call("lab-power", &[node, what], CALL_LIMIT).await.map(drop)
    }
}

fn of_environment((name, otherwise): (&str, &str)) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

impl Drop for Lab {
    fn drop(&mut self) {
        match self.command("lab-down", &["--fast"]).output() {
            Ok(output) if output.status.success() => {}
            other => eprintln!("the lab cannot be taken down: {other:?}"),
        }
    }
}
