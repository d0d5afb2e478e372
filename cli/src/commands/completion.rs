//! `fleetctl completion`.

use crate::app;
use crate::args::CompletionArgs;
use crate::environment::DEFAULT_WIDTH;
use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// Prints the script; `source <(fleetctl completion bash)`.
pub fn run(session: &mut Session<'_>, args: &CompletionArgs) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut app::command_line(DEFAULT_WIDTH), "fleetctl", &mut script);
    session.data(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::Done)
}
