//! The agent's binary: command line, exit code; everything else is in the library.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use fleet_agent::args::Cli;
use fleet_agent::commands;

fn main() -> ExitCode {
    // Where it was started as /proc/self/exe the kernel's name for it would be "exe". Only a name: no failure matters.
    let _ = rustix::thread::set_name(c"fleet-agent");
    match commands::dispatch(Cli::parse()) {
        Ok(code) => code,
        Err(failure) => {
            // Nothing to do when standard error is closed.
            let _ = writeln!(std::io::stderr(), "fleet-agent: {failure}");
            ExitCode::from(failure.exit as u8)
        }
    }
}
