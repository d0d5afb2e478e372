//! The life of one run on its own thread: forward through the steps, then the saga's part, then the end.
//!
//! What is journaled decides: after a restart the same code takes the recorded ends instead of doing the
//! steps again, and reaches the same place. Made by the dispatcher from admitted work only.

use std::sync::Arc;
use std::time::Duration;

use fleet_types::document::procedure::OnFailure;
use fleet_types::job::{JobState, Outcome};
use fleet_types::report::{StepReport, StepState, TaskReport};
use fleet_types::request::Verb;
use fleet_types::time::Timestamp;
use tokio::sync::mpsc;

use super::draft::{Draft, Ending, RunEvent};
use super::output::OutputHub;
use super::step::Act;
use super::task_thread::Abandoned;
use crate::host::Host;
use crate::identity::NodeIdentity;
use crate::journal::{Accepted, Entry, JobKey, JobRecord, Journal, JournalError};
use crate::policy::{Admitted, OwnersPolicy};
use crate::resolve::ResolvedStep;
use crate::tasks::{CancelFlag, StepIdentity};

/// What runs share.
#[derive(Clone)]
pub struct RunSurroundings {
    /// The machine.
    pub host: Arc<dyn Host>,
    /// The journal.
    pub journal: Arc<Journal>,
    /// This node.
    pub node: NodeIdentity,
    /// Output of tasks.
    pub output: Arc<OutputHub>,
    /// To the dispatcher, which always takes.
    pub events: mpsc::Sender<RunEvent>,
    /// Threads left behind.
    pub abandoned: Abandoned,
    /// How long after its deadline a task may still answer.
    pub overrun_grace: Duration,
    /// Set when the executor stops: runs end between steps.
    pub suspend: CancelFlag,
    /// Asked before each step that changes the node.
    pub policy: OwnersPolicy,
}

/// One job to carry out.
#[derive(Debug)]
pub struct Work {
    /// Its acceptance.
    pub accepted: Accepted,
    /// What was admitted.
    pub admitted: Admitted,
    /// What the journal knows of it: nothing for a new job.
    pub record: JobRecord,
    /// Its cancel.
    pub cancel: CancelFlag,
}

/// A run under way.
pub struct Run {
    pub(super) key: JobKey,
    pub(super) surroundings: RunSurroundings,
    pub(super) admitted: Arc<Admitted>,
    pub(super) record: JobRecord,
    pub(super) cancel: CancelFlag,
    pub(super) rolling_back: bool,
    pub(super) reports: Vec<StepReport>,
    on_way_out: bool,
    started: Timestamp,
}

/// Where the forward way led.
pub(super) enum Forward {
    /// Through all steps; did any warn?
    Through { warned: bool },
    /// A step failed.
    Failed { reason: String, roll_back: bool },
    /// Cancelled between steps.
    Cancelled,
    /// The executor stops.
    Suspended,
}

impl Run {
    /// A run of this work.
    pub fn new(work: Work, surroundings: RunSurroundings) -> Self {
        Self {
            key: (work.accepted.assignment.job.run, work.accepted.assignment.attempt),
            surroundings,
            admitted: Arc::new(work.admitted),
            record: work.record,
            cancel: work.cancel,
            rolling_back: false,
            reports: Vec::new(),
            on_way_out: false,
            started: work.accepted.started,
        }
    }

    /// Carries the job out; called on the run's own thread.
    pub fn carry_out(mut self) {
        let ending = match self.run() {
            Ok(Some(draft)) => Ending::Finished(Box::new(draft)),
            Ok(None) => Ending::Suspended,
            Err(error) => {
                tracing::error!(%error, run = %self.key.0, "the run stops: its journal cannot be written");
                Ending::Silenced
            }
        };
        // The dispatcher is gone only when the executor is.
        let _ = self.surroundings.events.blocking_send(RunEvent::Ended(self.key, ending));
    }

    fn run(&mut self) -> Result<Option<Draft>, JournalError> {
        if self.admitted.verb() == Verb::Plan {
            return Ok(Some(self.plan()));
        }
        let forward = self.forward()?;
        self.on_way_out = true;
        let (mut outcome, mut reason) = match forward {
            Forward::Suspended => return Ok(None),
            Forward::Through { warned: false } => (Outcome::Succeeded, "every step succeeded".to_owned()),
            Forward::Through { warned: true } => self.with_warnings("a step failed that may fail"),
            Forward::Cancelled => (Outcome::Cancelled, "an operator cancelled it".to_owned()),
            Forward::Failed { reason, roll_back: false } => (Outcome::Failed, reason),
            Forward::Failed { reason, roll_back: true } => match self.roll_back()? {
                Some(rolled) => rolled.told(&reason),
                None => return Ok(None),
            },
        };
        match self.finally(outcome)? {
            None => return Ok(None),
            Some(None) => {}
            Some(Some(failed)) if outcome == Outcome::Succeeded => {
                (outcome, reason) = self.with_warnings(&failed);
            }
            Some(Some(failed)) => reason = format!("{reason}; {failed}"),
        }
        Ok(Some(self.draft(outcome, reason)))
    }

