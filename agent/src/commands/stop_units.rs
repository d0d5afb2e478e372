//! `fleet-agent stop-units`: ends what this node's supervised units left running. For development roots only:
//! on a real machine units belong to the machine.

use fleet_executor::host::Host as _;

use super::settings;
use crate::args::Configured;
use crate::error::{Exit, Failure};

/// Stops all supervised units below the development root.
pub fn run(configured: &Configured) -> Result<(), Failure> {
    let config = settings::load(configured)?;
    if config.dev_root.is_none() {
        return Err(Failure::new(Exit::Usage, "stop-units needs dev.root: it is for development nodes only"));
    }
    settings::host(&config)?.units().stop_all().map_err(|error| Failure::of(Exit::Failed, &error))
}
