//! The life of one run on its own thread: forward through the steps, then the saga's part, then the end.
//!
//! What is journaled decides: after a restart the same code takes the recorded ends instead of doing the
//! steps again, and reaches the same place. Made by the dispatcher from admitted work only.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use fleet_types::document::procedure::OnFailure;
use fleet_types::job::{EndCause, JobState, Outcome};
use fleet_types::report::{StepReport, StepState, TaskReport};
use fleet_types::request::Verb;
use fleet_types::time::Timestamp;
use tokio::sync::mpsc;

use super::draft::{Draft, End, Ending, RunEvent};
use super::limits::{Deadlines, Shares};
use super::output::OutputHub;
use super::path::PathDesk;
use super::step::Act;
use super::task_thread::Abandoned;
use crate::guard::Keeper;
use crate::host::Host;
use crate::identity::NodeIdentity;
use crate::journal::{Accepted, Entry, JobKey, JobRecord, Journal, JournalError};
use crate::policy::{Admitted, OwnersPolicy, package_rules};
use crate::resolve::ResolvedStep;
use crate::tasks::{CancelFlag, JobView, NotedUndo, StepIdentity};

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
    /// Asked before each step.
    pub policy: OwnersPolicy,
    /// Guards of changes that can cut the node off.
    pub guard: Keeper,
    /// Where the core is asked for the way to a controller.
    pub paths: PathDesk,
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
    /// Says to the guard of the step under way that this run is there.
    pub(super) at_work: Option<File>,
    on_way_out: bool,
    /// Was looked for what a start of the machine brought up?
    pub(super) stopped_again: bool,
    shares: Shares,
    deadlines: Deadlines,
    started: Timestamp,
}

/// Where the forward way led.
pub(super) enum Forward {
    /// Through all steps; these failed and may.
    Through { warned: Vec<String> },
    /// A step failed.
    Failed { end: End, roll_back: bool },
    /// Cancelled between steps.
    Cancelled,
    /// The executor stops.
    Suspended,
}

