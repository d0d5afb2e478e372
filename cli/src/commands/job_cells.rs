//! How states of runs and jobs look in tables.

use fleet_types::job::{EndCause, JobState, Outcome};
use fleet_types::request::Verb;
use fleet_types::run::{RunState, Tally};
use fleet_types::view::{JobItem, WORST_FIRST};

use crate::render::{Cell, Times, Tone};

/// Where a run stands.
pub fn run_state(state: RunState) -> Cell {
    let tone = match state {
        RunState::Succeeded => Tone::Good,
        RunState::Partly | RunState::Failed | RunState::RolledBack => Tone::Bad,
        RunState::Cancelled | RunState::Paused | RunState::Halting => Tone::Warn,
        RunState::Planned | RunState::Running | RunState::Waiting => Tone::Plain,
    };
    Cell::toned(tone, state.as_str())
}

/// Whether a run carries out or asks.
pub const fn verb(verb: Verb) -> &'static str {
    match verb {
        Verb::Run => "run",
        Verb::Plan => "plan",
    }
}

/// Where a job stands, with its step.
pub fn job_state(job: &JobItem) -> Cell {
    let gone = if job.disconnected { " (disconnected)" } else { "" };
    let (tone, text) = match &job.state {
        JobState::Queued => (Tone::Dim, "queued".to_owned()),
        JobState::Offered => (Tone::Dim, "offered".to_owned()),
        JobState::Accepted => (Tone::Plain, "accepted".to_owned()),
        JobState::Running { step, .. } => (Tone::Plain, format!("running step {step}")),
        JobState::Waiting { step, .. } => (Tone::Warn, format!("waiting at step {step}")),
        JobState::RollingBack { step } => (Tone::Warn, format!("rolling_back step {step}")),
        JobState::Unknown => (Tone::Warn, "unknown to this version".to_owned()),
        JobState::Ended { outcome, cause, .. } => {
            (outcome_tone(*outcome), with_cause(outcome.as_str(), *cause))
        }
    };
    Cell::toned(if job.disconnected { Tone::Warn } else { tone }, text + gone)
}

/// The word of an end with its cause, where that says more than the word: `failed (outcome_unknown)`.
pub fn with_cause(word: &str, cause: Option<EndCause>) -> String {
    match cause {
        Some(cause)
            if cause != EndCause::StepFailed && cause != EndCause::Other && cause.as_str() != word =>
        {
            format!("{word} ({})", cause.as_str())
        }
        _ => word.to_owned(),
    }
}

/// The tone of an outcome.
pub const fn outcome_tone(outcome: Outcome) -> Tone {
    match outcome {
        Outcome::Succeeded => Tone::Good,
        Outcome::SucceededWithWarnings | Outcome::Cancelled => Tone::Warn,
        _ => Tone::Bad,
    }
}

/// What came out, why it ended so, or every reason why it is not going.
pub fn result(job: &JobItem, times: &Times) -> String {
    if !job.blocked.is_empty() {
        return times.retold(&job.blocked.join("; "));
    }
    // Where it did not go well the reason says what the summary would say again.
    let mut parts = match &job.state {
        JobState::Ended { outcome, reason, .. } if *outcome != Outcome::Succeeded && !reason.is_empty() => {
            vec![reason.as_str()]
        }
        _ => vec![job.summary.as_str()],
    };
    parts.retain(|part| !part.is_empty());
    if job.late_report.is_some() {
        parts.push("a late report is kept beside it");
    }
    times.retold(&parts.join("; "))
}

/// Place in a list that begins with what needs a person: failed, then open, then good.
pub fn rank(job: &JobItem) -> usize {
    match &job.state {
        JobState::Ended { outcome, .. } => {
            let place = WORST_FIRST.iter().position(|worst| worst == outcome).unwrap_or(0);
            if outcome.is_success() { 200 + place } else { place }
        }
        _ => 100,
    }
}

/// `4 ok, 1 failed, 1 open` of a run's nodes.
pub fn tally(tally: &Tally) -> String {
    let good = tally.count(&[Outcome::Succeeded, Outcome::SucceededWithWarnings]);
    let (ended, open) = (tally.total_ended(), tally.nodes.saturating_sub(tally.total_ended()));
    let mut parts = vec![format!("{good} ok")];
    if ended > good {
        parts.push(format!("{} not ok", ended - good));
    }
    if open > 0 {
        parts.push(format!("{open} open"));
    }
    parts.join(", ")
}
