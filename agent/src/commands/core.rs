//! `fleet-agent core`: the half that speaks to the network, as a process of its own, without any right that it
//! does not need. Its end of the socket pair is its standard input.
//!
//! Must never run as root, touch the journal or the machine, or be started by anybody but the executor's half.

use fleet_executor::socket::Socket;
use fleet_types::id::NodeId;
use rustix::process::{DumpableBehavior, getegid, geteuid, set_dumpable_behavior};
use rustix::thread::set_no_new_privs;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::run::core_failure;
use super::settings;
use super::signals::Signals;
use crate::args::{self, CoreWork};
use crate::config::Config;
use crate::core::identity::OwnIdentity;
use crate::core::{join_door, start};
use crate::error::{Exit, Failure};
use crate::telemetry;

/// Serves the executor at the other end of standard input.
pub fn run(args: &args::Core) -> Result<(), Failure> {
    confine()?;
    let socket = Socket::from_standard_input().map_err(|_| {
        Failure::new(
            Exit::Usage,
            "fleet-agent core is started by fleet-agent run and enrol: run one of those",
        )
    })?;
    let config = settings::load(&args.configured)?;
    telemetry::init(&config);
    // One thread is enough: the core waits most of the time.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    match args.work {
        CoreWork::Link { node } => link(&runtime, &config, node, socket),
        CoreWork::Join => runtime.block_on(join_door::serve(socket, &config)),
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

/// Gives up for good what the core does not need (security-and-delivery §1.16).
fn confine() -> Result<(), Failure> {
    if geteuid().is_root() || getegid().is_root() {
        return Err(Failure::new(
            Exit::Usage,
            "the core does not run as root: fleet-agent run starts it under an account of its own",
        ));
    }
    let failed = |error: rustix::io::Errno| Failure::of(Exit::Failed, &error);
    // No program with setuid or file capabilities gives it rights again.
    set_no_new_privs(true).map_err(failed)?;
    // Nobody else of this account reads its keys from its memory or from a core file.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)
}
