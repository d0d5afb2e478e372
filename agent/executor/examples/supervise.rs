//! The supervisor alone, for the tests of this crate: what the agent's binary does for its hidden subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    fleet_executor::host::supervise::main(std::env::args_os().skip(2))
}
