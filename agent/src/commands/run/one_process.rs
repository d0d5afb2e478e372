//! Both halves in one process: development nodes, where one user owns everything anyway.

use fleet_executor::{News, socket};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::super::signals::Signals;
use super::begin::{Halves, core_failure};
use crate::core::identity::OwnIdentity;
use crate::core::link::LinkError;
use crate::core::start;
use crate::error::{Exit, Failure};

/// Runs until a signal, or until one half fails.
pub async fn run(halves: &Halves) -> Result<(), Failure> {
    let config = &halves.config;
    let identity =
        OwnIdentity::load(&config.identity_directory).map_err(|error| Failure::of(Exit::Identity, &error))?;
    identity.belongs_to(halves.record.node).map_err(|error| Failure::of(Exit::Identity, &error))?;
    // Before the executor takes up what was open: a wrong setting must not begin any work.
    let core = start::Core::new(config, &identity).map_err(|error| core_failure(&error))?;
    let mut signals = Signals::hear()?;
    let (theirs, ours) = socket::pair().map_err(|error| Failure::of(Exit::Failed, &error))?;
    let mut executor = halves.start_executor(ours)?;
    info!(node = %halves.record.node, name = %halves.record.name, version = env!("CARGO_PKG_VERSION"), "agent runs");
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(core.run(theirs, stop.clone()));
    tokio::select! {
        () = signals.next() => {}
        ended = &mut running => {
            // Nobody is left who could take its messages; it ends its step and stops.
            executor.drain(config.timers.drain).await;
            return ended.map_err(|error| core_failure(&error));
        }
        news = executor.news() => return Err(match news {
            News::Ended => core_failure(&LinkError::ExecutorGone.into()),
            // Here it cannot be replaced alone.
            News::CoreHung => Failure::new(Exit::Failed, "the core hangs; open work goes on at the next start"),
        }),
    }
    info!("stopping: no new work, the step under way may end");
    stop.cancel();
    let draining = async { tokio::join!(running, executor.drain(config.timers.drain)) };
    tokio::select! {
        () = signals.next() => Err(Failure::new(Exit::Failed, "ended by a second signal; open work goes on at the next start")),
        (core, drained) = draining => {
            info!(?drained, "stopped");
            core.map_err(|error| core_failure(&error))
        }
    }
}
