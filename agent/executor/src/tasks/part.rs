//! Making the uniform parts of a report, and keeping them within their bound. Called by tasks.

use fleet_types::report::{Change, MAX_PARTS, Problem, Sample, TaskReport};
use fleet_types::severity::Severity;

use super::contract::TaskPlan;

/// Why nothing is done.
const SKIPPED: &str = "skipped: its `when` is false here";

/// Something is wrong.
pub(super) fn problem(
    severity: Severity,
    code: &str,
    subject: impl Into<String>,
    message: impl Into<String>,
) -> Problem {
    Problem {
        severity,
        code: code.to_owned(),
        subject: subject.into(),
        message: message.into(),
        evidence: String::new(),
        remedy: String::new(),
    }
}

/// Something was altered.
pub(super) fn change(
    subject: impl Into<String>,
    action: &str,
    before: impl Into<String>,
    after: impl Into<String>,
) -> Change {
    Change { subject: subject.into(), action: action.to_owned(), before: before.into(), after: after.into() }
}

/// A measurement.
pub(super) fn sample(metric: &str, subject: impl Into<String>, value: f64, unit: &str) -> Sample {
    Sample { metric: metric.to_owned(), subject: subject.into(), value, unit: unit.to_owned() }
}

/// The plan of a step whose id does not count on this node.
pub(super) fn skipped_plan() -> TaskPlan {
    TaskPlan { summary: SKIPPED.to_owned(), ..TaskPlan::default() }
}

/// Its report.
pub(super) fn skipped() -> TaskReport {
    TaskReport { summary: SKIPPED.to_owned(), ..TaskReport::default() }
}

/// Cuts each list to [`MAX_PARTS`], worst problems first, and says in the summary how much was left out.
pub(super) fn bounded(mut report: TaskReport) -> TaskReport {
    report.problems.sort_by_key(|found| std::cmp::Reverse(found.severity));
    let counts = [
        (report.problems.len(), "problems"),
        (report.changes.len(), "changes"),
        (report.samples.len(), "samples"),
        (report.artifacts.len(), "artifacts"),
    ];
    for (count, word) in counts {
        if count > MAX_PARTS {
            let more = count - MAX_PARTS;
            report.summary = format!("{}; {more} more {word} not listed", report.summary);
        }
    }
    report.problems.truncate(MAX_PARTS);
    report.changes.truncate(MAX_PARTS);
    report.samples.truncate(MAX_PARTS);
    report.artifacts.truncate(MAX_PARTS);
    report
}

/// A number as a measurement.
#[allow(clippy::cast_precision_loss)] // measurements are exact up to 2^53, eight petabytes
pub(super) const fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_said_and_the_worst_stays() {
        let mut report = TaskReport { summary: "x".into(), ..TaskReport::default() };
        for n in 0..250 {
            report.problems.push(problem(Severity::Low, "c", n.to_string(), "m"));
        }
        report.problems.push(problem(Severity::Critical, "c", "worst", "m"));
        let report = bounded(report);
        assert_eq!(report.problems.len(), MAX_PARTS);
        assert_eq!(report.problems[0].subject, "worst");
        assert_eq!(report.summary, "x; 51 more problems not listed");
    }
}
