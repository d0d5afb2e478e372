//! Jobs under way: their start in turn, their progress, their cancel, their end.

use std::time::Duration;

use fleet_proto::pb;
use fleet_proto::pb::executor_message::Body as ToCore;
use fleet_types::id::RunId;
use fleet_types::job::{EndCause, JobLimits, JobState, Outcome};

use super::event::Effect;
use super::state::{Dispatcher, job_key};
use crate::journal::{Accepted, Entry, JobKey};
use crate::run::{Deadlines, End, Ending, Work};

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
                started(true) == 0 && !earlier && self.still_changing().is_none()
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

    /// A run that is over, of which a task or a program may still be changing the node: it has overrun its limit, or
    /// was left by an earlier life of the executor. No change starts beside it.
    fn still_changing(&self) -> Option<RunId> {
        let of_nobody = |run: &RunId| !self.open.keys().any(|(open, _)| open == run);
        let programs = || self.parts.host.processes().living().into_iter().map(|program| program.run);
        self.parts.abandoned.changing().map(|(run, _)| run).or_else(|| programs().find(of_nobody))
    }

    fn start(&mut self, key: JobKey) {
        let Some(record) = self.parts.table.get(&key).cloned() else { return };
        let Some(accepted) = record.accepted.clone() else { return };
        let untouched = record.steps.is_empty();
        if untouched && let Some(reason) = &record.cancelled {
            let draft = self.draft(End::plain(Outcome::Cancelled, reason.clone()), Vec::new());
            return self.finish_accepted(key, draft);
        }
        // A key that was revoked while the job waited starts nothing any more.
        let checked = self.open.get(&key).and_then(|open| open.vouched);
        if untouched
            && checked != Some(self.vouching(&self.parts.policy.now()))
            && let Err(refusal) = self.still_vouched(&accepted)
        {
            let draft = self.draft(End::plain(Outcome::Cancelled, refusal.reason()), Vec::new());
            return self.finish_accepted(key, draft);
        }
        if untouched && let Some(refusal) = self.parts.policy.locked() {
            let draft = self.draft(End::plain(Outcome::Cancelled, refusal.reason()), Vec::new());
            return self.finish_accepted(key, draft);
        }
        if untouched && let Err(refusal) = self.use_tick(&accepted) {
            let draft = self.draft(End::plain(Outcome::Refused, refusal.reason()), Vec::new());
            return self.finish_accepted(key, draft);
        }
        let Some(open) = self.open.get_mut(&key) else { return };
        if let Some(admitted) = open.admitted.take() {
            let work = Work { accepted, admitted, record, cancel: open.cancel.clone() };
            self.effects.push(Effect::Start(Box::new(work)));
        }
    }

    /// How long a queued job may still wait for its start; none of one that has begun, which no request's end
    /// stops.
    pub(super) fn left_to_start(&self, key: &JobKey) -> Option<Duration> {
        let job = self.parts.table.get(key)?;
        let accepted = job.accepted.as_ref().filter(|_| job.steps.is_empty())?;
        Some(self.left_of_request(accepted))
    }

    /// The request's end bounds the first start on a node (security-and-delivery §1.15). Wall time at the
    /// acceptance made it an instant on boot time, which no set clock moves; wall time counts beside it, and
    /// alone after a restart of the machine. Whichever comes first.
    fn left_of_request(&self, accepted: &Accepted) -> Duration {
        let by_wall = accepted.request_ends.since(self.now());
        if accepted.boot_id != self.parts.host.clock().boot_id() {
            return by_wall;
        }
        let ends = Duration::from_millis(accepted.boot_ms) + accepted.request_ends.since(accepted.started);
        by_wall.min(ends.saturating_sub(self.since_boot()))
    }

    /// May an end be written now? Else what is over waits for the next tick, or the next start.
    pub(super) fn may_expire(&self) -> bool {
        !self.is_stopping() && self.unwritten.is_empty()
    }

    /// Ends what is queued when its request ends, at that time and not when its turn comes.
    pub(super) fn expire_queued(&mut self) {
        if !self.may_expire() {
            return;
        }
        let over = |key: &&JobKey| self.left_to_start(key).is_some_and(|left| left.is_zero());
        for key in self.queue.iter().filter(over).copied().collect::<Vec<_>>() {
            let accepted = self.parts.table.get(&key).and_then(|job| job.accepted.as_ref());
            let Some(ends) = accepted.map(|accepted| accepted.request_ends) else { continue };
            let reason = format!("its request ended at {ends} before its turn came");
            let draft = self.draft(End::plain(Outcome::Expired, reason), Vec::new());
            self.finish_accepted(key, draft);
        }
    }

    /// The node's word on how long an open job may still take.
    pub(super) fn limits_of(&self, key: &JobKey) -> Option<JobLimits> {
        let open = self.open.get(key)?;
        if open.admitted.is_none() {
            let now = self.since_boot();
            let all = || Deadlines { phase: now + open.work, job: now + open.work };
            let deadlines = open.deadlines.unwrap_or_else(all);
            return Some(JobLimits {
                phase_left: deadlines.phase.saturating_sub(now),
                job_left: deadlines.job.saturating_sub(now),
                behind: None,
            });
        }
        // What an earlier life of the executor began goes on with the next start.
        let waits = self.left_to_start(key).unwrap_or_default();
        let phase_left = if waits.is_zero() { open.work } else { waits };
        Some(JobLimits { phase_left, job_left: waits + open.work, behind: self.behind(key, open.changes) })
    }

    /// The run of the job that a queued one waits for.
    fn behind(&self, key: &JobKey, changes: bool) -> Option<RunId> {
        let alike =
            |other: &JobKey| other != key && self.open.get(other).is_some_and(|o| o.changes == changes);
        let queued = self.queue.iter().take_while(|other| *other != key).filter(|other| alike(other)).last();
        let running = self.open.iter().filter(|(_, open)| open.admitted.is_none()).map(|(other, _)| other);
        let running: Vec<&JobKey> = running.filter(|other| alike(other)).collect();
        let is_full = changes || running.len() >= MAX_READING;
        let behind = queued.or_else(|| running.first().copied().filter(|_| is_full)).map(|(run, _)| *run);
        behind.or_else(|| changes.then(|| self.still_changing()).flatten())
    }

    pub(super) fn on_progress(&mut self, key: JobKey, state: JobState, deadlines: Deadlines) {
        if let Some(open) = self.open.get_mut(&key) {
            open.state = state;
            open.deadlines = Some(deadlines);
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
                if let Some(reason) = cancelled {
                    match draft.end.cause {
                        _ if draft.end.outcome == Outcome::Cancelled => draft.end.reason = reason,
                        // Stopped in the middle of a change.
                        Some(EndCause::Cancelled | EndCause::OutcomeUnknown) => {
                            draft.end.reason = format!("{}; cancelled: {reason}", draft.end.reason);
                        }
                        _ => {}
                    }
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
            let draft = self.draft(End::plain(Outcome::Cancelled, reason), Vec::new());
            let ends = self.now();
            return self.finish(key, &pending.assignment, ends, draft);
        }
        self.answer(&key);
    }
}
