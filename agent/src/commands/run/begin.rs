//! The command: settings, identity and executor; then one way of running or the other.

use std::sync::Arc;
use std::time::Duration;

use fleet_executor::guard::GuardProgram;
use fleet_executor::host::Host;
use fleet_executor::policy::PolicyReader;
use fleet_executor::replacement;
use fleet_executor::resolve::TaskTable;
use fleet_executor::socket::Socket;
use fleet_executor::{Executor, ExecutorConfig, ExecutorHandle, NodeIdentity, StartError, facts};

use super::super::settings;
use super::{one_process, two_processes};
use crate::account::Account;
use crate::args;
use crate::config::Config;
use crate::core::link::LinkError;
use crate::core::start::CoreError;
use crate::error::{Exit, Failure};
use crate::node::NodeRecord;
use crate::telemetry;

/// After its deadline a task has this long to answer before its thread is left behind: the supervisor's half
/// minute between SIGTERM and SIGKILL, the time after which it is trusted no longer, and time to read what the
/// program left.
const OVERRUN_GRACE: Duration = Duration::from_mins(1);

/// Runs until SIGTERM or Ctrl-C.
pub fn run(args: &args::Run) -> Result<(), Failure> {
    let config = settings::load(&args.configured)?;
    let policy = settings::policy_reader(&args.configured);
    policy().map_err(|fault| Failure::new(Exit::Usage, fault))?;
    telemetry::init(&config);
    let account = Account::of_core(&config).map_err(|error| Failure::of(Exit::Usage, &error))?;
    if replacement::is_interrupted(&config.state_directory) {
        let message =
            "an enrolment with --replace was interrupted: give the same command again, with its token";
        return Err(Failure::new(Exit::Identity, message));
    }
    let record =
        NodeRecord::load(&config.state_directory).map_err(|error| Failure::of(Exit::Identity, &error))?;
    // One thread is enough: the core waits most of the time, and the executor has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    let halves = Halves {
        guards: settings::guards(&args.configured, &config),
        config,
        record,
        policy,
        #[cfg(feature = "crash-points")]
        crash: args.crash_at.map(fleet_executor::crash::Crash::Abort).unwrap_or_default(),
    };
    let ended = match account {
        None => runtime.block_on(one_process::run(&halves)),
        Some(account) => runtime.block_on(two_processes::run(&halves, &account, &args.configured)),
    };
    // A task that outlived its grace must not hold the process.
    runtime.shutdown_background();
    ended
}

/// What the executor is started from.
pub struct Halves {
    /// The configuration.
    pub config: Config,
    /// The executor's record of its node.
    pub record: NodeRecord,
    /// Reads the node owner's policy.
    pub policy: PolicyReader,
    /// How guards are started.
    pub guards: GuardProgram,
    /// Where a test ends the executor.
    #[cfg(feature = "crash-points")]
    pub crash: fleet_executor::crash::Crash,
}

impl Halves {
    /// Starts the executor with its end of the socket.
    pub fn start_executor(&self, socket: Socket) -> Result<ExecutorHandle, Failure> {
        let config = &self.config;
        let host: Arc<dyn Host> = Arc::new(settings::host(config)?);
        let tasks = TaskTable::built().on(&*host);
        let seen = Arc::clone(&host);
        let version = env!("CARGO_PKG_VERSION");
        let record = self.record.clone();
        let executor = ExecutorConfig {
            state_dir: config.state_directory.clone(),
            trust_dir: settings::trust_directory(config),
            policy: Arc::clone(&self.policy),
            host,
            facts: Arc::new(move || facts::gather(&*seen, version)),
            tasks,
            guards: Arc::new(self.guards.clone()),
            node: NodeIdentity {
                node: record.node,
                name: record.name,
                fleet: record.fleet,
                labels: record.labels,
            },
            agent_version: version.to_owned(),
            // At most 64 MiB, as the configuration allows.
            step_output_limit: usize::try_from(config.step_output_limit_bytes).unwrap_or(usize::MAX),
            beat: config.timers.halves,
            overrun_grace: OVERRUN_GRACE,
            #[cfg(feature = "crash-points")]
            crash: self.crash,
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
}

/// How a core that failed ends its process.
pub fn core_failure(error: &CoreError) -> Failure {
    let exit = match error {
        CoreError::Missing(_) => Exit::Usage,
        CoreError::Identity(_) => Exit::Identity,
        // By itself it stops only when its journal cannot be written any more.
        CoreError::Link(LinkError::ExecutorGone) => Exit::Store,
        CoreError::Socket(_) | CoreError::Link(_) => Exit::Failed,
    };
    Failure::of(exit, error)
}
