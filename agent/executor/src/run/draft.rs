//! What a run ends with, before it is a signed report; and what it tells on the way.
//!
//! Values only.

use fleet_types::job::{EndCause, JobState, Outcome};
use fleet_types::plan::NodePlan;
use fleet_types::report::{MAX_PARTS, MAX_REPORT_BYTES, Report, StepReport, TaskReport};
use fleet_types::time::Timestamp;

use super::limits::Deadlines;
use super::path::PathQuestion;
use crate::journal::JobKey;

/// How a job ended, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// How.
    pub outcome: Outcome,
    /// Why, for programs.
    pub cause: Option<EndCause>,
    /// Why, in words.
    pub reason: String,
}

impl End {
    /// An end with its cause.
    pub fn new(outcome: Outcome, cause: Option<EndCause>, reason: impl Into<String>) -> Self {
        Self { outcome, cause, reason: reason.into() }
    }

    /// An end whose outcome says it all.
    pub fn plain(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self::new(outcome, None, reason)
    }
}

/// A report without its place in the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// How the job ended.
    pub end: End,
    /// Start of the job.
    pub started: Timestamp,
    /// Its end.
    pub ended: Timestamp,
    /// Milliseconds of working time.
    pub working_ms: u64,
    /// One part a step.
    pub steps: Vec<StepReport>,
    /// Of a plan job.
    pub plan: Option<NodePlan>,
}

/// How a run's thread ended.
#[derive(Debug)]
pub enum Ending {
    /// The job is over.
    Finished(Box<Draft>),
    /// The executor stops; the job goes on after its next start.
    Suspended,
    /// The journal is closed: nothing may be done any more.
    Silenced,
}

/// What a run tells the dispatcher.
#[derive(Debug)]
pub enum RunEvent {
    /// Where it stands, and how long it may still take.
    Progress(JobKey, JobState, Deadlines),
    /// Its thread is about to end.
    Ended(JobKey, Ending),
    /// A task that had overrun its limit has come back.
    CameBack,
    /// It asks the core whether the way to a controller is open.
    AskPath(PathQuestion),
}

/// Cuts a step's parts to what a report holds; what is left out is counted in the summary.
pub fn cut_parts(body: &mut TaskReport) {
    let mut left_out = 0;
    let mut cut = |length: usize| {
        left_out += length.saturating_sub(MAX_PARTS);
        MAX_PARTS
    };
    let kept = (
        cut(body.problems.len()),
        cut(body.changes.len()),
        cut(body.samples.len()),
        cut(body.artifacts.len()),
    );
    body.problems.truncate(kept.0);
    body.changes.truncate(kept.1);
    body.samples.truncate(kept.2);
    body.artifacts.truncate(kept.3);
    if left_out > 0 {
        body.summary = format!("{} ({left_out} more parts left out)", body.summary);
    }
    cut_text(&mut body.summary, MAX_SUMMARY_BYTES);
    let tail = &mut body.output_tail;
    if tail.len() > fleet_types::report::MAX_OUTPUT_TAIL_BYTES {
        let mut from = tail.len() - fleet_types::report::MAX_OUTPUT_TAIL_BYTES;
        while !tail.is_char_boundary(from) {
            from += 1;
        }
        tail.drain(..from);
    }
    cut_long(body);
}

/// Largest body of one step: together with its frame it fits the journal with room to spare.
const MAX_BODY_BYTES: usize = 128 * 1024;

/// Cuts the parts further while their texts are too long.
fn cut_long(body: &mut TaskReport) {
    let size = |body: &TaskReport| serde_json::to_vec(body).map_or(usize::MAX, |bytes| bytes.len());
    let cuts: [fn(&mut TaskReport); 4] = [
        |body| body.samples.clear(),
        |body| {
            for change in &mut body.changes {
                cut_text(&mut change.before, 200);
                cut_text(&mut change.after, 200);
            }
        },
        |body| body.changes.clear(),
        |body| {
            for problem in &mut body.problems {
                cut_text(&mut problem.evidence, 200);
                cut_text(&mut problem.message, 200);
            }
        },
    ];
    for cut in cuts {
        if size(body) <= MAX_BODY_BYTES {
            return;
        }
        cut(body);
    }
    if size(body) > MAX_BODY_BYTES {
        *body = TaskReport { summary: std::mem::take(&mut body.summary), ..TaskReport::default() };
    }
}

/// Longest summary or reason: a sentence with a path in it, many times over.
const MAX_SUMMARY_BYTES: usize = 2048;

/// Cuts a text at a character's border.
pub fn cut_text(text: &mut String, limit: usize) {
    if text.len() > limit {
        let mut end = limit;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
}

/// The bytes of a report within [`MAX_REPORT_BYTES`]: output goes first, then measurements, changes, the
/// plan and problems; never the outcome, nor which steps there were.
pub fn fit(report: &mut Report) -> Vec<u8> {
    type Cut = fn(&mut Report);
    let cuts: [Cut; 5] = [
        |r| r.steps.iter_mut().for_each(|s| s.body.output_tail.clear()),
        |r| r.steps.iter_mut().for_each(|s| s.body.samples.clear()),
        |r| r.steps.iter_mut().for_each(|s| s.body.changes.clear()),
        |r| r.plan = None,
        |r| r.steps.iter_mut().for_each(|s| s.body.problems.clear()),
    ];
    let mut cuts = cuts.into_iter();
    loop {
        // Reports have string keys and no failing serialisers.
        let bytes = serde_json::to_vec(report).unwrap_or_default();
        if bytes.len() <= MAX_REPORT_BYTES {
            return bytes;
        }
        let Some(cut) = cuts.next() else { return bytes };
        cut(report);
        cut_text(&mut report.reason, MAX_SUMMARY_BYTES);
        report.reason.push_str(" (parts were left out to keep the report within its limit)");
    }
}

#[cfg(test)]
mod tests {
    use fleet_types::report::Change;

    use super::*;

    #[test]
    fn a_step_that_says_too_much_is_cut_to_what_a_frame_holds() {
        let change = Change {
            subject: "/etc/x".to_owned(),
            action: "changed".to_owned(),
            before: "ä".repeat(100_000),
            after: "b".repeat(100_000),
        };
        let mut body = TaskReport {
            summary: "ü".repeat(5000),
            changes: vec![change; 500],
            output_tail: "ö".repeat(5000),
            ..TaskReport::default()
        };
        cut_parts(&mut body);
        assert_eq!(body.changes.len(), MAX_PARTS);
        assert!(body.summary.len() <= MAX_SUMMARY_BYTES + 4 && body.output_tail.len() <= 2048);
        assert!(serde_json::to_vec(&body).unwrap().len() <= MAX_BODY_BYTES);
    }
}
