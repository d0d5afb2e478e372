//! From the parsed command line to the subcommand.

use std::process::ExitCode;

use super::{accept_damage, console, core, enrol, guard, journal, run, status, stop_units, version};
use crate::args::{Cli, Command};
use crate::error::Failure;

/// Runs a subcommand.
pub fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Run(args) => run::run(&args)?,
        Command::Enrol(args) => enrol::run(&args)?,
        Command::Status(args) => status::run(&args)?,
        Command::Journal(args) => journal::run(&args)?,
        Command::AcceptDamage(configured) => accept_damage::run(&configured)?,
        Command::Hold(args) => console::hold(&args)?,
        Command::Release(configured) => console::release(&configured)?,
        Command::Keep(args) => console::keep(&args)?,
        Command::Undo(args) => console::undo(&args)?,
        Command::Core(args) => core::run(&args)?,
        Command::Guard(args) => guard::run(&args)?,
        Command::StopUnits(configured) => stop_units::run(&configured)?,
        Command::Supervise { arguments } => return Ok(fleet_executor::host::supervise::main(arguments)),
        Command::Version => version::run(),
    }
    Ok(ExitCode::SUCCESS)
}
