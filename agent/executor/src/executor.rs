//! The executor as the agent starts it: opens everything, then runs one loop on a thread of its own.
//!
//! The loop (`service.rs`) has its own small runtime, because the journal's fsync blocks: the core's timers
//! must not feel it when both run in one process. Cores come and go; the executor goes on. Called by the
//! agent's binary.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fleet_types::facts::NodeFacts;
use fleet_types::seal::{PublicKey, SigningKey};
use tokio::sync::{mpsc, oneshot, watch};

use crate::copies::CopyHub;
use crate::damage::{self, REMEDY};
use crate::dispatcher::{Dispatcher, Parts};
use crate::documents::{DocumentStore, ReportStore};
use crate::durable::{self, Reserve};
use crate::guard::{Keeper, StartGuard};
use crate::host::Host;
use crate::identity::NodeIdentity;
use crate::journal::{Journal, JournalError, Opened};
use crate::package_hub::PackageHub;
use crate::policy::{OwnersPolicy, PolicyReader, TrustStore, TrustStoreError};
use crate::resolve::TaskTable;
use crate::run::{Abandoned, OutputHub, PathDesk, RunEvent, RunSurroundings};
use crate::service;
use crate::socket::Socket;
use crate::state::{self, SmallState, StateError};
use crate::tasks::CancelFlag;

/// Events of runs: five runs at most, each tells one thing a step. When it is full, progress is dropped and
/// ends wait.
const RUN_EVENTS: usize = 32;
/// Sockets of cores that wait to be served: a core is started when the one before it has gone.
const CORES: usize = 1;

/// Gathers the node's facts; may read the machine.
pub type FactsSource = Arc<dyn Fn() -> NodeFacts + Send + Sync>;

/// What an executor is started with. All values are validated already but the policy, which is checked.
pub struct ExecutorConfig {
    /// Journal, documents, reports, keys; made with mode 0700 where missing.
    pub state_dir: PathBuf,
    /// Root keys and trust bundle, as [`crate::policy::install`] left them at enrolment.
    pub trust_dir: PathBuf,
    /// Reads the `[policy]` table of the agent's configuration as it stands.
    pub policy: PolicyReader,
    /// The machine.
    pub host: Arc<dyn Host>,
    /// Facts, gathered at start, on every lost link and before a job is resolved.
    pub facts: FactsSource,
    /// The tasks; [`TaskTable::built`] outside of tests.
    pub tasks: TaskTable,
    /// Starts the guards of changes that can cut the node off.
    pub guards: Arc<dyn StartGuard>,
    /// Who this node is.
    pub node: NodeIdentity,
    /// Version shown to the controller.
    pub agent_version: String,
    /// Output kept of a step, head and tail together, in bytes (`runtime.step_output_limit`).
    pub step_output_limit: usize,
    /// How often each half says to the other that it is alive.
    pub beat: Duration,
    /// How long after its deadline a task may still answer before its thread is left behind.
    pub overrun_grace: Duration,
    /// Where a test ends it.
    #[cfg(any(test, feature = "crash-points"))]
    pub crash: crate::crash::Crash,
}

/// The executor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A directory or thread cannot be had.
    #[error("the executor cannot have {what}")]
    Io {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The policy is wrong.
    #[error("the local policy is refused: {0}")]
    Policy(String),
    /// The journal cannot be opened.
    #[error("the journal cannot be opened")]
    Journal(#[source] JournalError),
    /// The small state or the report key cannot be read.
    #[error("the executor's state cannot be opened")]
    State(#[source] StateError),
    /// The node is not enrolled, or its trust is damaged.
    #[error("the node's trust cannot be established")]
    Trust(#[source] TrustStoreError),
}

/// A started executor.
#[derive(Debug)]
pub struct ExecutorHandle {
    drain: Option<oneshot::Sender<()>>,
    cores: mpsc::Sender<Socket>,
    suspend: CancelFlag,
    ended: watch::Receiver<bool>,
    hung: watch::Receiver<u32>,
    thread: JoinHandle<()>,
    report_key: Option<PublicKey>,
}

/// What whoever started an executor must act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The loop has ended by itself: the journal is closed.
    Ended,
    /// The core said nothing any more and is not served: it must be ended by whoever started it.
    CoreHung,
}

/// How draining went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every run ended between steps; what is not over goes on at the next start.
    Quietly,
    /// A step was still running when the grace was over; its end is found out at the next start.
    GraceOver,
}

impl ExecutorHandle {
    /// The public half of the node's report key, unless that is missing.
    pub const fn report_key(&self) -> Option<PublicKey> {
        self.report_key
    }

    /// Has the loop ended?
    pub fn is_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Serves a new core at the other end of `socket`, once the one before it has left. False when one waits
    /// already, or when the executor has ended.
    pub fn connect(&self, socket: Socket) -> bool {
        self.cores.try_send(socket).is_ok()
    }

    /// Waits until the loop has ended by itself: the journal is closed.
    pub async fn ended(&mut self) {
        // An error means that the sender, and so the loop, is gone.
        let _ = self.ended.wait_for(|ended| *ended).await;
    }

    /// Waits until something has become of the executor or of its core. Safe to drop at its await.
    pub async fn news(&mut self) -> News {
        tokio::select! {
            // An error means that the sender, and so the loop, is gone.
            _ = self.ended.wait_for(|ended| *ended) => News::Ended,
            changed = self.hung.changed() => if changed.is_ok() { News::CoreHung } else { News::Ended },
        }
    }

    /// From now on no work is taken, and runs end between steps.
    pub fn stop_taking_work(&mut self) {
        self.suspend.cancel();
        if let Some(drain) = self.drain.take() {
            // Ended already: nothing to ask.
            let _ = drain.send(());
        }
    }

    /// Takes no more work, lets the step under way end within `grace`, and stops.
    pub async fn drain(mut self, grace: Duration) -> Drained {
        self.stop_taking_work();
        let quiet = tokio::time::timeout(grace, self.ended()).await.is_ok();
        if !quiet {
            return Drained::GraceOver;
        }
        // The loop has ended: the thread is about to.
        let _ = self.thread.join();
        Drained::Quietly
    }
}

/// The namespace of starting.
#[derive(Debug)]
pub struct Executor;

impl Executor {
    /// Opens journal, state and trust, takes up what was open, and serves the core at the other end of
    /// `socket`, and those that come after it, until drained. Without a core what was begun goes on.
    pub fn start(config: ExecutorConfig, socket: Socket) -> Result<ExecutorHandle, StartError> {
        let surroundings = open(config)?;
        let report_key = surroundings.report_key;
        let suspend = surroundings.runs.suspend.clone();
        let (drain, drained) = oneshot::channel();
        let (ended_sender, ended) = watch::channel(false);
        let (cores, next_cores) = mpsc::channel(CORES);
        let (hung_sender, hung) = watch::channel(0);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| StartError::Io { what: "a runtime", source })?;
        let thread = thread::Builder::new()
            .name("executor".to_owned())
            .spawn(move || {
                let journal = Arc::clone(&surroundings.runs.journal);
                let heard = service::Outside { cores: next_cores, drained, hung: hung_sender };
                runtime.block_on(service::serve(surroundings, socket, heard));
                // A run that is still there may write no more: the next executor may have begun.
                journal.close();
                // Tasks that are left behind must not hold the process.
                runtime.shutdown_background();
                let _ = ended_sender.send(true);
            })
            .map_err(|source| StartError::Io { what: "a thread", source })?;
        Ok(ExecutorHandle { drain: Some(drain), cores, suspend, ended, hung, thread, report_key })
    }
}

