//! `fleet-sim`: measures the controller under many light agents beside its floor, on this machine only.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use fleet_tests::sim::{floor, measure, table, worker};
use serde::de::DeserializeOwned;

/// Measure the controller under many agents, beside the floor of the same run
///
/// Starts the fleet-controller that lies beside this program. Loopback only; nothing stays behind.
#[derive(Debug, Parser)]
#[command(name = "fleet-sim", version)]
struct Args {
    /// How many agents; may be given several times
    #[arg(long, default_values_t = [100, 1000])]
    agents: Vec<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// A process of agents (started by this program itself)
    #[command(hide = true)]
    Worker { plan: PathBuf },
    /// The floor (started by this program itself)
    #[command(hide = true)]
    Floor { plan: PathBuf },
}

fn read<T: DeserializeOwned>(path: &PathBuf) -> Result<T> {
    let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_slice(&bytes).context("the plan cannot be read")
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    match run(Args::parse()).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    match args.role {
        Some(Role::Worker { plan }) => return worker::run(read(&plan)?).await,
        Some(Role::Floor { plan }) => return floor::run(read(&plan)?).await,
        None => {}
    }
    let program = fleet_tests::programs::program("fleet-controller", "fleet-controller")?;
    let build = if cfg!(debug_assertions) { "debug build: figures say little" } else { "release build" };
    eprintln!("controller: {} ({build})", program.display());
    for count in args.agents {
        let figures = measure::measure(count).await?;
        if args.json {
            let rows = table::rows(&figures);
            println!("{}", serde_json::json!({ "build": build, "figures": figures, "rows": rows }));
        } else {
            println!("{}", table::text(&figures));
        }
    }
    Ok(())
}
