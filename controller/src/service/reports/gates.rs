//! What a node says of the gates of its ring: a report on a stage that only looks.
//!
//! A node that could not look, or saw too little, is no proof of anything: its verdict is inconclusive, and the reason
//! says what it lacks. Must not decide what follows for the ring; the engine does. Called by the storing of reports.

use fleet_types::job::{EndCause, Outcome};
use fleet_types::report::{NOT_AVAILABLE, Problem, Report, StepReport, StepState};
use fleet_types::run::Verdict;
use fleet_types::severity::Severity;

use super::{Arrived, StoredReport, note_health, numbered, with_health};
use crate::context::{Memory, Storage};
use crate::error::{ControllerError, Result};
use crate::repo::audited::AuditEntry;
use crate::repo::jobs::{self, GatesAnswer, GatesRecord, JobRecord};
use crate::repo::reader::Stored;
use crate::service::caller::Agent;

/// Room for the reason beside the name of a node, where a ring says why it halted.
const BECAUSE_BYTES: usize = 200;

/// Was the node asked for this, and has it not answered yet? Else why nothing explains the report.
pub(super) fn explained(job: &JobRecord, report: &Report) -> std::result::Result<(), String> {
    let run = report.job.run;
    match &job.gates {
        Some(asked) if (asked.attempt, asked.stage) != (report.attempt, report.job.stage) => {
            Err(format!("it answers for the gates of run {run}, and was asked another time"))
        }
        Some(GatesRecord { answer: Some(_), .. }) => {
            Err(format!("it answers twice for the gates of run {run}"))
        }
        Some(GatesRecord { answer: None, .. }) => Ok(()),
        None => Err(format!("it answers for the gates of run {run}, for which it was not asked")),
    }
}

/// Stores the report with what it says, its leaf, and the health that it found.
pub(super) async fn store(
    storage: &Storage,
    memory: &Memory,
    agent: &Agent,
    arrived: &Arrived,
    report: &Report,
    at: StoredReport,
    job: Stored<JobRecord>,
) -> Result<()> {
    let (run, node) = (arrived.run, agent.node);
    let (batch, known) = numbered(storage, memory, agent, arrived, &at)?;
    let (verdict, because) = verdict(report);
    let leaf = AuditEntry::new(agent.actor(), "job.gates", format!("run/{run}"))
        .job(report.job, report.attempt)
        .subject(report.authority.digest())
        .outcome(report.outcome)
        .report(at.digest, &arrived.signature)
        .because(if because.is_empty() {
            verdict.as_str().to_owned()
        } else {
            format!("{}: {because}", verdict.as_str())
        });
    let Some(asked) = job.record.gates.clone() else {
        return Err(ControllerError::internal(format!(
            "node {node} was not asked for the gates of run {run}"
        )));
    };
    let gates = GatesRecord { answer: Some(GatesAnswer { verdict, because, report: at }), ..asked };
    let record = JobRecord { gates: Some(gates), ..job.record };
    let (batch, _, newest) = with_health(storage, batch.using_reserve(), node, report, &known)?;
    let batch = jobs::answer(batch, job.write_id, &record)?;
    storage.audited.commit(batch, vec![leaf]).await?;
    note_health(memory, node, newest);
    memory.notifier.job_changed(run, node);
    Ok(())
}

/// What the report says, and why. The gates are its steps, in order; the first that does not hold is the last that was
/// looked at.
fn verdict(report: &Report) -> (Verdict, String) {
    let failed = report.steps.iter().find(|step| step.state == StepState::Failed);
    let (verdict, because) = match (report.outcome, report.cause, failed) {
        (Outcome::Succeeded, ..) => match report.steps.iter().find_map(unclear) {
            None if report.steps.is_empty() => (Verdict::Inconclusive, "no gate was looked at".to_owned()),
            None => (Verdict::Pass, String::new()),
            Some(why) => (Verdict::Inconclusive, why),
        },
        (Outcome::Failed, None | Some(EndCause::StepFailed), Some(step)) => match worst(step) {
            Some(problem) => (Verdict::Fail, of_check(step, problem)),
            None => (Verdict::Inconclusive, format!("gate {}: {}", step.id, step.body.summary)),
        },
        (outcome, ..) => (Verdict::Inconclusive, format!("gates: {}: {}", outcome.as_str(), report.reason)),
    };
    (verdict, cut(&because))
}

/// What `health.check` fails for: the same severity, so that a node is as healthy for a gate as in a procedure.
fn worst(step: &StepReport) -> Option<&Problem> {
    let bad = step.body.problems.iter().filter(|problem| problem.severity >= Severity::High);
    bad.max_by_key(|problem| problem.severity)
}

/// A check that nobody could look at, or one that is bad and not yet for as long as makes it count: that it is well is
/// not known.
fn unclear(step: &StepReport) -> Option<String> {
    let of = |code: &str| step.body.problems.iter().find(|problem| problem.code == code);
    of(NOT_AVAILABLE).or_else(|| of("pending")).map(|problem| of_check(step, problem))
}

fn of_check(step: &StepReport, problem: &Problem) -> String {
    format!("gate {}: check {}: {}", step.id, problem.subject, problem.message)
}

fn cut(because: &str) -> String {
    because[..because.floor_char_boundary(BECAUSE_BYTES)].to_owned()
}

#[cfg(test)]
mod tests;
