//! The way back and the end: rollback entries or stored undos, then what always runs last.
//!
//! Never refused and never cancelled once begun; stopped between entries only when the executor stops, and
//! taken up again by the next one (security-and-delivery §1.17). Part of a run.

use std::collections::BTreeSet;
use std::slice;
use std::sync::Arc;

use fleet_types::document::procedure::Outcome as Named;
use fleet_types::job::{EndCause, Outcome};
use fleet_types::report::StepState;

use super::draft::End;
use super::life::Run;
use super::limits;
use super::step::Act;
use crate::host::Living;
use crate::journal::JournalError;
use crate::resolve::{Resolution, ResolvedStep};
use crate::tasks::Reversal;

/// Why an entry is passed over.
const LEFT_BEHIND: &str = "not run: a task that overran its limit may still be changing the node";

/// How the way back went.
#[derive(Default)]
pub(super) struct RollbackResult {
    /// Entries that failed or did not run.
    failed: Vec<String>,
    /// Does nobody know what one of them did?
    unknown: bool,
    /// Entries that did what they should.
    undone: usize,
    /// Steps that began a change which nothing undid.
    left: Vec<String>,
}

impl RollbackResult {
    /// The job's end, given why it went back.
    pub(super) fn into_end(self, why: &End) -> End {
        let mut reason = why.reason.clone();
        if self.undone > 0 {
            reason = format!("{reason}; {} undone", self.undone);
        }
        if !self.failed.is_empty() {
            reason = format!("{reason}; could not be undone: {}", self.failed.join(", "));
        }
        if !self.left.is_empty() {
            reason = format!("{reason}; nothing undoes: {}", self.left.join(", "));
        }
        let (outcome, cause) = match (self.failed.is_empty(), self.left.is_empty()) {
            (false, _) if self.unknown => (Outcome::RollbackFailed, EndCause::OutcomeUnknown),
            (false, _) => (Outcome::RollbackFailed, EndCause::StepFailed),
            (true, false) => (Outcome::Failed, EndCause::NotUndone),
            (true, true) if self.undone > 0 => {
                (Outcome::RolledBack, why.cause.unwrap_or(EndCause::StepFailed))
            }
            // Nothing had changed, so nothing was rolled back.
            (true, true) => (Outcome::Failed, why.cause.unwrap_or(EndCause::StepFailed)),
        };
        End::new(outcome, Some(cause), reason)
    }
}

impl Run {
    /// Undoes what began; none when the executor stops half-way.
    pub(super) fn roll_back(&mut self) -> Result<Option<RollbackResult>, JournalError> {
        self.rolling_back = true;
        let admitted = Arc::clone(&self.admitted);
        let resolution = admitted.resolution();
        let mut undone = self.undone_by_guard();
        let mut rolled = RollbackResult { undone: undone.len(), ..RollbackResult::default() };
        let entries = self.way_back(resolution);
        for (index, (entry, undo)) in entries.iter().enumerate() {
            let ahead = limits::entries(entries[index..].iter().map(|(entry, _)| entry), self.grace());
            self.enter(entry, ahead, self.shares().finals);
            // What can be undone is undone all the same.
            if self.record.step(&entry.id).is_none_or(|known| known.report.is_none())
                && let Err(fault) = self.stop_again(entry, entry.time_limit)
            {
                rolled.failed.push(fault.message);
            }
            let act = undo.as_ref().map_or(Act::Compensation, Act::Revert);
            match self.run_compensation(entry, act)? {
                None => return Ok(None),
                Some(StepState::Succeeded) => {
                    rolled.undone += 1;
                    undone.extend(entry.undoes.iter().cloned());
                }
                // The others are undone all the same: each is one thing less for a person.
                Some(_) => {
                    rolled.failed.push(entry.id.clone());
                    let cause = self.reports.last().and_then(|report| report.cause);
                    rolled.unknown |= cause == Some(EndCause::OutcomeUnknown);
                }
            }
        }
        rolled.left = self.left_changed(&undone);
        Ok(Some(rolled))
    }

    /// The steps that began a change which nothing undid.
    fn left_changed(&self, undone: &BTreeSet<String>) -> Vec<String> {
        let steps = self.admitted.resolution().steps.iter();
        let left = steps.filter(|step| self.changed(step) && !undone.contains(&step.id));
        left.map(|step| step.id.clone()).collect()
    }

    /// The end of a job that does not go back: where the guard has put everything back that it changed, it is rolled back
    /// all the same.
    pub(super) fn after_guard(&self, end: End) -> End {
        let undone = self.undone_by_guard();
        if undone.is_empty() || !self.left_changed(&undone).is_empty() {
            return end;
        }
        RollbackResult { undone: undone.len(), ..RollbackResult::default() }.into_end(&end)
    }

