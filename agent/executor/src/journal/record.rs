//! What is known of one job, built up entry by entry.
//!
//! Pure. The same `apply` serves replay at start and every entry afterwards, so that a restarted executor
//! knows what the one before it knew. Called by the table, the dispatcher and runs.

use std::collections::BTreeSet;

use fleet_types::id::{Attempt, RunId, Stage};
use fleet_types::job::{EndCause, JobState, Outcome};
use fleet_types::report::StepReport;
use fleet_types::time::Timestamp;

use super::entry::{Accepted, BootTime, Entry, Finished};

/// Names one attempt of a job on this node.
pub type JobKey = (RunId, Attempt);

/// What is known of one step, undo entry or final entry.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRecord {
    /// Its id.
    pub id: String,
    /// Number of the newest try.
    pub try_number: u32,
    /// What its undo needs: as noted before the first try, because later ones may have seen its effects.
    pub undo: serde_json::Value,
    /// When its first try began.
    pub began: Timestamp,
    /// The same on boot time.
    pub began_boot: Option<BootTime>,
    /// The boot in which it last had the machine restarted.
    pub restarted_from: Option<String>,
    /// What it said at its end.
    pub report: Option<StepReport>,
}

/// What is known of one job.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobRecord {
    /// Its acceptance.
    pub accepted: Option<Accepted>,
    /// Its steps in the order in which they began or were passed over.
    pub steps: Vec<StepRecord>,
    /// Why it was cancelled, if it was.
    pub cancelled: Option<String>,
    /// When it was cancelled or given up.
    pub stopped_at: Option<Timestamp>,
    /// Its end.
    pub finished: Option<Finished>,
    /// Has the controller stored the report?
    pub acked: bool,
    /// Was it given up before anything began?
    pub abandoned: bool,
}

impl JobRecord {
    /// Takes one entry in.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Accepted(accepted) => self.accepted = Some(accepted.as_ref().clone()),
            Entry::StepBegin { step, try_number, undo, at, boot, .. } => {
                if let Some(known) = self.steps.iter_mut().find(|known| known.id == *step) {
                    known.try_number = *try_number;
                } else {
                    self.steps.push(StepRecord {
                        id: step.clone(),
                        try_number: *try_number,
                        undo: undo.clone(),
                        began: *at,
                        began_boot: boot.clone(),
                        restarted_from: None,
                        report: None,
                    });
                }
            }
            Entry::StepEnd { report, .. } => {
                if let Some(known) = self.steps.iter_mut().find(|known| known.id == report.id) {
                    known.report = Some(report.as_ref().clone());
                } else {
                    // Passed over without a begin: `when` was false.
                    self.steps.push(StepRecord {
                        id: report.id.clone(),
                        try_number: 0,
                        undo: serde_json::Value::Null,
                        began: report.started.unwrap_or(Timestamp::clamped(0)),
                        began_boot: None,
                        restarted_from: None,
                        report: Some(report.as_ref().clone()),
                    });
                }
            }
            Entry::Finished(finished) => {
                self.finished = Some(finished.as_ref().clone());
                // The report holds them; memory need not.
                self.steps = Vec::new();
            }
            Entry::Acked { .. } => self.acked = true,
            Entry::Abandoned { at, .. } => {
                self.abandoned = true;
                self.stopped_at = Some(*at);
            }
            Entry::Tombstone { reason, at, .. } => {
                self.cancelled = Some(reason.clone());
                self.stopped_at = Some(*at);
            }
            Entry::RebootRequested { step, boot_id, .. } => {
                if let Some(known) = self.steps.iter_mut().find(|known| known.id == *step) {
                    known.restarted_from = Some(boot_id.clone());
                }
            }
            Entry::GuardArmed { .. } | Entry::Applied { .. } | Entry::Confirmed { .. } => {}
        }
    }

    /// The stage that it is of; none is known of a job that was cancelled before it came.
    pub fn stage(&self) -> Option<Stage> {
        let accepted = self.accepted.as_ref().map(|accepted| accepted.assignment.job.stage);
        accepted.or_else(|| self.finished.as_ref().map(|finished| finished.stage))
    }

    /// Was it accepted, and has it neither ended nor been given up? An acknowledgement says that it ended, also
    /// where the entry of its end was lost with a damaged part of the journal.
    pub const fn is_open(&self) -> bool {
        self.accepted.is_some() && self.finished.is_none() && !self.abandoned && !self.acked
    }

    /// Did it end, without the controller having said that it stored the report?
    pub const fn is_unacknowledged(&self) -> bool {
        self.finished.is_some() && !self.acked
    }

    /// The state, as far as entries tell it.
    pub fn state(&self) -> JobState {
        if let Some(finished) = &self.finished {
            let Finished { outcome, cause, reason, .. } = finished.clone();
            return JobState::Ended { outcome, cause, reason };
        }
        if self.acked {
            let reason = "its report was acknowledged; how it ended is lost with a part of the journal";
            let cause = Some(EndCause::OutcomeUnknown);
            return JobState::Ended { outcome: Outcome::Failed, cause, reason: reason.to_owned() };
        }
        if self.accepted.is_none() || self.abandoned {
            let reason = self.cancelled.clone().unwrap_or_else(|| "given up before it began".to_owned());
            return JobState::ended(Outcome::Cancelled, reason);
        }
        match self.steps.iter().rev().find(|step| step.report.is_none()) {
            Some(step) => JobState::Running { step: step.id.clone(), since: step.began },
            None => JobState::Accepted,
        }
    }

    /// The step with this id.
    pub fn step(&self, id: &str) -> Option<&StepRecord> {
        self.steps.iter().find(|step| step.id == id)
    }

    /// The steps of which a try began.
    pub fn begun(&self) -> BTreeSet<String> {
        self.steps.iter().filter(|step| step.try_number > 0).map(|step| step.id.clone()).collect()
    }

    /// Did a try of this step begin? Passed over is not begun.
    pub fn began(&self, id: &str) -> bool {
        self.step(id).is_some_and(|step| step.try_number > 0)
    }
}
