//! `fleet-agent guard`: the process that puts a change back which nobody confirmed. Started by the executor, and at the
//! start of the machine for all changes that were pending when it went down.

use std::sync::Arc;

use fleet_executor::guard::{Keeper, Pending, watch, watch_all};
use fleet_executor::host::Host;
use fleet_executor::resolve::TaskTable;

use super::settings;
use crate::args;
use crate::error::{Exit, Failure};
use crate::telemetry;

/// Watches until the change is confirmed or put back.
pub fn run(args: &args::Guard) -> Result<(), Failure> {
    // It is to outlive whoever started it, and their terminal. A unit of systemd has a session already.
    let _ = rustix::process::setsid();
    let config = settings::load(&args.configured)?;
    telemetry::init(&config);
    let host: Arc<dyn Host> = Arc::new(settings::host_beside(&config)?);
    let tasks = TaskTable::built().on(&*host);
    let watched = match &args.folder {
        Some(folder) => watch(&Pending::at(folder.clone()), &host, &tasks).map(drop),
        None => watch_all(&Keeper::folder_in(&config.state_directory), &host, &tasks),
    };
    watched.map_err(|error| Failure::of(Exit::Failed, &error))
}
