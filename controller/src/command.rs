//! The program's command line: `run`, `init`, `config`, and the probe that `run` starts of itself.
//!
//! Exit codes: 0 done, 2 usage or configuration, 1 anything else, 75 the store failed and a restart may help.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fleet_types::id::Name;
use tokio_util::sync::CancellationToken;

use crate::app::{self, AppError, FIX_STORE};
use crate::clock::Clock;
use crate::config::{Config, LogFormat};
use crate::data_directory;
use crate::init::{self, InitRequest};

/// The store failed for good; the supervisor starts the controller anew (sysexits.h `EX_TEMPFAIL`).
const EXIT_STORE: u8 = 75;
const EXIT_USAGE: u8 = 2;
const FIX_CONFIG: &str = "correct the file, and look at it again with: fleet-controller check-config FILE";

/// Central controller of a fleet of firewalls
#[derive(Debug, Parser)]
#[command(name = "fleet-controller", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve agents and operators until SIGTERM or SIGINT
    Run {
        /// Configuration file
        #[arg(long, env = "FLEET_CONTROLLER_CONFIG", default_value = "/etc/fleet/controller.toml")]
        config: PathBuf,
        /// Written when the controller serves: JSON with the addresses it listens on
        #[arg(long)]
        ready_file: Option<PathBuf>,
    },
    /// Make a fleet: authorities, keys, trust bundle, and an invite for its first operator
    Init {
        /// Directory of the controller's data; its `store` and `pki` are made here
        #[arg(long)]
        data: PathBuf,
        /// Name of the fleet
        #[arg(long)]
        name: Name,
        /// Name of the first operator
        #[arg(long)]
        operator: Name,
        /// Where to write the root key; take it off this machine afterwards
        #[arg(long)]
        root_key: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check a configuration file
    CheckConfig {
        /// Configuration file
        config: PathBuf,
    },
    /// Look at a store in a process of its own (started by `run` after an unclean stop)
    #[command(hide = true)]
    StoreProbe {
        /// The store's directory
        path: PathBuf,
    },
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str("\n  cause: ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn fail(code: &str, error: &dyn std::error::Error, fix: &str, exit: u8) -> ExitCode {
    // The exit code tells, too, where nobody reads or the log has no room.
    let _ = writeln!(std::io::stderr(), "error[{code}]: {}\n  fix: {fix}", chain(error));
    ExitCode::from(exit)
}

fn start_log(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log_level).unwrap_or_default();
    // A line that cannot be written is lost; told on the same stream, it would end whoever wrote it.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    match config.log_format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Runs the program.
pub fn main(args: Args) -> ExitCode {
    match args.command {
        Command::StoreProbe { path } => fleet_store::sled_store::run_probe(&path),
        Command::CheckConfig { config } => match Config::load(&config) {
            Ok(_) => {
                println!("{} is valid", config.display());
                ExitCode::SUCCESS
            }
            Err(error) => fail("config-invalid", &error, FIX_CONFIG, EXIT_USAGE),
        },
        Command::Run { config, ready_file } => match Config::load(&config) {
            Err(error) => fail("config-invalid", &error, FIX_CONFIG, EXIT_USAGE),
            Ok(config) => {
                start_log(&config);
                block_on(serve(config, ready_file))
            }
        },
        Command::Init { data, name, operator, root_key, json } => {
            block_on(make(InitRequest { name, operator, data_directory: data, root_key }, json))
        }
    }
}

fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => fail("runtime", &error, "raise the limits of threads and open files of this user", 1),
    }
}

async fn serve(config: Config, ready_file: Option<PathBuf>) -> ExitCode {
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    match Box::pin(app::run(config, ready_file.as_deref(), stop)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ AppError::Store(_)) => fail("store", &error, error.fix(), EXIT_STORE),
        Err(error @ AppError::Listen { .. }) => fail("listen", &error, error.fix(), 1),
        Err(error) => fail("start", &error, error.fix(), 1),
    }
}

async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be received; stop the process with SIGKILL, nothing is lost by it");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
}

async fn make(request: InitRequest, json: bool) -> ExitCode {
    let store_path = request.data_directory.join("store");
    if let Err(error) = data_directory::make_private(&request.data_directory) {
        return fail("init", &error, "name a directory that this user may make, with --data", 1);
    }
    let Ok(absolute) = std::path::absolute(&store_path) else { return ExitCode::from(EXIT_USAGE) };
    let store = match fleet_store::open(&format!("sled:{}", absolute.display()), None).await {
        Ok(store) => store,
        Err(error) => return fail("store", &error, FIX_STORE, EXIT_STORE),
    };
    let outcome = init::init(std::sync::Arc::clone(&store), &Clock::system(), &request).await;
    if let Err(error) = store.close().await {
        return fail("store", &error, FIX_STORE, EXIT_STORE);
    }
    match outcome {
        Err(error) => fail("init", &error, error.fix(), 1),
        Ok(made) if json => {
            println!("{}", serde_json::json!({ "fleet": made.fleet, "invite": made.invite }));
            ExitCode::SUCCESS
        }
        Ok(made) => {
            println!("fleet {} ({}) is made.", request.name, made.fleet);
            println!(
                "Root key: {} (take it off this machine and keep it offline)",
                request.root_key.display()
            );
            println!("Invite for {} (24 h, once):\n  {}", request.operator, made.invite);
            println!(
                "Next: start the controller, then on the operator's machine: fleetctl login INVITE --root-key FILE --server HOST"
            );
            ExitCode::SUCCESS
        }
    }
}
