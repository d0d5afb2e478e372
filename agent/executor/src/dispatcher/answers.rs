//! Answers about jobs: their state, their stored report, and the making of reports.
//!
//! A report is made once: numbered, chained to the one before, signed, stored, journaled, and only then
//! sent; it is sent again until the controller has it (security-and-delivery §2.6, §3.6).

use fleet_proto::convert::JobUpdate;
use fleet_proto::pb;
use fleet_proto::pb::executor_message::Body as ToCore;
use fleet_types::assignment::Assignment;
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::id::JobId;
use fleet_types::job::JobState;
use fleet_types::report::{BootSpan, REPORT_SCHEMA, Report};
use fleet_types::seal::Kind;
use fleet_types::time::Timestamp;

use super::state::Dispatcher;
use crate::causes::chain as chain_of;
use crate::copies::copies_of;
use crate::documents::StoredReport;
use crate::journal::{Entry, Finished, JobKey};
use crate::run::{Draft, fit};

impl Dispatcher {
    /// A job's state, as it is told to the controller.
    pub(super) fn update_of(&self, key: &JobKey) -> Option<JobUpdate> {
        let job = self.parts.table.get(key)?;
        let state = self.open.get(key).map_or_else(|| job.state(), |open| open.state.clone());
        let of_accepted = job.accepted.as_ref().map(|accepted| accepted.assignment.authority.digest());
        Some(JobUpdate {
            run: key.0,
            attempt: key.1,
            state,
            journal_sequence: self.parts.journal.sequence(),
            report: job.finished.as_ref().map(|finished| finished.report),
            request: of_accepted
                .or_else(|| job.finished.as_ref().map(|finished| finished.authority.digest())),
            limits: self.limits_of(key),
        })
    }

    /// Answers a question about a known job: its stored report, else its state.
    pub(super) fn answer(&mut self, key: &JobKey) {
        if !self.send_report(key)
            && let Some(update) = self.update_of(key)
        {
            self.send(ToCore::Job(pb::JobUpdate::from(&update)));
        }
    }

    /// Says how a job stands that the journal does not know.
    pub(super) fn answer_unknown(&mut self, key: &JobKey, state: JobState) {
        let journal_sequence = self.parts.journal.sequence();
        let update = JobUpdate {
            run: key.0,
            attempt: key.1,
            state,
            journal_sequence,
            report: None,
            request: None,
            limits: None,
        };
        self.send(ToCore::Job(pb::JobUpdate::from(&update)));
    }

    /// Sends a job's stored report, if it has one.
    pub(super) fn send_report(&mut self, key: &JobKey) -> bool {
        let Some(job) = self.parts.table.get(key) else { return false };
        let Some(digest) = job.finished.as_ref().map(|finished| finished.report) else { return false };
        let Some(report) = self.parts.reports.load(digest) else {
            // An acknowledged one was tidied away: the controller has it.
            if !job.acked {
                tracing::error!(run = %key.0, %digest, "a stored report is gone or damaged");
            }
            return false;
        };
        let (run, attempt) = (key.0.to_string(), key.1.0);
        let sealed = pb::SealedReport { run, attempt, payload: report.payload, signature: report.signature };
        self.send(ToCore::Report(sealed));
        true
    }

    /// Ends a job: makes, stores and journals its report, then sends it.
    pub(super) fn finish(
        &mut self,
        key: JobKey,
        assignment: &Assignment,
        request_ends: Timestamp,
        mut draft: Draft,
    ) {
        // A job has one report, however often its end is asked for.
        if self.parts.table.get(&key).is_some_and(|job| job.finished.is_some()) {
            return;
        }
        // Before the report, which names them: a copy that no list has would never leave.
        if let Err(error) = self.parts.copies.add(copies_of(&draft.steps)) {
            tracing::error!(%error, "copies of backups cannot be put on their way; they stay on this node");
        }
        match self.store_report(key, assignment, request_ends, &mut draft) {
            Ok(()) => {
                self.unwritten.remove(&key);
                self.note_removable();
                self.open.remove(&key);
                self.queue.retain(|queued| *queued != key);
                self.parts.packages.may_have_changed();
                #[cfg(any(test, feature = "crash-points"))]
                if self.parts.journal.reach(crate::crash::CrashPoint::AfterFinished).is_err() {
                    return;
                }
                self.send_report(&key);
            }
            Err(error) => {
                tracing::error!(%error, run = %key.0, "the report cannot be stored; it is tried again");
                // Of one that was not accepted nothing is kept: the controller offers it again.
                if self.parts.table.get(&key).is_some_and(|job| job.accepted.is_some()) {
                    self.unwritten.entry(key).or_insert(draft);
                }
            }
        }
    }

    fn store_report(
        &mut self,
        key: JobKey,
        assignment: &Assignment,
        request_ends: Timestamp,
        draft: &mut Draft,
    ) -> Result<(), String> {
        let report = Report {
            schema: REPORT_SCHEMA.to_owned(),
            job: assignment.job,
            attempt: key.1,
            authority: assignment.authority,
            sequence: 0,
            previous: None,
            new_chain: None,
            outcome: draft.end.outcome,
            cause: draft.end.cause,
            reason: draft.end.reason.clone(),
            started: draft.started,
            ended: draft.ended,
            boot: self.boot_span(&key),
            working_ms: draft.working_ms,
            checkpoint: None,
            steps: draft.steps.clone(),
            plan: draft.plan.clone(),
        };
        self.seal_report(report, request_ends)
    }

