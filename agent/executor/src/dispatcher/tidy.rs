//! Tidying while the executor runs: what is over and told goes from table, journal, stores and records of programs.
//!
//! Bounds and periods are those of `retention`. Nothing here can make work fail: what cannot be removed now is removed
//! another time.

use std::collections::BTreeSet;
use std::time::Duration;

use super::state::Dispatcher;
use crate::causes::chain;
use crate::retention::{TIDY_AFTER, TIDY_EVERY};

/// When it was last done.
#[derive(Debug, Default)]
pub(super) struct Tidied {
    /// On boot time; none before the first time.
    at: Option<Duration>,
    /// Ends, cancels and acknowledgements since.
    entries: u32,
}

impl Dispatcher {
    /// Something has ended that may be removed one day.
    pub(super) const fn note_removable(&mut self) {
        self.tidied.entries = self.tidied.entries.saturating_add(1);
    }

    /// Tidies when there is enough to do, or when it is time.
    pub(super) fn tidy_if_due(&mut self) {
        let now = self.since_boot();
        let is_old = self.tidied.at.is_none_or(|at| now.saturating_sub(at) >= TIDY_EVERY);
        if self.tidied.entries >= TIDY_AFTER || is_old {
            self.tidied = Tidied { at: Some(now), entries: 0 };
            self.tidy();
        }
    }

    fn tidy(&mut self) {
        let now = self.now();
        self.parts.table.forget(now);
        let (mut documents, mut reports, mut runs) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (key, job) in self.parts.table.iter() {
            if let Some(accepted) = job.accepted.as_ref().filter(|_| job.is_open()) {
                documents.extend(self.used_by(accepted));
                runs.insert(key.0);
            }
            reports.extend(job.finished.as_ref().filter(|_| !job.acked).map(|finished| finished.report));
        }
        for pending in self.pending.values() {
            documents.extend(self.named_by(pending.assignment.authority.digest()));
        }
        let parts = &self.parts;
        let done = [
            ("documents", parts.documents.tidy(&documents)),
            ("reports", parts.reports.tidy(&reports)),
            ("records of programs", parts.host.processes().keep_only(&runs)),
        ];
        for (what, result) in done {
            if let Err(error) = result {
                tracing::warn!(%error, "old {what} cannot be removed");
            }
        }
        if let Err(error) = parts.journal.compact_if_grown(now) {
            tracing::warn!(error = chain(&error), "the journal cannot be compacted");
        }
    }
}