    /// What undoes this job: its rollback entries as written, else the stored undos in reverse.
    fn way_back(&self, resolution: &Resolution) -> Vec<(ResolvedStep, Option<serde_json::Value>)> {
        if !resolution.procedure.rollback.is_empty() {
            let wanted = resolution.rollback.iter().filter(|entry| self.any_began(entry));
            return wanted.map(|entry| (entry.clone(), None)).collect();
        }
        let stored = resolution.steps.iter().rev().filter_map(|step| {
            let noted = self.record.step(&step.id).filter(|known| known.try_number > 0)?;
            let is_for_guard = step.reversal() == Reversal::GuardOnly;
            if noted.undo.is_null() || is_for_guard || step.task.is_none() || self.guard_undid(&step.id) {
                return None;
            }
            let mut entry = step.clone();
            entry.id = format!("undo:{}", step.id);
            entry.title = format!("Undo: {}", step.title);
            entry.undoes = vec![step.id.clone()];
            Some((entry, Some(noted.undo.clone())))
        });
        stored.collect()
    }

    /// Did this step begin a change that does not stay on purpose?
    fn changed(&self, step: &ResolvedStep) -> bool {
        self.record.began(&step.id) && step.effects.changes && step.reversal() != Reversal::Stays
    }

    /// Runs the final entries. `None`: the executor stops; `Some(Some)`: some failed, in words.
    #[allow(clippy::option_option)] // the two questions are asked by one caller, in this order
    pub(super) fn finally(&mut self, outcome: Outcome) -> Result<Option<Option<String>>, JournalError> {
        self.rolling_back = false;
        let admitted = Arc::clone(&self.admitted);
        let mut failed = Vec::new();
        let entries = &admitted.resolution().finally;
        for (index, entry) in entries.iter().enumerate() {
            let wanted = entry.undoes.is_empty() || self.any_began(entry);
            if !wanted || entry.except.iter().any(|except| named(*except) == outcome) {
                continue;
            }
            let ahead = limits::entries(&entries[index..], self.grace());
            self.enter(entry, ahead, std::time::Duration::ZERO);
            match self.run_compensation(entry, Act::Compensation)? {
                None => return Ok(None),
                Some(StepState::Succeeded) => {}
                Some(StepState::Skipped) => failed.push(format!("{} (not run)", entry.id)),
                Some(_) => failed.push(entry.id.clone()),
            }
        }
        Ok(Some((!failed.is_empty()).then(|| format!("final steps failed: {}", failed.join(", ")))))
    }

    fn any_began(&self, entry: &ResolvedStep) -> bool {
        entry.undoes.iter().any(|step| self.record.began(step))
    }

    /// May a step of this job that overran its limit still be changing the node? Its thread is known while this process
    /// lives, its program for as long as it lives.
    fn is_left_behind(&self, entry: &ResolvedStep) -> bool {
        let (run, attempt) = self.key;
        let of_entry = |program: &Living| program.is_of(attempt, &entry.id);
        let programs = self.surroundings.host.processes().living();
        self.surroundings.abandoned.changing().is_some()
            || programs.iter().any(|program| program.run == run && !of_entry(program))
    }

    /// One entry: its recorded end, or carried out now. None when the executor stops. Nothing that changes the
    /// node runs beside a task that may still do so.
    fn run_compensation(
        &mut self,
        entry: &ResolvedStep,
        act: Act<'_>,
    ) -> Result<Option<StepState>, JournalError> {
        let report = match self.record.step(&entry.id).and_then(|known| known.report.clone()) {
            Some(recorded) => recorded,
            None if self.surroundings.suspend.is_cancelled() => return Ok(None),
            None if entry.effects.changes && self.is_left_behind(entry) => {
                self.pass_over(slice::from_ref(entry), LEFT_BEHIND);
                return Ok(Some(StepState::Skipped));
            }
            None => match self.carry_step(entry, act, entry.time_limit)? {
                Some(report) => report,
                None => return Ok(None),
            },
        };
        let state = report.state;
        self.reports.push(report);
        Ok(Some(state))
    }
}

const fn named(outcome: Named) -> Outcome {
    match outcome {
        Named::Succeeded => Outcome::Succeeded,
        Named::SucceededWithWarnings => Outcome::SucceededWithWarnings,
        Named::Failed => Outcome::Failed,
        Named::RolledBack => Outcome::RolledBack,
        Named::RollbackFailed => Outcome::RollbackFailed,
        Named::Cancelled => Outcome::Cancelled,
    }
}