/// Everything opened, before the loop.
pub(crate) struct Open {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) runs: RunSurroundings,
    pub(crate) copies: Arc<CopyHub>,
    pub(crate) packages: Arc<PackageHub>,
    pub(crate) events: mpsc::Receiver<RunEvent>,
    pub(crate) beat: Duration,
    report_key: Option<PublicKey>,
}

fn open(config: ExecutorConfig) -> Result<Open, StartError> {
    let directory = config.state_dir;
    let no_directory = |source| StartError::Io { what: "its state directory", source };
    durable::make_private_directory(&directory).map_err(no_directory)?;
    let reserve = Reserve::keep(&directory);
    let policy = OwnersPolicy::open(config.policy).map_err(StartError::Policy)?;
    let now = config.host.clock().now();
    let has_history = damage::has_history(&directory);
    // Marked before anything is made anew in the place of what is missing.
    if let Some(missing) = damage::missing(&directory) {
        let failed = |source| StartError::Io { what: "its mark of damage", source };
        damage::mark(&directory, &missing).map_err(failed)?;
    }
    let opened = Journal::open(&directory, reserve.clone(), now).map_err(StartError::Journal)?;
    let Opened { journal, table, damage } = opened;
    #[cfg(any(test, feature = "crash-points"))]
    let journal = journal.crashing(config.crash);
    if let Some(damage) = &damage {
        tracing::error!("SAFE MODE, no changes are made: {damage}; {REMEDY}");
    }
    let mut state = SmallState::open(&directory).map_err(StartError::State)?;
    let report_key = if has_history {
        state::read_report_key(&directory).map_err(StartError::State)?
    } else {
        Some(state::report_key(&directory).map_err(StartError::State)?)
    };
    let trust =
        TrustStore::open(&config.trust_dir, config.node.fleet, &mut state).map_err(StartError::Trust)?;
    let documents = DocumentStore::open(directory.join("documents")).map_err(no_directory)?;
    let reports = ReportStore::open(directory.join("reports"), reserve).map_err(no_directory)?;
    let (sender, events) = mpsc::channel(RUN_EVENTS);
    let journal = Arc::new(journal);
    let output = OutputHub::new(config.step_output_limit);
    let copies = CopyHub::open(&directory, Arc::clone(&config.host));
    let packages = PackageHub::new(Arc::clone(&config.host), Arc::clone(&config.facts), config.node.clone());
    let (abandoned, suspend) = (Abandoned::default(), CancelFlag::default());
    let (guard, paths) = (Keeper::new(&directory, config.guards), PathDesk::default());
    let public = report_key.as_ref().map(SigningKey::public);
    let runs = RunSurroundings {
        host: Arc::clone(&config.host),
        journal: Arc::clone(&journal),
        node: config.node.clone(),
        output: Arc::clone(&output),
        events: sender,
        abandoned: abandoned.clone(),
        overrun_grace: config.overrun_grace,
        suspend: suspend.clone(),
        policy: policy.clone(),
        guard: guard.clone(),
        paths: paths.clone(),
    };
    let dispatcher = Dispatcher::new(Parts {
        state_dir: directory,
        node: config.node,
        agent_version: config.agent_version,
        policy,
        host: config.host,
        facts: config.facts,
        tasks: config.tasks,
        journal,
        table,
        damage,
        state,
        report_key,
        trust,
        documents,
        reports,
        output,
        copies: Arc::clone(&copies),
        packages: Arc::clone(&packages),
        abandoned,
        overrun_grace: config.overrun_grace,
        suspend,
        guard,
        paths,
    });
    Ok(Open { dispatcher, runs, copies, packages, events, beat: config.beat, report_key: public })
}
