//! Wiring in the order of starting, and the drain in reverse.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use fleet_certs::revoke::{Denied, DenyList};
use fleet_store::{KvStore, StoreError};
use fleet_types::trust::SignedBundle;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::Config;
use crate::context::{Context, Files, Identities, Memory, Operators, Storage, Trust};
use crate::data_directory::{self, DirectoryError};
use crate::edge::listener;
use crate::edge::refusals::Refusals;
use crate::edge::server::Servers;
use crate::error::ControllerError;
use crate::fleet::wave_signer::WaveSigner;
use crate::keyring::{self, Keyring};
use crate::repo::advisory_files::AdvisoryFiles;
use crate::repo::audited::AuditedCommits;
use crate::repo::copy_files::CopyFiles;
use crate::repo::fleet::{self, FleetRecord};
use crate::repo::output_files::OutputFiles;
use crate::repo::reader::Repo;
use crate::runner::run_loop;
use crate::scheduler;
use crate::server_tls::{ServerCertificate, ServerTlsError};
use crate::service::audit::Tree;
use crate::service::{findings, holds, inventory, packages, places, presence, revocation, upgrades, upkeep};

/// Why the controller ended, with its exit code.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store failed for good; the supervisor starts the controller anew (exit 75).
    #[error("store failed")]
    Store(#[source] StoreError),
    /// No fleet in this store.
    #[error("there is no fleet in {0}")]
    NoFleet(String),
    /// Keys or certificates.
    #[error("keys cannot be used")]
    Keyring(#[from] keyring::KeyringError),
    /// The data directory is open to others, or holds keys of others.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The own certificate.
    #[error(transparent)]
    Tls(#[from] ServerTlsError),
    /// A port is taken or may not be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A record cannot be read.
    #[error("records cannot be read")]
    Records(#[from] ControllerError),
    /// The root keys of the record do not open the stored bundle.
    #[error("stored trust bundle is refused")]
    Trust(#[from] fleet_types::trust::TrustError),
    /// A server ended by itself.
    #[error("server failed")]
    Server(#[from] crate::edge::server::ServeError),
    /// The ready file cannot be written.
    #[error("ready file cannot be written")]
    Ready(#[from] fleet_certs::files::FileError),
}

/// What to do about a store that fails.
pub const FIX_STORE: &str = "look whether its disk is full or damaged and whether another controller runs on it; then start the controller again";

impl AppError {
    /// What to do.
    pub const fn fix(&self) -> &'static str {
        match self {
            Self::Store(_) => FIX_STORE,
            Self::NoFleet(_) => {
                "set data_directory to where the fleet is, or make one: fleet-controller init --data DIRECTORY --name FLEET --operator NAME --root-key FILE"
            }
            Self::Keyring(_) | Self::Tls(_) => {
                "put the files below pki back from a backup, each with mode 0600"
            }
            Self::Directory(DirectoryError::ForeignKey { .. }) => {
                "treat the key as known to others: shut its person out (fleetctl operator revoke) and invite them anew"
            }
            Self::Directory(_) => "the data directory is for the controller's account alone, with mode 0700",
            Self::Listen { .. } => "stop the program that listens there, or set another address in [server]",
            Self::Records(_) | Self::Trust(_) => {
                "the store is damaged or of a newer version: put it back from a backup, or start that version"
            }
            Self::Server(_) => "start the controller again; its log says what went before",
            Self::Ready(_) => "name a place that this user may write to, with --ready-file",
        }
    }
}

impl From<StoreError> for AppError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Where the controller serves; written to the ready file as JSON.
#[derive(Debug, Clone, Serialize)]
pub struct Ready {
    /// Agents and operators.
    pub agent: SocketAddr,
    /// Enrolment.
    pub enrol: SocketAddr,
}

/// Opens the store; after an unclean stop this program looks at it in a process of its own first.
pub async fn open_store(config: &Config) -> Result<Arc<dyn KvStore>, StoreError> {
    let probe = std::env::current_exe().ok().map(|program| {
        let mut command = Command::new(program);
        command.arg("store-probe").arg(config.data_directory.join("store"));
        command
    });
    fleet_store::open(&config.store_url, probe).await
}

/// Everything that services need, read from the store and the keys; nobody is served yet.
pub async fn open_context(
    config: &Config,
    store: Arc<dyn KvStore>,
    clock: Clock,
) -> Result<Context, AppError> {
    let repo = Repo::new(store);
    let fleet = repo
        .get::<FleetRecord>(&fleet::key()?)
        .await?
        .ok_or_else(|| AppError::NoFleet(config.data_directory.display().to_string()))?
        .record;
    let keyring = Keyring::load(&config.data_directory.join("pki"))?;
    let bytes = repo.object(&fleet::trust_bundle()?).await?.unwrap_or_default();
    let signed: SignedBundle = serde_json::from_slice(&bytes).map_err(ControllerError::internal)?;
    let bundle = signed.open(&fleet.roots, fleet.fleet, 1)?;
    keyring.check(&bundle)?;
    let now = clock.now();
    let statement = keyring.dispatch_statement(fleet.fleet, fleet.controller, now)?;
    let dispatch_key = keyring::load_signing_key(&config.data_directory.join("pki/dispatch.key"))?;
    let audited =
        AuditedCommits::new(repo.clone(), clock.clone(), fleet.fleet, fleet.controller, fleet.generation)?;
    let floor = config.settings.output_floor_bytes;
    let context = Context {
        storage: Storage { repo, audited, clock },
        memory: Memory::default(),
        identities: Identities {
            wave_signer: WaveSigner::new(fleet.fleet, dispatch_key, statement),
            fleet,
            keyring,
            denied: DenyList::new(Denied::default()),
            trust: Trust::new(bundle, signed),
            operators: Operators::default(),
        },
        files: Files {
            advisories: AdvisoryFiles::new(config.data_directory.join("advisories"), floor),
            output: OutputFiles::new(config.data_directory.join("output"), floor),
            copies: CopyFiles::new(config.copies_directory.clone(), floor, config.copies_quota_bytes),
        },
        settings: config.settings.clone(),
    };
    inventory::fill(&context).await?;
    upgrades::run(&context.storage).await?;
    places::take(&context.storage, &context.settings).await?;
    packages::fill(&context).await?;
    Ok(context)
}

fn bind(address: SocketAddr) -> Result<TcpListener, AppError> {
    listener::listen(address).map_err(|source| AppError::Listen { address, source })
}

/// Serves until `stop`; then drains: no new connections, goodbyes, running commits end, the store closes.
pub async fn run(config: Config, ready_file: Option<&Path>, stop: CancellationToken) -> Result<(), AppError> {
    data_directory::check_private(&config.data_directory)?;
    let store = open_store(&config).await?;
    let outcome = Box::pin(serve(&config, Arc::clone(&store), ready_file, stop)).await;
    // A store that failed answers no more; what else went wrong is no reason to leave it as after a crash.
    if !matches!(outcome, Err(AppError::Store(_))) {
        store.close().await?;
    }
    if outcome.is_ok() {
        tracing::info!("stopped");
    }
    outcome
}

async fn serve(
    config: &Config,
    store: Arc<dyn KvStore>,
    ready_file: Option<&Path>,
    stop: CancellationToken,
) -> Result<(), AppError> {
    let context = Arc::new(open_context(config, Arc::clone(&store), Clock::system()).await?);
    data_directory::refuse_foreign_keys(
        &config.data_directory,
        &context.identities.trust.get().0,
        &context.identities.fleet.roots,
    )?;
    holds::take_up_again(&context).await?;
    revocation::take_up_again(&context).await?;
    let (certificate, main_tls, enrolment_tls) =
        ServerCertificate::publish(Arc::clone(&context), config.server_names.clone())?;
    let agent_socket = bind(config.agent_listen)?;
    let enrol_socket = bind(config.enrol_listen)?;
    let ready = Ready {
        agent: agent_socket
            .local_addr()
            .map_err(|source| AppError::Listen { address: config.agent_listen, source })?,
        enrol: enrol_socket
            .local_addr()
            .map_err(|source| AppError::Listen { address: config.enrol_listen, source })?,
    };

    let refusals = Arc::new(Refusals::default());
    let (tracker, background) = (TaskTracker::new(), TaskTracker::new());
    let runner_stop = CancellationToken::new();
    background.spawn(run_loop::run(Arc::clone(&context), runner_stop.clone()));
    let tree = Arc::new(Tree::default());
    background.spawn(scheduler::run_loop::run(Arc::clone(&context), runner_stop.clone()));
    background.spawn(upkeep::run(Arc::clone(&context), Arc::clone(&tree), runner_stop.clone()));
    background.spawn(certificate.keep(runner_stop.clone()));
    background.spawn(findings::run(Arc::clone(&context), runner_stop.clone()));
    background.spawn(presence::keep(Arc::clone(&context), runner_stop.clone()));
    background.spawn(Arc::clone(&refusals).write(Arc::clone(&context), runner_stop.clone()));

    let servers = Servers {
        context: Arc::clone(&context),
        refusals,
        tree,
        tracker: tracker.clone(),
        stop: stop.clone(),
    };
    let main = servers.main(agent_socket, main_tls);
    let enrolment = servers.enrolment(enrol_socket, enrolment_tls);
    if let Some(path) = ready_file {
        let text = serde_json::to_vec(&ready).map_err(ControllerError::internal)?;
        fleet_certs::files::write_atomic(path, &text, 0o644)?;
    }
    tracing::info!(agent = %ready.agent, enrol = %ready.enrol, fleet = %context.identities.fleet.name, "serving");

    let failed = store.failed();
    let serving = async { tokio::try_join!(main, enrolment).map(|_| ()).map_err(AppError::Server) };
    tokio::pin!(serving);
    let ended = tokio::select! {
        outcome = &mut serving => Some(outcome),
        error = failed => Some(Err(AppError::Store(error))),
        () = stop.cancelled() => None,
    };
    stop.cancel();
    tracker.close();
    // One limit for sessions, streams and calls together: whoever takes and says nothing holds up nobody's restart.
    let mut outcome = Ok(());
    let drained = tokio::time::timeout(config.settings.drain, async {
        outcome = match ended {
            Some(outcome) => outcome,
            None => serving.await,
        };
        tracker.wait().await;
    })
    .await;
    if drained.is_err() {
        tracing::warn!("some sessions or calls did not end in time; nodes reconnect and go on");
    }
    runner_stop.cancel();
    background.close();
    let _ = tokio::time::timeout(config.settings.drain, background.wait()).await;
    outcome
}
