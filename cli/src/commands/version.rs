//! `fleetctl version`.

use serde::Serialize;

use crate::error::{ExitCode, Failure};
use crate::render::Answer;
use crate::session::Session;

#[derive(Serialize)]
struct Version {
    fleetctl: &'static str,
    protocol_oldest: u32,
    protocol_newest: u32,
}

/// Shows versions; asks nobody.
pub fn run(session: &mut Session<'_>) -> Result<ExitCode, Failure> {
    let (oldest, newest) = (*fleet_proto::PROTOCOL.start(), *fleet_proto::PROTOCOL.end());
    let version =
        Version { fleetctl: env!("CARGO_PKG_VERSION"), protocol_oldest: oldest, protocol_newest: newest };
    let answer = Answer::local("fleet/v1/version", &version)
        .name(version.fleetctl)
        .line(format!("fleetctl {}, protocol {oldest} to {newest}", version.fleetctl));
    session.print(&answer)?;
    Ok(ExitCode::Done)
}
