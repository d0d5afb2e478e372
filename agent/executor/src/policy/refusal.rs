//! Why the node says no: the rule, what was met, and what to do.
//!
//! A refusal is data; it is made in policy and resolution and carried to the report as it is.

use fleet_types::job::Outcome;
use fleet_types::report::Problem;
use fleet_types::severity::Severity;

/// One reason against one job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Stable name of the rule, such as `mode-read-only`.
    pub rule: &'static str,
    /// What was met, in one sentence.
    pub message: String,
    /// What to do.
    pub remedy: &'static str,
}

impl Refusal {
    /// A refusal by `rule`.
    pub fn new(rule: &'static str, message: impl Into<String>, remedy: &'static str) -> Self {
        Self { rule, message: message.into(), remedy }
    }

    /// How the job ends: its time being over has an outcome of its own.
    pub fn outcome(&self) -> Outcome {
        if self.rule == "request-expired" { Outcome::Expired } else { Outcome::Refused }
    }

    /// The job's reason: the rule, by its stable name, and what it met.
    pub fn reason(&self) -> String {
        format!("{}: {}", self.rule, self.message)
    }

    /// The same as a problem of a plan or report.
    pub fn problem(&self) -> Problem {
        Problem {
            severity: Severity::High,
            code: self.rule.to_owned(),
            subject: "start".to_owned(),
            message: self.message.clone(),
            evidence: String::new(),
            remedy: self.remedy.to_owned(),
        }
    }
}
