//! The core's process as the root half sees it: started under its account, ended in order.
//!
//! It gets its end of the socket pair as its standard input, the configuration's own variables and nothing else
//! of the environment, and is told to stop by SIGTERM. It ends by itself when the other end closes, so a
//! root half that is killed leaves nothing behind.

use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};

use fleet_executor::host::THIS_PROGRAM;
use fleet_executor::socket::{self, Socket};
use fleet_types::id::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::account::Account;
use crate::args::Configured;
use crate::error::{Exit, Failure};

/// A started core.
#[derive(Debug)]
pub struct CoreProcess {
    child: Child,
}

impl CoreProcess {
    /// Starts a core that keeps the link for `node`, or that redeems a join token, and gives the executor's end
    /// of its socket.
    pub fn start(
        account: &Account,
        configured: &Configured,
        node: Option<NodeId>,
    ) -> Result<(Self, Socket), Failure> {
        let failed =
            |error: &std::io::Error| Failure::new(Exit::Failed, format!("cannot start the core: {error}"));
        let (theirs, ours) = socket::pair().map_err(|e| failed(&e))?;
        let mut command = Command::new(THIS_PROGRAM);
        command.arg0("fleet-agent").arg("core").arg("--config").arg(&configured.config);
        for set in &configured.set {
            command.arg("--set").arg(set);
        }
        if let Some(node) = node {
            command.arg("--node").arg(node.to_string());
        }
        // A variable of the configuration has a double underscore; the join token's has none.
        let settings = std::env::vars_os().filter(|(name, _)| {
            name.to_str().is_some_and(|name| name.starts_with("FLEET_") && name.contains("__"))
        });
        command
            .env_clear()
            .envs(settings)
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // Giving up root's user id drops its supplementary groups and capabilities too.
            .uid(account.uid)
            .gid(account.gid)
            // Ctrl-C is for the root half, which tells the core when it is its turn.
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(|e| {
            let user = &account.name;
            Failure::new(Exit::Failed, format!("cannot start the core as \"{user}\": {e}"))
        })?;
        Ok((Self { child }, ours))
    }

    /// Waits for its end. Safe to drop at its await.
    pub async fn ended(&mut self) -> Result<ExitStatus, Failure> {
        self.child.wait().await.map_err(|error| Failure::of(Exit::Failed, &error))
    }

    /// Asks it to flush and leave.
    pub fn terminate(&self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It has not been waited for, so the number is its own; that it may have ended is no error.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Ends it at once.
    pub async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }
}
