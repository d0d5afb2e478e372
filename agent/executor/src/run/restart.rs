//! A restart of the machine that a step's task asks for: journaled, asked for, and waited for until this executor ends with
//! it. The next one takes the step up again.
//!
//! Done when the boot id has changed, never because it was asked for (security-and-delivery §2.12). Part of a run.

use std::thread;
use std::time::Duration;

use fleet_types::job::EndCause;

use super::life::Run;
use super::step::Fault;
use crate::journal::{Entry, JournalError};
use crate::resolve::ResolvedStep;

/// How often it is looked whether this executor is told to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The least time that a machine gets to go down: systemd gives each service a minute and a half
/// (`DefaultTimeoutStopSec=` in systemd-system.conf(5)).
const LEAST: Duration = Duration::from_mins(2);

impl Run {
    /// None when the executor is told to stop, as it is when the machine goes down; else why that did not come.
    pub(super) fn restart_machine(
        &mut self,
        step: &ResolvedStep,
        left: Duration,
    ) -> Result<Option<Fault>, JournalError> {
        let (run, attempt) = self.key;
        let boot_id = self.surroundings.host.clock().boot_id();
        self.journal(&Entry::RebootRequested { run, attempt, step: step.id.clone(), boot_id })?;
        #[cfg(any(test, feature = "crash-points"))]
        self.surroundings.journal.reach(crate::crash::CrashPoint::AfterRestartNoted)?;
        if let Err(error) = self.surroundings.host.units().restart_machine() {
            let message = format!("the machine was not restarted: {error}");
            return Ok(Some(Fault::new(EndCause::StepFailed, message)));
        }
        let limit = left.max(LEAST);
        self.extend(limit + self.grace());
        let asked = self.since_boot();
        while self.since_boot().saturating_sub(asked) < limit {
            if self.surroundings.suspend.is_cancelled() {
                return Ok(None);
            }
            thread::park_timeout(LOOK_EVERY);
        }
        let message = format!(
            "the machine was asked to restart and did not go down within {} s; it may still do so",
            limit.as_secs()
        );
        Ok(Some(Fault::new(EndCause::OutcomeUnknown, message)))
    }
}
