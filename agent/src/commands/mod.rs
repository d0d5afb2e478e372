//! The subcommands, one file each. The only place that knows both core and executor.
//!
//! Commands print data to standard output and talk on standard error, and fail with an exit code that has a
//! meaning ([`crate::error::Exit`]).

mod enrol;
mod journal;
mod run;
mod settings;
mod status;
mod stop_units;
mod version;

use std::process::ExitCode;

use crate::args::{Cli, Command};
use crate::error::Failure;

/// Runs a subcommand.
pub fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Run(args) => run::run(&args)?,
        Command::Enrol(args) => enrol::run(&args)?,
        Command::Status(args) => status::run(&args)?,
        Command::Journal(args) => journal::run(&args)?,
        Command::StopUnits(configured) => stop_units::run(&configured)?,
        Command::Supervise { arguments } => return Ok(fleet_executor::host::supervise::main(arguments)),
        Command::Version => version::run(),
    }
    Ok(ExitCode::SUCCESS)
}