    /// Puts a report at the end of the chain: numbered, signed, stored and journaled.
    fn seal_report(&mut self, mut report: Report, request_ends: Timestamp) -> Result<(), String> {
        let chain = self.parts.state.get();
        // Where a new chain begins its number is the time in milliseconds: above all that an older one had, also when
        // nobody here knows those any more (docs/adr/0014).
        let begins = self.chain_break.as_ref().map(|_| self.now().as_millis().unsigned_abs());
        report.sequence = (chain.report_sequence + 1).max(begins.unwrap_or(0));
        report.previous = chain.report_previous.filter(|_| begins.is_none());
        report.new_chain.clone_from(&self.chain_break);
        let key = self.parts.report_key.as_ref().ok_or("the node's report key is missing")?;
        let payload = fit(&mut report);
        let digest = Digest::of(&payload);
        let signature = key.sign(Kind::Report, self.parts.node.fleet, digest);
        self.parts.reports.store(digest, &StoredReport { payload, signature }).map_err(|e| e.to_string())?;
        let finished = Finished {
            run: report.job.run,
            stage: report.job.stage,
            attempt: report.attempt,
            authority: report.authority,
            report: digest,
            sequence: report.sequence,
            outcome: report.outcome,
            cause: report.cause,
            reason: report.reason,
            at: report.ended,
            request_ends,
        };
        let sequence = report.sequence;
        self.record(&Entry::Finished(Box::new(finished))).map_err(|e| chain_of(&e))?;
        self.chain_break = None;
        // The journal is the truth of the chain; this is its shadow for the day the journal is lost.
        if let Err(error) = self.parts.state.raise_report(sequence, digest) {
            tracing::warn!(%error, "the report chain's shadow cannot be written");
        }
        Ok(())
    }

    /// After a break of the chain: reports that nobody has acknowledged come again in the new one, because the
    /// controller takes none behind a gap.
    pub(super) fn report_again(&mut self) {
        for finished in self.unsent() {
            let report = self.report_of(&finished).unwrap_or_else(|| self.report_anew(&finished));
            if let Err(error) = self.seal_report(report, finished.request_ends) {
                tracing::error!(error, "a report cannot be put into the new chain");
            }
        }
    }

    /// Makes reports anew that nobody has acknowledged and whose file is gone: without them the controller would take
    /// none of those behind them. Only with a new chain, which an operator sees.
    pub(super) fn mend_reports(&mut self) {
        let is_lost = |finished: &&Finished| self.report_of(finished).is_none();
        let Some(lost) = self.unsent().iter().find(is_lost).cloned() else { return };
        let why = format!("the stored report of run {} is gone or damaged", lost.run);
        tracing::error!("{why}: it is made anew from the journal");
        self.chain_break.get_or_insert(why);
        self.report_again();
    }

    /// The ends that nobody has acknowledged, in the order of their reports.
    fn unsent(&self) -> Vec<Finished> {
        let unsent = self.parts.table.iter().filter(|(_, job)| job.is_unacknowledged());
        let mut unsent: Vec<Finished> = unsent.filter_map(|(_, job)| job.finished.clone()).collect();
        unsent.sort_unstable_by_key(|finished| finished.sequence);
        unsent
    }

    pub(super) fn report_of(&self, finished: &Finished) -> Option<Report> {
        canonical::from_slice(&self.parts.reports.load(finished.report)?.payload).ok()
    }

    /// What the journal still knows of a job whose report is lost.
    fn report_anew(&self, finished: &Finished) -> Report {
        let key = (finished.run, finished.attempt);
        let accepted = self.parts.table.get(&key).and_then(|job| job.accepted.as_ref());
        Report {
            schema: REPORT_SCHEMA.to_owned(),
            job: JobId { run: finished.run, node: self.parts.node.node, stage: finished.stage },
            attempt: finished.attempt,
            authority: finished.authority,
            sequence: 0,
            previous: None,
            new_chain: None,
            outcome: finished.outcome,
            cause: finished.cause,
            reason: format!("{}; its steps' reports were lost on the node", finished.reason),
            started: accepted.map_or(finished.at, |accepted| accepted.started),
            ended: finished.at,
            boot: self.boot_span(&key),
            working_ms: 0,
            checkpoint: None,
            steps: Vec::new(),
            plan: None,
        }
    }

    /// Start and end of a job that ends now, on boot time.
    fn boot_span(&self, key: &JobKey) -> BootSpan {
        let (id, ended_ms) = (self.parts.host.clock().boot_id(), self.boot_ms());
        let started_ms = match self.parts.table.get(key).and_then(|job| job.accepted.as_ref()) {
            Some(accepted) => (accepted.boot_id == id).then_some(accepted.boot_ms),
            // Refused before it was accepted: it started and ended at once.
            None => Some(ended_ms),
        };
        BootSpan { id, started_ms, ended_ms }
    }

    /// Tries again to write what could not be written.
    pub(super) fn write_unwritten(&mut self) {
        for (key, draft) in std::mem::take(&mut self.unwritten) {
            self.finish_accepted(key, draft);
        }
    }

    /// Ends a job that was accepted.
    pub(super) fn finish_accepted(&mut self, key: JobKey, draft: Draft) {
        let accepted = self.parts.table.get(&key).and_then(|job| job.accepted.as_ref());
        let Some((assignment, ends)) = accepted.map(|a| (a.assignment.clone(), a.request_ends)) else {
            return;
        };
        self.finish(key, &assignment, ends, draft);
    }
}
