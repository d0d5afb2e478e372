//! A program that a story starts, kills and starts again. Signals go to the own child only, by its pid; its output is
//! added to a log whose end is shown when a story fails. Dropping it kills.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleetctl::dev::launch;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::time::timeout;

/// Controllers drain for at most ten seconds, agents for three.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Shown of a log when a story fails.
const TAIL_BYTES: u64 = 6000;

/// See the module.
#[derive(Debug)]
pub struct OwnProcess {
    what: String,
    log_to: PathBuf,
    child: Option<Child>,
}

impl OwnProcess {
    /// Nothing runs yet; `what` names it in errors.
    pub fn new(what: &str, log_to: &Path) -> Self {
        Self { what: what.to_owned(), log_to: log_to.to_owned(), child: None }
    }

    /// Another file for what it logs.
    pub fn log_to(&mut self, log: &Path) {
        log.clone_into(&mut self.log_to);
    }

    /// Starts it.
    pub fn start(&mut self, mut command: Command) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.what);
        launch::into_log(&mut command, &self.log_to)?;
        let child = tokio::process::Command::from(command).kill_on_drop(true).spawn();
        self.child = Some(child.with_context(|| format!("{} did not start", self.what))?);
        Ok(())
    }

    fn child(&self) -> Result<&Child> {
        self.child.as_ref().with_context(|| format!("{} does not run", self.what))
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        self.child()?.id().with_context(|| format!("{} has ended", self.what))
    }

    /// Was it started, and has nobody seen it end?
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Is the process there?
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// How it ended, if it has; then nothing runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// A signal at once, without waiting: what runs beside this call finds the process gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // None: it ended and was waited for; its number may be somebody else's now.
        if let Some(pid) = self.child()?.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// SIGKILL, and waits until the process is gone.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait_end(STOP_LIMIT).await?;
        Ok(())
    }

    /// SIGTERM; it must end by itself with success.
    pub async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.wait_end(STOP_LIMIT).await?;
        ensure!(status.success(), "{} stopped with {status}\n{}", self.what, self.log_tail());
        Ok(())
    }

    /// Waits until it ends by itself.
    pub async fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.what))?;
        let ended = timeout(limit, child.wait()).await;
        Ok(ended.with_context(|| format!("{} does not end\n{}", self.what, self.log_tail()))??)
    }

    /// Everything that it logged.
    pub fn log(&self) -> String {
        launch::end_of(&self.log_to, u64::MAX)
    }

    /// The end of its log, for a failed story.
    pub fn log_tail(&self) -> String {
        format!("--- the log of {} ends with:\n{}", self.what, launch::end_of(&self.log_to, TAIL_BYTES))
    }
}
