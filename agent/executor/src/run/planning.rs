//! A run of verb `plan`: asks every task what it would do, and does nothing.
//!
//! Nothing is journaled between acceptance and end: after a restart it is simply done again. Part of a run.

use std::sync::Arc;
use std::time::Duration;

use fleet_types::job::{EndCause, JobState, Outcome};
use fleet_types::plan::NodePlan;
use fleet_types::report::{Change, StepReport, StepState, TaskReport};

use super::draft::{Draft, End, cut_parts};
use super::life::Run;
use super::task_thread::{Call, Called, call};
use crate::resolve::{ResolvedStep, node_plan};
use crate::tasks::{CancelFlag, Task, TaskError, TaskPlan};

/// Longest plan of one step: it reads listings, it does not walk the whole machine.
pub(super) const PLAN_LIMIT: Duration = Duration::from_mins(2);

impl Run {
    pub(super) fn plan(&mut self) -> Draft {
        let admitted = Arc::clone(&self.admitted);
        let resolution = admitted.resolution();
        let documents = self.record.accepted.as_ref().map(|a| (a.procedure, a.profile));
        // A run is made from an accepted job: both digests are there.
        let (procedure, profile) = documents.unwrap_or_else(|| {
            let none = fleet_types::digest::Digest::of(b"");
            (none, none)
        });
        let mut took = Vec::with_capacity(resolution.steps.len());
        let node = self.surroundings.node.node;
        let plan = node_plan(node, procedure, profile, resolution, admitted.against(), |step| {
            self.tell(JobState::Running { step: step.id.clone(), since: self.now() });
            let began = (self.now(), self.since_boot());
            let asked = self.ask(step);
            let printed = self.surroundings.output.end(self.key, &step.id);
            took.push((step.id.clone(), began.0, self.since_boot().saturating_sub(began.1), printed));
            asked
        });
        self.reports = plan
            .steps
            .iter()
            .map(|planned| {
                let timed = took.iter().find(|(id, ..)| *id == planned.id);
                let (output, output_kept) =
                    timed.map_or_else(Default::default, |(.., printed)| printed.clone());
                let mut body = TaskReport {
                    summary: planned.skipped.clone().unwrap_or_else(|| planned.summary.clone()),
                    changes: planned.changes.clone(),
                    ..TaskReport::default()
                };
                cut_parts(&mut body);
                StepReport {
                    id: planned.id.clone(),
                    title: planned.title.clone(),
                    action: planned.action.clone(),
                    state: if planned.skipped.is_some() { StepState::Skipped } else { StepState::Succeeded },
                    cause: None,
                    started: timed.map(|(_, at, ..)| *at),
                    took_ms: timed
                        .map_or(0, |(_, _, took, _)| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
                    tries: u32::from(timed.is_some()),
                    output,
                    output_kept,
                    body,
                }
            })
            .collect();
        let end = if self.is_cancelled() {
            End::new(Outcome::Cancelled, Some(EndCause::Cancelled), "an operator cancelled it")
        } else {
            verdict(&plan)
        };
        Draft { plan: Some(plan), ..self.draft(end) }
    }

    /// What keeps a step from being what its start is bound to; asked before it begins.
    pub(super) fn differs_from_plan(&self, step: &ResolvedStep) -> Option<String> {
        let plan = match self.admitted.bound()? {
            Ok(plan) => plan,
            Err(why) => return Some(why.clone()),
        };
        let Some(planned) = plan.steps.iter().find(|planned| planned.id == step.id) else {
            return Some("the plan does not have it".to_owned());
        };
        if planned.moves {
            return None;
        }
        // To its end, whoever stops the job meanwhile: what was not compared is not begun.
        match self.plan_of(step, CancelFlag::default()) {
            Ok(now) if now.changes == planned.changes => None,
            Ok(now) => Some(difference(&planned.changes, &now.changes)),
            Err(error) => Some(format!("it cannot be planned any more: {error}")),
        }
    }

    fn ask(&self, step: &ResolvedStep) -> Result<TaskPlan, TaskError> {
        if self.is_stopping() {
            return Err(TaskError::cancelled());
        }
        let mut plan = self.plan_of(step, self.cancel.clone())?;
        if let Some(guard) = self.guard_in_words(step) {
            plan.summary = format!("{} ({guard})", plan.summary);
        }
        Ok(plan)
    }

    fn plan_of(&self, step: &ResolvedStep, cancel: CancelFlag) -> Result<TaskPlan, TaskError> {
        let Some(task) = step.task else { return Ok(TaskPlan::default()) };
        let request = Call {
            key: self.key,
            identity: self.identity(&step.id, 1),
            limit: step.time_limit.min(PLAN_LIMIT),
            changing: false,
            job: self.job_view(false),
            cancel,
        };
        let called =
            call(&self.surroundings, self.admitted.resolution(), step, request, move |context| match task {
                Task::Inspect(inspect) => inspect.plan(context),
                Task::Change(change) => change.plan(context),
            });
        match called {
            Called::Answered(result) => result,
            Called::Overran => Err(TaskError::Declared("its plan did not end in time".to_owned())),
            Called::Panicked => {
                Err(TaskError::Declared("its plan broke off by a fault of its own".to_owned()))
            }
        }
    }
}

/// The first change that one side has alone.
fn difference(planned: &[Change], now: &[Change]) -> String {
    let only = |these: &[Change], others: &[Change]| {
        let first = these.iter().find(|change| !others.contains(change));
        first.map_or_else(
            || "nothing more".to_owned(),
            |c| format!("{} {} ({} -> {})", c.action, c.subject, c.before, c.after),
        )
    };
    format!("planned was {}; now it would be {}", only(planned, now), only(now, planned))
}

/// A plan whose run the node would refuse ends as that run would.
fn verdict(plan: &NodePlan) -> End {
    if plan.refusals.is_empty() {
        return End::plain(Outcome::Succeeded, "planned");
    }
    let reasons: Vec<String> =
        plan.refusals.iter().map(|refusal| format!("{}: {}", refusal.code, refusal.message)).collect();
    End::plain(Outcome::Refused, format!("the node would refuse it: {}", reasons.join("; ")))
}
