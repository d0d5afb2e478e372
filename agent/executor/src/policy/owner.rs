//! The owner's policy as it stands now: read again whenever a decision hangs on it.
//!
//! It counts from the moment it is written. A file that cannot be used any more leaves the last good policy in
//! force and stops all changes until it can. Shared by the dispatcher, which admits, and by runs, which ask before
//! each step.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::judge::{against_mode, against_step, locked};
use super::local::{LocalPolicy, Mode};
use super::refusal::Refusal;
use crate::resolve::ResolvedStep;

/// Reads the policy, or says why it cannot be used. Called often: it must be cheap while nothing has changed.
pub type PolicyReader = Arc<dyn Fn() -> Result<LocalPolicy, String> + Send + Sync>;

/// Cheap to clone; clones share what was read last.
#[derive(Clone)]
pub struct OwnersPolicy {
    reader: PolicyReader,
    last: Arc<Mutex<Last>>,
}

struct Last {
    policy: Arc<LocalPolicy>,
    fault: Option<String>,
}

impl OwnersPolicy {
    /// Reads the policy for the first time; without a good one nothing starts.
    pub fn open(reader: PolicyReader) -> Result<Self, String> {
        let policy = Arc::new(reader()?);
        Ok(Self { reader, last: Arc::new(Mutex::new(Last { policy, fault: None })) })
    }

    fn read(&self) -> MutexGuard<'_, Last> {
        let read = (self.reader)();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(policy) => {
                if policy != *last.policy {
                    tracing::info!(mode = policy.mode.as_str(), "the node owner's policy has changed");
                    last.policy = Arc::new(policy);
                }
                last.fault = None;
            }
            Err(fault) => {
                if last.fault.as_ref() != Some(&fault) {
                    tracing::error!(%fault, "the node owner's policy cannot be used: no changes until it can");
                }
                last.fault = Some(fault);
            }
        }
        last
    }

    /// The policy that counts now.
    pub fn now(&self) -> Arc<LocalPolicy> {
        Arc::clone(&self.read().policy)
    }

    /// Why the policy as it is written cannot be used, if it cannot.
    pub fn fault(&self) -> Option<String> {
        self.read().fault.as_ref().map(|fault| format!("the node owner's policy cannot be used: {fault}"))
    }

    /// Does the owner want nothing from a controller any more?
    pub fn locked(&self) -> Option<Refusal> {
        (self.read().policy.mode == Mode::Locked).then(locked)
    }

    /// What stands now against a step of a job that was admitted earlier.
    pub fn against(&self, step: &ResolvedStep) -> Option<Refusal> {
        let last = self.read();
        if let Some(fault) = last.fault.as_ref().filter(|_| step.effects.changes) {
            let message = format!("the node owner's policy cannot be used: {fault}");
            return Some(Refusal::new("safe-mode", message, "mend the node's agent.toml"));
        }
        let mut refusals: Vec<Refusal> = against_mode(step, last.policy.mode).into_iter().collect();
        against_step(step, &last.policy, &mut refusals);
        refusals.into_iter().next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_counts_at_once_and_what_cannot_be_read_stops_changes() {
        let written = Arc::new(Mutex::new("mode = \"enforce\"".to_owned()));
        let file = Arc::clone(&written);
        let reader: PolicyReader =
            Arc::new(move || LocalPolicy::parse(&file.lock().unwrap()).map_err(|e| e.to_string()));
        let policy = OwnersPolicy::open(reader).unwrap();
        let write = |text: &str| text.clone_into(&mut written.lock().unwrap());
        assert_eq!((policy.now().mode, policy.fault()), (Mode::Enforce, None));
        write("mode = \"locked\"");
        assert_eq!(policy.now().mode, Mode::Locked);
        write("mode = ");
        assert_eq!(policy.now().mode, Mode::Locked, "the last good one");
        assert!(policy.fault().is_some());
        write("mode = \"enforce\"");
        assert_eq!((policy.now().mode, policy.fault()), (Mode::Enforce, None));
        write("mode = ");
        assert!(OwnersPolicy::open(Arc::clone(&policy.reader)).is_err());
    }
}