    fn with_warnings(&self, why: &str) -> (Outcome, String) {
        let strict = self.admitted.resolution().procedure.fail_if_warnings;
        let outcome = if strict { Outcome::Failed } else { Outcome::SucceededWithWarnings };
        (outcome, why.to_owned())
    }

    pub(super) fn draft(&mut self, outcome: Outcome, reason: String) -> Draft {
        let steps = std::mem::take(&mut self.reports);
        Draft {
            outcome,
            reason,
            started: self.started,
            ended: self.now(),
            working_ms: steps.iter().map(|step| step.took_ms).sum(),
            steps,
            plan: None,
        }
    }

    fn forward(&mut self) -> Result<Forward, JournalError> {
        let admitted = Arc::clone(&self.admitted);
        let steps = &admitted.resolution().steps;
        let mut warned = false;
        for (index, step) in steps.iter().enumerate() {
            let report = match self.record.step(&step.id).and_then(|known| known.report.clone()) {
                Some(recorded) => recorded,
                None if self.is_cancelled() => {
                    self.pass_over(&steps[index..], "not run: cancelled");
                    return Ok(Forward::Cancelled);
                }
                None if self.surroundings.suspend.is_cancelled() => return Ok(Forward::Suspended),
                None => self.forward_step(step)?,
            };
            let state = report.state;
            let reason = format!("{} (step {})", report.body.summary, report.id);
            let unknown = report.body.summary.starts_with("outcome_unknown");
            self.reports.push(report);
            match state {
                StepState::Warned => warned = true,
                StepState::Skipped if self.is_cancelled() && step.skipped.is_none() => {
                    self.pass_over(&steps[index + 1..], "not run: cancelled");
                    return Ok(Forward::Cancelled);
                }
                StepState::Succeeded | StepState::Skipped => {}
                StepState::Failed => {
                    self.pass_over(&steps[index + 1..], "not run: an earlier step failed");
                    // Undoing on top of an unknown effect could do harm; a person probes first.
                    let roll_back = step.on_failure == OnFailure::Rollback && !unknown;
                    return Ok(Forward::Failed { reason, roll_back });
                }
            }
        }
        Ok(Forward::Through { warned })
    }

    fn forward_step(&mut self, step: &ResolvedStep) -> Result<StepReport, JournalError> {
        if let Some(why) = &step.skipped {
            // Journaled, so that facts which change later do not wake a step that was passed over.
            return self.end_step(unrun(step, StepState::Skipped, why));
        }
        let left = self.time_left();
        if left.is_zero() {
            let why = "timeout: the procedure's working time is over";
            return self.end_step(unrun(step, StepState::Failed, why));
        }
        // One that has begun goes on: its program may be running.
        if step.effects.changes
            && !self.record.began(&step.id)
            && let Some(refusal) = self.surroundings.policy.against(step)
        {
            return self.end_step(unrun(step, StepState::Failed, &refusal.reason()));
        }
        self.carry_step(step, Act::Forward, step.time_limit.min(left))
    }

    /// Working time that the procedure has left; of work before a restart its ended steps count.
    fn time_left(&self) -> Duration {
        let used = Duration::from_millis(self.reports.iter().map(|report| report.took_ms).sum());
        self.admitted.resolution().procedure.timeout.length().saturating_sub(used)
    }

    fn pass_over(&mut self, steps: &[ResolvedStep], why: &str) {
        self.reports.extend(steps.iter().map(|step| unrun(step, StepState::Skipped, why)));
    }

    pub(super) fn journal(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.surroundings.journal.append(entry)?;
        self.record.apply(entry);
        Ok(())
    }

    pub(super) fn tell(&self, state: JobState) {
        // Progress is dropped before it makes a step wait for a core that does not read.
        let _ = self.surroundings.events.try_send(RunEvent::Progress(self.key, state));
    }

    pub(super) fn now(&self) -> Timestamp {
        self.surroundings.host.clock().now()
    }

    pub(super) fn since_boot(&self) -> Duration {
        self.surroundings.host.clock().since_boot()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Past the forward way: what runs now is not stopped by a cancel.
    pub(super) const fn is_on_way_out(&self) -> bool {
        self.on_way_out
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_cancelled() || self.surroundings.suspend.is_cancelled()
    }

    pub(super) fn identity(&self, step: &str, try_number: u32) -> StepIdentity {
        let node = &self.surroundings.node;
        StepIdentity {
            run: self.key.0,
            node: node.node,
            node_name: node.name.clone(),
            labels: node.labels.clone(),
            attempt: self.key.1,
            step: step.to_owned(),
            try_number,
            job_started: self.started,
        }
    }
}

/// The report of a step that did not begin.
pub(super) fn unrun(step: &ResolvedStep, state: StepState, why: &str) -> StepReport {
    StepReport {
        id: step.id.clone(),
        title: step.title.clone(),
        action: step.action.clone(),
        state,
        started: None,
        took_ms: 0,
        tries: 0,
        output: None,
        body: TaskReport { summary: why.to_owned(), ..TaskReport::default() },
    }
}
