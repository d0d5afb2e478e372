//! `fleetctl explain`.

use serde::Serialize;

use crate::args::ExplainArgs;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block};
use crate::session::Session;

#[derive(Serialize)]
struct Explained<'a> {
    path: &'a str,
    text: &'a str,
}

/// Explains a field from the compiled schema; asks nobody.
pub fn run(session: &mut Session<'_>, args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let text = fleet_documents::explain(&args.path)
        .map_err(|error| Failure::new(ExitCode::NotFound, "not-found", error).fix("fleetctl explain"))?;
    let answer =
        Answer::local("fleet/v1/explain", &Explained { path: &args.path, text: &text }).name(&args.path);
    let answer = text.lines().fold(answer, |answer, line| answer.block(Block::Line(line.to_owned())));
    session.print(&answer)?;
    Ok(ExitCode::Done)
}
