//! `fleetctl`: hands the process's arguments and streams to [`fleetctl::app::run`] and exits with its code.

use std::io::Write as _;
use std::process::ExitCode;

use fleetctl::app;
use fleetctl::environment::Environment;

fn main() -> ExitCode {
    let environment = Environment::of_process();
    // Not locked: `fleetctl dev` prints from a thread of its own.
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let code = app::run(std::env::args_os(), &mut out, &mut err, &environment);
    // A reader that went away has been dealt with in `run`; there is nobody left to tell.
    let _ = out.flush();
    ExitCode::from(code)
}
