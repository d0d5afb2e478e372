//! Jobs under way: their start in turn, their progress, their cancel, their end.

use fleet_proto::pb;
use fleet_proto::pb::executor_message::Body as ToCore;
use fleet_types::job::{JobState, Outcome};

use super::event::Effect;
use super::state::{Dispatcher, job_key};
use crate::journal::{Entry, JobKey};
use crate::run::{Ending, Work};

/// Reading jobs that run beside each other and beside the one changing job: enough that a status is not
/// kept waiting by a long backup, few enough for the smallest node.
const MAX_READING: usize = 4;

impl Dispatcher {
    /// Starts what may start: one changing job at a time, in order; reading ones beside it.
    pub(super) fn start_next(&mut self) {
        let cannot_report = self.parts.report_key.is_none() || !self.unwritten.is_empty();
        if self.is_stopping() || self.trouble.is_some() || cannot_report {
            return;
        }
        let mut at = 0;
        while let Some(key) = self.queue.get(at).copied() {
            let Some(open) = self.open.get(&key) else {
                self.queue.remove(at);
                continue;
            };
            let started =
                |changes| self.open.values().filter(|o| o.admitted.is_none() && o.changes == changes).count();
            let has_turn = if open.changes {
                let earlier = self.queue.iter().take(at).any(|k| self.open.get(k).is_some_and(|o| o.changes));
                started(true) == 0 && !earlier
            } else {
                started(false) < MAX_READING
            };
            if has_turn {
                self.queue.remove(at);
                self.start(key);
            } else {
                at += 1;
            }
        }
    }

    fn start(&mut self, key: JobKey) {
        let Some(record) = self.parts.table.get(&key).cloned() else { return };
        let Some(accepted) = record.accepted.clone() else { return };
        let untouched = record.steps.is_empty();
        if untouched && let Some(reason) = &record.cancelled {
            let draft = self.draft(Outcome::Cancelled, reason.clone(), Vec::new());
            return self.finish_accepted(key, draft);
        }
        // The request's end bounds the first start on a node (security-and-delivery §1.15).
        if untouched && self.now() >= accepted.request_ends {
            let reason = format!("its request ended at {} before its turn came", accepted.request_ends);
            let draft = self.draft(Outcome::Expired, reason, Vec::new());
            return self.finish_accepted(key, draft);
        }
        // A key that was revoked while the job waited starts nothing any more.
        if untouched && let Err(refusal) = self.still_vouched(&accepted) {
            let draft = self.draft(Outcome::Cancelled, refusal.reason(), Vec::new());
            return self.finish_accepted(key, draft);
        }
        let Some(open) = self.open.get_mut(&key) else { return };
        if let Some(admitted) = open.admitted.take() {
            let work = Work { accepted, admitted, record, cancel: open.cancel.clone() };
            self.effects.push(Effect::Start(Box::new(work)));
        }
    }

    pub(super) fn on_progress(&mut self, key: JobKey, state: JobState) {
        if let Some(open) = self.open.get_mut(&key) {
            open.state = state;
            if let Some(update) = self.update_of(&key) {
                self.send(ToCore::Job(pb::JobUpdate::from(&update)));
            }
        }
    }

    pub(super) fn on_run_ended(&mut self, key: JobKey, ending: Ending) {
        match ending {
            Ending::Finished(mut draft) => {
                // The reason came after the run had begun: the run does not know it.
                let cancelled = self.parts.table.get(&key).and_then(|job| job.cancelled.clone());
                if let Some(reason) = cancelled.filter(|_| draft.outcome == Outcome::Cancelled) {
                    draft.reason = reason;
                }
                self.finish_accepted(key, *draft);
            }
            // It goes on after the next start.
            Ending::Suspended => drop(self.open.remove(&key)),
            Ending::Silenced => {
                self.open.remove(&key);
                self.trouble.get_or_insert_with(|| "the journal cannot be written".to_owned());
            }
        }
    }

    pub(super) fn on_cancel(&mut self, cancel: &pb::Cancel) {
        if let Some(key) = job_key(&cancel.run, cancel.attempt) {
            self.cancel(key, &cancel.reason);
        }
    }

    /// Stopping never needs a signature (security-and-delivery §1.15). Durable before it takes effect.
    pub(super) fn cancel(&mut self, key: JobKey, reason: &str) {
        let known = self.parts.table.get(&key);
        if known.is_some_and(|job| job.finished.is_some()) {
            return self.answer(&key);
        }
        let repeated = known.is_some_and(|job| job.cancelled.is_some());
        if !repeated {
            let (run, attempt) = key;
            let reason: String = reason.chars().filter(|c| !c.is_control()).take(500).collect();
            let at = self.now();
            if self.record(&Entry::Tombstone { run, attempt, reason, at }).is_err() {
                return;
            }
            self.note_removable();
        }
        if let Some(open) = self.open.get(&key) {
            open.cancel.cancel();
            let untouched = self.parts.table.get(&key).is_none_or(|job| job.steps.is_empty());
            if open.admitted.is_some() && untouched {
                // Not started: it ends here, its turn does not matter any more.
                self.queue.retain(|queued| *queued != key);
                return self.start(key);
            }
        } else if let Some(pending) = self.pending.remove(&key) {
            let reason = self.parts.table.get(&key).and_then(|job| job.cancelled.clone()).unwrap_or_default();
            let draft = self.draft(Outcome::Cancelled, reason, Vec::new());
            let ends = self.now();
            return self.finish(key, pending.assignment.request, ends, draft);
        }
        self.answer(&key);
    }
}
