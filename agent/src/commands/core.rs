//! `fleet-agent core`: the half that speaks to the network, as a process of its own, without any right that it
//! does not need. Its end of the socket pair is its standard input.
//!
//! Must never run as root, touch the journal or the machine, or be started by anybody but the executor's half.

use fleet_executor::socket::Socket;
use fleet_types::id::NodeId;
use rustix::process::geteuid;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::run::core_failure;
use super::settings;
use super::signals::Signals;
use crate::args;
use crate::config::Config;
use crate::confine::{self, ConfineError, Sandbox};
use crate::core::identity::OwnIdentity;
use crate::core::{enrolment_channel, start};
use crate::error::{Exit, Failure};
use crate::telemetry;

/// Serves the executor at the other end of standard input.
pub fn run(args: &args::Core) -> Result<(), Failure> {
    confine::give_up_rights().map_err(|error| {
        let exit = if matches!(error, ConfineError::Root) { Exit::Usage } else { Exit::Failed };
        Failure::of(exit, &error)
    })?;
    let socket = Socket::from_standard_input().map_err(|_| {
        Failure::new(
            Exit::Usage,
            "fleet-agent core is started by fleet-agent run and enrol: run one of those",
        )
    })?;
    let config = settings::load(&args.configured)?;
    telemetry::init(&config);
    match confine::sandbox_in(&config.identity_directory)
        .map_err(|error| Failure::of(Exit::Failed, &error))?
    {
        Sandbox::Whole => {}
        Sandbox::Partly => warn!("this kernel enforces only a part of the core's fence (Landlock)"),
        Sandbox::Absent => warn!("this kernel has no Landlock: the core is held by its account alone"),
    }
    // One thread is enough: the core waits most of the time.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    match args.node {
        Some(node) => link(&runtime, &config, node, socket),
        None => runtime.block_on(enrolment_channel::serve(socket, &config)),
    }
}

fn link(runtime: &Runtime, config: &Config, node: NodeId, socket: Socket) -> Result<(), Failure> {
    let identity =
        OwnIdentity::load(&config.identity_directory).map_err(|error| Failure::of(Exit::Identity, &error))?;
    identity.belongs_to(node).map_err(|error| Failure::of(Exit::Identity, &error))?;
    runtime.block_on(async {
        let core = start::Core::new(config, &identity).map_err(|error| core_failure(&error))?;
        let mut signals = Signals::hear()?;
        info!(user = geteuid().as_raw(), "core runs");
        let stop = CancellationToken::new();
        let mut running = std::pin::pin!(core.run(socket, stop.clone()));
        tokio::select! {
            ended = &mut running => return ended.map_err(|error| core_failure(&error)),
            () = signals.next() => stop.cancel(),
        }
        tokio::select! {
            ended = &mut running => ended.map_err(|error| core_failure(&error)),
            () = signals.next() => Err(Failure::new(Exit::Failed, "ended by a second signal")),
        }
    })
}
