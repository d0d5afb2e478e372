//! The executor in this process, as root and without a network; the core in a process and under an account of
//! its own (security-and-delivery §1.16).
//!
//! A core that dies is started again after a pause that grows, and costs nothing: what was begun goes on. One
//! that cannot use its configuration or its identity is not helped by another start, so the agent ends with
//! its exit code, as it does where one process holds both halves.

use std::process::ExitStatus;
use std::time::Duration;

use fleet_executor::{ExecutorHandle, News};
use fleet_types::id::NodeId;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, info, warn};

use super::super::core_process::CoreProcess;
use super::super::signals::Signals;
use super::begin::{Halves, core_failure};
use crate::account::Account;
use crate::args::Configured;
use crate::clock;
use crate::config::Config;
use crate::core::backoff::{Backoff, Ending};
use crate::core::link::LinkError;
use crate::core::start;
use crate::error::{Exit, Failure};

/// Beyond its grace period and its time to flush a core that was told to stop is ended.
const LEAVE_MARGIN: Duration = Duration::from_secs(5);

/// The core as it is now.
enum Core {
    Runs { process: CoreProcess, since: Instant },
    Pauses { until: Instant },
}

/// How the executor's life ended.
enum Woken {
    Signal,
    ExecutorEnded,
    CoreEnded(ExitStatus),
    CoreHung,
    PauseOver,
}

struct Pair<'a> {
    account: &'a Account,
    configured: &'a Configured,
    config: &'a Config,
    node: NodeId,
    executor: ExecutorHandle,
    core: Core,
    backoff: Backoff,
}

/// Runs until a signal, or until the executor fails or no core can do its work.
pub async fn run(halves: &Halves, account: &Account, configured: &Configured) -> Result<(), Failure> {
    let config = &halves.config;
    // Before the executor takes up what was open: a wrong setting must not begin any work.
    start::check(config).map_err(|error| core_failure(&error))?;
    account
        .way_through(&config.state_directory, &config.identity_directory)
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    let mut signals = Signals::hear()?;
    let node = halves.record.node;
    let (process, socket) = CoreProcess::start(account, configured, Some(node))?;
    let executor = halves.start_executor(socket)?;
    info!(%node, name = %halves.record.name, version = env!("CARGO_PKG_VERSION"),
        core_user = account.name, "agent runs");
    let core = Core::Runs { process, since: Instant::now() };
    Pair { account, configured, config, node, executor, core, backoff: backoff(config) }
        .run(&mut signals)
        .await
}

/// The pauses of the link serve here too.
const fn backoff(config: &Config) -> Backoff {
    let timers = &config.timers;
    Backoff::new(timers.backoff_min, timers.backoff_max, timers.stable_link)
}

impl Pair<'_> {
    async fn run(mut self, signals: &mut Signals) -> Result<(), Failure> {
        loop {
            match self.next(signals).await? {
                Woken::Signal => return self.stop(signals).await,
                Woken::ExecutorEnded => {
                    self.end_core().await;
                    return Err(core_failure(&LinkError::ExecutorGone.into()));
                }
                Woken::CoreEnded(status) => {
                    if let Some(exit) = for_good(status) {
                        self.executor.drain(self.config.timers.drain).await;
                        return Err(Failure::new(
                            exit,
                            "the core cannot do its work: its last line says why",
                        ));
                    }
                    self.pause(status);
                }
                Woken::CoreHung => {
                    // Its end is the next thing that is heard.
                    if let Core::Runs { process, .. } = &mut self.core {
                        process.kill().await;
                    }
                }
                Woken::PauseOver => self.start_core(),
            }
        }
    }

    async fn next(&mut self, signals: &mut Signals) -> Result<Woken, Failure> {
        let core = async {
            match &mut self.core {
                Core::Runs { process, .. } => process.ended().await.map(Woken::CoreEnded),
                Core::Pauses { until } => {
                    sleep_until(*until).await;
                    Ok(Woken::PauseOver)
                }
            }
        };
        tokio::select! {
            () = signals.next() => Ok(Woken::Signal),
            news = self.executor.news() => Ok(match news {
                News::Ended => Woken::ExecutorEnded,
                News::CoreHung => Woken::CoreHung,
            }),
            woken = core => woken,
        }
    }

    fn pause(&mut self, status: ExitStatus) {
        if let Core::Runs { since, .. } = &self.core
            && since.elapsed() >= self.config.timers.stable_link
        {
            self.backoff = backoff(self.config);
        }
        let pause = self.backoff.after(Ending::NeverUp);
        let length = pause.fixed + clock::uniform(pause.jitter);
        error!(%status, pause_ms = length.as_millis(), "the core has ended: it is started again; open work goes on");
        self.core = Core::Pauses { until: Instant::now() + length };
    }

    fn start_core(&mut self) {
        match CoreProcess::start(self.account, self.configured, Some(self.node)) {
            Ok((process, socket)) => {
                if !self.executor.connect(socket) {
                    // It ends: the loop is about to hear of it.
                    warn!("the executor takes no core any more");
                }
                self.core = Core::Runs { process, since: Instant::now() };
            }
            Err(failure) => {
                let pause = self.backoff.after(Ending::NeverUp);
                error!("{failure}");
                self.core =
                    Core::Pauses { until: Instant::now() + pause.fixed + clock::uniform(pause.jitter) };
            }
        }
    }

    /// No new work; the step under way may end; the core flushes.
    async fn stop(self, signals: &mut Signals) -> Result<(), Failure> {
        info!("stopping: no new work, the step under way may end");
        let (drain, flush) = (self.config.timers.drain, self.config.timers.flush());
        let leaving = async {
            let Core::Runs { mut process, .. } = self.core else { return };
            process.terminate();
            if timeout(drain + flush + LEAVE_MARGIN, process.ended()).await.is_err() {
                warn!("the core did not leave in time");
                process.kill().await;
            }
        };
        let draining = async { tokio::join!(leaving, self.executor.drain(drain)) };
        tokio::select! {
            () = signals.next() => Err(Failure::new(
                Exit::Failed,
                "ended by a second signal; open work goes on at the next start",
            )),
            ((), drained) = draining => {
                info!(?drained, "stopped");
                Ok(())
            }
        }
    }

    async fn end_core(self) {
        if let Core::Runs { mut process, .. } = self.core {
            process.kill().await;
        }
    }
}

/// The exit of a core that another start does not help.
fn for_good(status: ExitStatus) -> Option<Exit> {
    let exit = Exit::of_code(u32::try_from(status.code()?).ok()?);
    matches!(exit, Exit::Usage | Exit::Identity).then_some(exit)
}