impl Run {
    /// A run of this work.
    pub fn new(work: Work, surroundings: RunSurroundings) -> Self {
        let shares = Shares::of(&work.admitted, surroundings.overrun_grace);
        let now = surroundings.host.clock().since_boot();
        Self {
            shares,
            deadlines: Deadlines { phase: now + shares.forward, job: now + shares.total() },
            key: (work.accepted.assignment.job.run, work.accepted.assignment.attempt),
            surroundings,
            admitted: Arc::new(work.admitted),
            record: work.record,
            cancel: work.cancel,
            rolling_back: false,
            reports: Vec::new(),
            at_work: None,
            on_way_out: false,
            stopped_again: false,
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
        let mut end = match forward {
            Forward::Suspended => return Ok(None),
            Forward::Through { warned } if warned.is_empty() => {
                End::plain(Outcome::Succeeded, "every step succeeded")
            }
            Forward::Through { warned } => {
                self.with_warnings(&format!("failed with on_failure = \"warn\": {}", warned.join(", ")))
            }
            Forward::Cancelled => {
                End::new(Outcome::Cancelled, Some(EndCause::Cancelled), "an operator cancelled it")
            }
            Forward::Failed { end, roll_back: false } => self.after_guard(end),
            Forward::Failed { end, roll_back: true } => match self.roll_back()? {
                Some(rolled) => rolled.into_end(&end),
                None => return Ok(None),
            },
        };
        match self.finally(end.outcome)? {
            None => return Ok(None),
            Some(None) => {}
            Some(Some(failed)) if end.outcome == Outcome::Succeeded => end = self.with_warnings(&failed),
            Some(Some(failed)) => end.reason = format!("{}; {failed}", end.reason),
        }
        Ok(Some(self.draft(end)))
    }

    fn with_warnings(&self, why: &str) -> End {
        let strict = self.admitted.resolution().procedure.fail_if_warnings;
        let outcome = if strict { Outcome::Failed } else { Outcome::SucceededWithWarnings };
        End::new(outcome, Some(EndCause::StepFailed), why)
    }

    pub(super) fn draft(&mut self, end: End) -> Draft {
        let steps = std::mem::take(&mut self.reports);
        Draft {
            end,
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
        let mut warned = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            let report = match self.record.step(&step.id).and_then(|known| known.report.clone()) {
                Some(recorded) => {
                    self.let_go(step);
                    recorded
                }
                None if self.is_cancelled() && !self.record.began(&step.id) => {
                    self.pass_over(&steps[index..], "not run: cancelled");
                    return Ok(Forward::Cancelled);
                }
                None if self.surroundings.suspend.is_cancelled() => return Ok(Forward::Suspended),
                None => match self.forward_step(step)? {
                    Some(report) => report,
                    None => return Ok(Forward::Suspended),
                },
            };
            let (state, cause) = (report.state, report.cause);
            let reason = format!("{} (step {})", report.body.summary, report.id);
            self.reports.push(report);
            self.reports.extend(self.guard_reports(&step.id));
            match (state, cause) {
                (StepState::Warned, _) => warned.push(step.id.clone()),
                // It had not begun, or had only read: nothing of it is left.
                (StepState::Skipped, Some(EndCause::Cancelled)) => {
                    self.pass_over(&steps[index + 1..], "not run: cancelled");
                    return Ok(Forward::Cancelled);
                }
                (StepState::Failed, Some(EndCause::Cancelled)) if !step.effects.changes => {
                    self.pass_over(&steps[index + 1..], "not run: cancelled");
                    return Ok(Forward::Cancelled);
                }
                (StepState::Succeeded | StepState::Skipped, _) => {}
                (StepState::Failed, cause) => {
                    self.pass_over(&steps[index + 1..], "not run: an earlier step failed");
                    // Undoing on top of an unknown effect could do harm; a person probes first.
                    let unknown = cause == Some(EndCause::OutcomeUnknown);
                    let roll_back = step.on_failure == OnFailure::Rollback && !unknown;
                    let cause = cause.or(Some(EndCause::StepFailed));
                    return Ok(Forward::Failed { end: End::new(Outcome::Failed, cause, reason), roll_back });
                }
            }
        }
        Ok(Forward::Through { warned })
    }

    /// One step; none when the executor stops while the step's change waits to be confirmed.
    fn forward_step(&mut self, step: &ResolvedStep) -> Result<Option<StepReport>, JournalError> {
        if let Some(why) = &step.skipped {
            // Journaled, so that facts which change later do not wake a step that was passed over.
            return self.end_step(unrun(step, StepState::Skipped, None, why)).map(Some);
        }
        let left = self.time_left();
        if left.is_zero() {
            let why = "the procedure's working time is over";
            return self.end_step(unrun(step, StepState::Failed, Some(EndCause::TimedOut), why)).map(Some);
        }
        self.enter(step, left + self.grace(), self.shares.way_back + self.shares.finals);
        let entered = self.since_boot();
        // One that has begun goes on: its program may be running.
        if !self.record.began(&step.id)
            && let Some((cause, why)) = self.against(step)
        {
            return self.end_step(unrun(step, StepState::Failed, Some(cause), &why)).map(Some);
        }
        // A guarded step that has begun in another boot is put back by its guard: it is waited for as ever.
        let is_guards = step.guard.is_some() && self.record.began(&step.id);
        if let Err(fault) = self.stop_again(step, step.time_limit.min(left))
            && !is_guards
        {
            return self
                .end_step(unrun(step, StepState::Failed, Some(fault.cause), &fault.message))
                .map(Some);
        }
        let left = left.saturating_sub(self.since_boot().saturating_sub(entered));
        self.carry_step(step, Act::Forward, step.time_limit.min(left))
    }

    /// Why a step may not begin: the owner's policy as it is now, the plan that the start is bound to, or no way by which
    /// it could be confirmed.
    fn against(&self, step: &ResolvedStep) -> Option<(EndCause, String)> {
        if let Some(refusal) = self.surroundings.policy.against(step) {
            return Some((EndCause::StepFailed, refusal.reason()));
        }
        if let Some(how) = self.differs_from_plan(step) {
            let why = format!("nothing was done: the node is not as it was planned: {how}");
            return Some((EndCause::PlanChanged, why));
        }
        Some((EndCause::Unconfirmed, self.no_way_home(step)?))
    }

    /// Working time that the procedure has left. A step counts for no more than its own limit and the grace: what it
    /// took beyond that was the machine being off.
    fn time_left(&self) -> Duration {
        let limit_of = |id: &str| {
            let steps = &self.admitted.resolution().steps;
            let of = |step: &ResolvedStep| step.time_limit + step.guard.unwrap_or_default();
            steps.iter().find(|step| step.id == id).map_or(Duration::ZERO, of)
        };
        let used = self
            .reports
            .iter()
            .map(|report| Duration::from_millis(report.took_ms).min(limit_of(&report.id) + self.grace()))
            .sum();
        self.admitted.resolution().procedure.timeout.length().saturating_sub(used)
    }

    /// Notes until when this phase, of which so much is left from the begin of `step`, and the job last.
    pub(super) fn enter(&mut self, step: &ResolvedStep, left: Duration, after: Duration) {
        let begun = self.record.step(&step.id).filter(|known| known.try_number > 0);
        let counted = begun.map_or(Duration::ZERO, |known| self.time_of(known).1);
        let phase = self.since_boot() + left.saturating_sub(counted);
        self.deadlines = Deadlines { phase, job: phase + after };
    }

    /// Gives the phase so much more from now, unless it lasts that long anyway.
    pub(super) fn extend(&mut self, left: Duration) {
        let more = (self.since_boot() + left).saturating_sub(self.deadlines.phase);
        self.deadlines.phase += more;
        self.deadlines.job += more;
    }

    pub(super) const fn shares(&self) -> Shares {
        self.shares
    }

    pub(super) const fn grace(&self) -> Duration {
        self.surroundings.overrun_grace
    }

    pub(super) fn pass_over(&mut self, steps: &[ResolvedStep], why: &str) {
        self.reports.extend(steps.iter().map(|step| unrun(step, StepState::Skipped, None, why)));
    }

    pub(super) fn journal(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.surroundings.journal.append(entry)?;
        self.record.apply(entry);
        Ok(())
    }

    pub(super) fn tell(&self, state: JobState) {
        // Progress is dropped before it makes a step wait for a core that does not read.
        let _ = self.surroundings.events.try_send(RunEvent::Progress(self.key, state, self.deadlines));
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

    /// What a task may know of this job.
    pub(super) fn job_view(&self, resumed: bool) -> JobView {
        let steps = &self.admitted.resolution().steps;
        let noted = self.record.steps.iter().filter(|known| known.try_number > 0 && !known.undo.is_null());
        let noted = noted.filter_map(|known| {
            let action = steps.iter().find(|step| step.id == known.id)?.action.clone();
            Some(NotedUndo { step: known.id.clone(), action, undo: known.undo.clone() })
        });
        let packages = package_rules(&self.surroundings.policy.now());
        JobView { noted: noted.collect(), resumed, packages, restarted_from: None }
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
pub(super) fn unrun(step: &ResolvedStep, state: StepState, cause: Option<EndCause>, why: &str) -> StepReport {
    StepReport {
        id: step.id.clone(),
        title: step.title.clone(),
        action: step.action.clone(),
        state,
        cause,
        started: None,
        took_ms: 0,
        tries: 0,
        output: None,
        output_kept: None,
        body: TaskReport { summary: why.to_owned(), ..TaskReport::default() },
    }
}
