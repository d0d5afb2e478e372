//! `fleet-agent accept-damage`: ends safe mode once a person has looked at what is damaged or missing.

use fleet_executor::damage;
use fleet_executor::journal::JournalLock;

use super::settings::{self, print};
use crate::args::Configured;
use crate::error::{Exit, Failure};

/// Takes the mark away; the next start makes changes again.
pub fn run(configured: &Configured) -> Result<(), Failure> {
    let config = settings::load(configured)?;
    let directory = &config.state_directory;
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(Exit::Store, error);
    let _lock = JournalLock::hold(directory).map_err(|e| failed(&e))?;
    if let Some(missing) = damage::missing(directory) {
        let message = format!(
            "{missing}: put it back from a backup, or join anew with fleet-agent enrol --replace; \
             start the agent once to go on without it (not without report.key)"
        );
        return Err(Failure::new(Exit::Store, message));
    }
    match damage::marked(directory).map_err(|e| failed(&e))? {
        None => print("nothing is marked as damaged"),
        Some(marked) => {
            damage::accept(directory).map_err(|e| failed(&e))?;
            print(format_args!("accepted: {marked}"));
        }
    }
    Ok(())
}
