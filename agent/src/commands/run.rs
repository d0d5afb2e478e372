//! `fleet-agent run`: core and executor in one process, joined by the socket pair only.
//!
//! Stopping is a feature: on SIGTERM or Ctrl-C no new work is taken, the step under way ends within the grace
//! period, reports are flushed, and the exit code is 0. A second signal ends the process at once. SIGKILL at
//! any time is fine: the journal knows.

use std::sync::Arc;
use std::time::Duration;

use fleet_executor::crash::{Crash, CrashPoint};
use fleet_executor::host::Host;
use fleet_executor::resolve::TaskTable;
use fleet_executor::socket::{self, Socket};
use fleet_executor::{Executor, ExecutorConfig, ExecutorHandle, NodeIdentity, StartError, facts};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::settings;
use crate::args;
use crate::config::Config;
use crate::core::identity::OwnIdentity;
use crate::core::link::LinkError;
use crate::core::start::{self, CoreError};
use crate::error::{Exit, Failure};
use crate::telemetry;

/// After its deadline a task has this long to answer before its thread is left behind: the supervisor's five
/// seconds between SIGTERM and SIGKILL, and time to read what the program left.
const OVERRUN_GRACE: Duration = Duration::from_secs(30);

/// Runs until SIGTERM or Ctrl-C.
pub fn run(args: &args::Run) -> Result<(), Failure> {
    let config = settings::load(&args.configured)?;
    let crash = match &args.crash_at {
        None => Crash::Never,
        Some(point) => {
            Crash::Abort(point.parse::<CrashPoint>().map_err(|error| Failure::of(Exit::Usage, &error))?)
        }
    };
    telemetry::init(&config);
    let identity =
        OwnIdentity::load(&config.identity_directory).map_err(|error| Failure::of(Exit::Identity, &error))?;
    let (core, executor) = socket::pair().map_err(|error| Failure::of(Exit::Failed, &error))?;
    // One thread is enough: the core waits most of the time, and the executor has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    let ended = runtime.block_on(async {
        // Before the executor takes up what was open: a wrong setting must not begin any work.
        let prepared = start::Core::new(&config, &identity).map_err(|error| core_failure(&error))?;
        let (terminate, interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
        let handle = start_executor(&config, &identity, crash, executor)?;
        info!(node = %identity.record.node, name = %identity.record.name, version = env!("CARGO_PKG_VERSION"), "agent runs");
        serve(&config, prepared, core, handle, (terminate, interrupt)).await
    });
    // A task that outlived its grace must not hold the process.
    runtime.shutdown_background();
    ended
}

fn on(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::of(Exit::Failed, &error))
}

async fn serve(
    config: &Config,
    core: start::Core,
    socket: Socket,
    mut executor: ExecutorHandle,
    (mut terminate, mut interrupt): (Signal, Signal),
) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(core.run(socket, stop.clone()));
    let mut signalled = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        () = signalled() => {}
        ended = &mut running => {
            // Nobody is left who could take its messages; it ends its step and stops.
            executor.drain(config.timers.drain).await;
            return ended.map_err(|error| core_failure(&error));
        }
        () = executor.ended() => {
            return Err(core_failure(&LinkError::ExecutorGone.into()));
        }
    }
    info!("stopping: no new work, the step under way may end");
    stop.cancel();
    let draining = async { tokio::join!(running, executor.drain(config.timers.drain)) };
    tokio::select! {
        () = signalled() => Err(Failure::new(Exit::Failed, "ended by a second signal; open work goes on at the next start")),
        (core, drained) = draining => {
            info!(?drained, "stopped");
            core.map_err(|error| core_failure(&error))
        }
    }
}

fn start_executor(
    config: &Config,
    identity: &OwnIdentity,
    crash: Crash,
    socket: Socket,
) -> Result<ExecutorHandle, Failure> {
    let host: Arc<dyn Host> = Arc::new(settings::host(config)?);
    let seen = Arc::clone(&host);
    let version = env!("CARGO_PKG_VERSION");
    let record = identity.record.clone();
    let executor = ExecutorConfig {
        state_dir: config.state_directory.clone(),
        trust_dir: settings::trust_directory(config),
        policy: config.policy.clone(),
        host,
        facts: Arc::new(move || facts::gather(&*seen, version, &[])),
        tasks: TaskTable::built(),
        node: NodeIdentity {
            node: record.node,
            name: record.name,
            fleet: record.fleet,
            labels: record.labels,
        },
        agent_version: version.to_owned(),
        // At most 64 MiB, as the configuration allows.
        step_output_limit: usize::try_from(config.step_output_limit_bytes).unwrap_or(usize::MAX),
        overrun_grace: OVERRUN_GRACE,
        crash,
    };
    Executor::start(executor, socket).map_err(|error| {
        let exit = match &error {
            StartError::Journal(_) | StartError::State(_) => Exit::Store,
            StartError::Trust(_) => Exit::Identity,
            StartError::Policy(_) => Exit::Usage,
            StartError::Io { .. } => Exit::Failed,
        };
        Failure::of(exit, &error)
    })
}

fn core_failure(error: &CoreError) -> Failure {
    let exit = match error {
        CoreError::Missing(_) => Exit::Usage,
        CoreError::Identity(_) => Exit::Identity,
        // By itself it stops only when its journal cannot be written any more.
        CoreError::Link(LinkError::ExecutorGone) => Exit::Store,
        CoreError::Socket(_) | CoreError::Link(_) => Exit::Failed,
    };
    Failure::of(exit, error)
}
