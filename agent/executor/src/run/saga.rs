//! The way back and the end: rollback entries or stored undos, then what always runs last.
//!
//! Never refused and never cancelled once begun; stopped between entries only when the executor stops, and
//! taken up again by the next one (security-and-delivery §1.17). Part of a run.

use std::sync::Arc;

use fleet_types::document::procedure::Outcome as Named;
use fleet_types::job::Outcome;
use fleet_types::report::StepState;

use super::life::Run;
use super::step::Act;
use crate::journal::JournalError;
use crate::resolve::ResolvedStep;
use crate::tasks::Task;

/// How the way back went.
pub(super) struct RollbackResult {
    failed: Vec<String>,
    undone: usize,
}

impl RollbackResult {
    /// The job's outcome and reason, given why it went back.
    pub(super) fn told(self, why: &str) -> (Outcome, String) {
        if self.failed.is_empty() {
            (Outcome::RolledBack, format!("{why}; {} undone", self.undone))
        } else {
            (Outcome::RollbackFailed, format!("{why}; could not be undone: {}", self.failed.join(", ")))
        }
    }
}

impl Run {
    /// Undoes what began; none when the executor stops half-way.
    pub(super) fn roll_back(&mut self) -> Result<Option<RollbackResult>, JournalError> {
        self.rolling_back = true;
        let admitted = Arc::clone(&self.admitted);
        let resolution = admitted.resolution();
        let mut rolled = RollbackResult { failed: Vec::new(), undone: 0 };
        let mut entries: Vec<(ResolvedStep, Option<serde_json::Value>)> = Vec::new();
        if resolution.rollback.is_empty() && resolution.procedure.rollback.is_empty() {
            for step in resolution.steps.iter().rev() {
                let noted = self.record.step(&step.id).filter(|known| known.try_number > 0);
                let undo = noted.map(|known| known.undo.clone()).filter(|undo| !undo.is_null());
                if let (Some(undo), Some(Task::Change(_))) = (undo, step.task) {
                    let mut entry = step.clone();
                    entry.id = format!("undo:{}", step.id);
                    entry.title = format!("Undo: {}", step.title);
                    entries.push((entry, Some(undo)));
                }
            }
        } else {
            let wanted = resolution.rollback.iter().filter(|entry| self.any_began(entry));
            entries.extend(wanted.map(|entry| (entry.clone(), None)));
        }
        for (entry, undo) in &entries {
            let act = undo.as_ref().map_or(Act::Compensation, Act::Revert);
            match self.run_compensation(entry, act)? {
                None => return Ok(None),
                Some(true) => rolled.undone += 1,
                // The others are undone all the same: each is one thing less for a person.
                Some(false) => rolled.failed.push(entry.id.clone()),
            }
        }
        Ok(Some(rolled))
    }

    /// Runs the final entries. `None`: the executor stops; `Some(Some)`: some failed, in words.
    #[allow(clippy::option_option)] // the two questions are asked by one caller, in this order
    pub(super) fn finally(&mut self, outcome: Outcome) -> Result<Option<Option<String>>, JournalError> {
        self.rolling_back = false;
        let admitted = Arc::clone(&self.admitted);
        let mut failed = Vec::new();
        for entry in &admitted.resolution().finally {
            let wanted = entry.undoes.is_empty() || self.any_began(entry);
            if !wanted || entry.except.iter().any(|except| named(*except) == outcome) {
                continue;
            }
            match self.run_compensation(entry, Act::Compensation)? {
                None => return Ok(None),
                Some(true) => {}
                Some(false) => failed.push(entry.id.as_str()),
            }
        }
        Ok(Some((!failed.is_empty()).then(|| format!("final steps failed: {}", failed.join(", ")))))
    }

    fn any_began(&self, entry: &ResolvedStep) -> bool {
        entry.undoes.iter().any(|step| self.record.began(step))
    }

    /// One entry: its recorded end, or carried out now. None when the executor stops.
    fn run_compensation(&mut self, entry: &ResolvedStep, act: Act<'_>) -> Result<Option<bool>, JournalError> {
        let report = match self.record.step(&entry.id).and_then(|known| known.report.clone()) {
            Some(recorded) => recorded,
            None if self.surroundings.suspend.is_cancelled() => return Ok(None),
            None => self.carry_step(entry, act, entry.time_limit)?,
        };
        let good = report.state == StepState::Succeeded;
        self.reports.push(report);
        Ok(Some(good))
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
