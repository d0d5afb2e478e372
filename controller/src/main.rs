//! The controller's program: parses the command line and hands over.

use std::process::ExitCode;

use clap::Parser as _;
use fleet_controller::command::{self, Args};

fn main() -> ExitCode {
    command::main(Args::parse())
}
