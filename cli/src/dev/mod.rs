//! `fleetctl dev`: a whole fleet on this machine. Called by [`crate::app`] only.

use crate::args::DevArgs;
use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// Starts the fleet and stays until Ctrl-C, which it handles itself. Called outside of any runtime.
pub fn run(_session: &mut Session<'_>, args: &DevArgs) -> Result<ExitCode, Failure> {
    let what = format!("a development fleet of {} nodes cannot be started by this build", args.nodes);
    Err(Failure::new(ExitCode::Unexpected, "not-built", what).cause("the command is not built in yet"))
}
