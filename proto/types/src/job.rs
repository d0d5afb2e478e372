//! The life of a job: its states, the one table of their transitions, and how it can end.
//!
//! The table is that of the design ("The life of a job"). Controller and agent both ask it; neither has
//! another one. Terminal states never change (security-and-delivery §2.2).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::RunId;
use crate::time::Timestamp;

/// How a job ended. Exactly one of these, with a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every step did what it should.
    Succeeded,
    /// Done, and a step with `on_failure = "warn"` failed.
    SucceededWithWarnings,
    /// A step failed, its effect cannot be known, or changes are left that nothing undoes; the cause says which.
    Failed,
    /// It failed, and every change that it had begun was undone.
    RolledBack,
    /// Undoing failed too; a person is needed.
    RollbackFailed,
    /// An operator stopped it.
    Cancelled,
    /// The node's local policy or a check before the start said no.
    Refused,
    /// Its time was over before it started.
    Expired,
    /// Silent past its deadline and grace.
    Lost,
}

impl Outcome {
    /// All outcomes, in the order they are shown.
    pub const ALL: [Self; 9] = [
        Self::Succeeded,
        Self::SucceededWithWarnings,
        Self::Failed,
        Self::RolledBack,
        Self::RollbackFailed,
        Self::Cancelled,
        Self::Refused,
        Self::Expired,
        Self::Lost,
    ];

    /// The word as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::SucceededWithWarnings => "succeeded_with_warnings",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
            Self::RollbackFailed => "rollback_failed",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Lost => "lost",
        }
    }

    /// Did the node end as asked (warnings included)?
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Succeeded | Self::SucceededWithWarnings)
    }
}

/// Why a job or a step ended as it did, for programs; the reason beside it says it in words. Absent where the
/// outcome says it all, and from agents that did not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndCause {
    /// A step failed, and it is known how.
    StepFailed,
    /// A time limit was over.
    TimedOut,
    /// Something began whose effect nobody can know. Never tried again silently (security-and-delivery §2.1).
    OutcomeUnknown,
    /// It was asked to stop.
    Cancelled,
    /// The way back is over, and changes are left that nothing undoes.
    NotUndone,
    /// The node was not as it was planned; the step was not begun.
    PlanChanged,
    /// Nobody confirmed a guarded change in time.
    Unconfirmed,
    /// A word of a newer release.
    #[serde(other)]
    Other,
}

impl EndCause {
    /// The word as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StepFailed => "step_failed",
            Self::TimedOut => "timed_out",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Cancelled => "cancelled",
            Self::NotUndone => "not_undone",
            Self::PlanChanged => "plan_changed",
            Self::Unconfirmed => "unconfirmed",
            Self::Other => "other",
        }
    }
}

/// Where a job stands. Instants are wall time, for showing; deadlines run on boot time on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum JobState {
    /// Wanted, its turn has not come.
    Queued,
    /// Written for the node to fetch or be sent.
    Offered,
    /// Durable in the node's journal.
    Accepted,
    /// A step is being carried out.
    Running {
        /// The step's id.
        step: String,
        /// Since when.
        since: Timestamp,
    },
    /// Waits at a barrier, holding no slot.
    Waiting {
        /// The step's id.
        step: String,
        /// Since when.
        since: Timestamp,
        /// Until when at most.
        until: Timestamp,
    },
    /// Undoing what began.
    RollingBack {
        /// The undo entry's id.
        step: String,
    },
    /// Ended.
    Ended {
        /// How.
        outcome: Outcome,
        /// Why, for programs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<EndCause>,
        /// Why, in words.
        reason: String,
    },
    /// A state that a newer node has and this build does not know. The node has the job in hand; made where a
    /// message is read, never stored.
    Unknown,
}

/// A node's word on how long a job may still take, counted from when it is said, on the node's boot time. The
/// controller judges silence by it (DESIGN, "Silence").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobLimits {
    /// The present phase: the wait for a turn, the working time, the way back.
    pub phase_left: Duration,
    /// The whole job to its end, the way back and the final entries included.
    pub job_left: Duration,
    /// While it waits for its turn: the run of the job before it on the node.
    pub behind: Option<RunId>,
}

/// A state without its particulars: one row and column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// See [`JobState::Queued`].
    Queued,
    /// See [`JobState::Offered`].
    Offered,
    /// See [`JobState::Accepted`].
    Accepted,
    /// See [`JobState::Running`].
    Running,
    /// See [`JobState::Waiting`].
    Waiting,
    /// See [`JobState::RollingBack`].
    RollingBack,
    /// See [`JobState::Ended`].
    Ended(Outcome),
}

/// A transition that the table does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a job cannot go from {from:?} to {to:?}")]
pub struct TransitionError {
    /// The present state.
    pub from: Phase,
    /// The state asked for.
    pub to: Phase,
}

impl JobState {
    /// An end whose outcome says it all.
    pub fn ended(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self::Ended { outcome, cause: None, reason: reason.into() }
    }

    /// The state without its particulars.
    pub const fn phase(&self) -> Phase {
        match self {
            Self::Queued => Phase::Queued,
            Self::Offered => Phase::Offered,
            Self::Accepted => Phase::Accepted,
            Self::Running { .. } | Self::Unknown => Phase::Running,
            Self::Waiting { .. } => Phase::Waiting,
            Self::RollingBack { .. } => Phase::RollingBack,
            Self::Ended { outcome, .. } => Phase::Ended(*outcome),
        }
    }

    /// How it ended, if it did.
    pub const fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Ended { outcome, .. } => Some(*outcome),
            _ => None,
        }
    }

    /// The word for tables.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Offered => "offered",
            Self::Accepted => "accepted",
            Self::Running { .. } => "running",
            Self::Waiting { .. } => "waiting",
            Self::RollingBack { .. } => "rolling_back",
            Self::Ended { outcome, .. } => outcome.as_str(),
            Self::Unknown => "unknown",
        }
    }
}

/// The table of the design. `Lost` may follow anything that is not terminal.
#[expect(clippy::match_same_arms, reason = "one arm a row of the table")]
pub fn check_transition(from: Phase, to: Phase) -> Result<(), TransitionError> {
    use Outcome as O;
    use Phase as P;
    let allowed = match (from, to) {
        (P::Ended(_), _) => false,
        (_, P::Ended(O::Lost)) => true,
        (P::Queued, P::Offered | P::Ended(O::Cancelled | O::Expired | O::Refused)) => true,
        (P::Offered, P::Accepted | P::Ended(O::Refused | O::Expired | O::Cancelled)) => true,
        // `refused` of a plan that was asked for, when a run of it would be.
        (P::Accepted, P::Running | P::Waiting | P::Ended(O::Cancelled | O::Expired | O::Refused)) => true,
        (
            P::Running,
            P::Running
            | P::Waiting
            | P::RollingBack
            | P::Ended(O::Succeeded | O::SucceededWithWarnings | O::Failed | O::Cancelled | O::Refused),
        ) => true,
        (P::Waiting, P::Running | P::RollingBack | P::Ended(O::Expired | O::Cancelled)) => true,
        // `failed` where changes are left that nothing undoes.
        (P::RollingBack, P::RollingBack | P::Ended(O::RolledBack | O::RollbackFailed | O::Failed)) => true,
        _ => false,
    };
    if allowed { Ok(()) } else { Err(TransitionError { from, to }) }
}

/// Is `to` reachable from `from` by steps of the table? What lies between `offered` and the end stays on
/// the node, so the controller sees jumps and asks this.
pub fn check_reachable(from: Phase, to: Phase) -> Result<(), TransitionError> {
    let stops =
        [Phase::Queued, Phase::Offered, Phase::Accepted, Phase::Running, Phase::Waiting, Phase::RollingBack];
    let mut seen = vec![from];
    let mut at = 0;
    while at < seen.len() {
        if check_transition(seen[at], to).is_ok() {
            return Ok(());
        }
        for next in stops {
            if !seen.contains(&next) && check_transition(seen[at], next).is_ok() {
                seen.push(next);
            }
        }
        at += 1;
    }
    Err(TransitionError { from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phases() -> Vec<Phase> {
        let mut all = vec![
            Phase::Queued,
            Phase::Offered,
            Phase::Accepted,
            Phase::Running,
            Phase::Waiting,
            Phase::RollingBack,
        ];
        all.extend(Outcome::ALL.map(Phase::Ended));
        all
    }

    #[test]
    fn the_whole_table() {
        use std::fmt::Write as _;
        let mut table = String::new();
        for from in phases() {
            let to: Vec<_> = phases()
                .into_iter()
                .filter(|to| check_transition(from, *to).is_ok())
                .map(|to| format!("{to:?}"))
                .collect();
            let _ = writeln!(table, "{from:?}: {}", to.join(" "));
        }
        let expected = "\
Queued: Offered Ended(Cancelled) Ended(Refused) Ended(Expired) Ended(Lost)
Offered: Accepted Ended(Cancelled) Ended(Refused) Ended(Expired) Ended(Lost)
Accepted: Running Waiting Ended(Cancelled) Ended(Refused) Ended(Expired) Ended(Lost)
Running: Running Waiting RollingBack Ended(Succeeded) Ended(SucceededWithWarnings) Ended(Failed) Ended(Cancelled) Ended(Refused) Ended(Lost)
Waiting: Running RollingBack Ended(Cancelled) Ended(Expired) Ended(Lost)
RollingBack: RollingBack Ended(Failed) Ended(RolledBack) Ended(RollbackFailed) Ended(Lost)
";
        assert!(table.starts_with(expected), "{table}");
        assert!(
            table[expected.len()..].lines().all(|line| line.ends_with(": ")),
            "terminal states never change"
        );
    }

    #[test]
    fn an_end_without_a_cause_and_with_a_newer_one_can_be_read() {
        let parse = |text: &str| serde_json::from_str::<JobState>(text).unwrap();
        let old = r#"{"state":"ended","outcome":"failed","reason":"it broke"}"#;
        assert_eq!(parse(old), JobState::ended(Outcome::Failed, "it broke"));
        assert_eq!(serde_json::to_string(&parse(old)).unwrap(), old, "and is written as it was");
        let newer = r#"{"state":"ended","outcome":"failed","cause":"struck_by_lightning","reason":""}"#;
        assert!(matches!(parse(newer), JobState::Ended { cause: Some(EndCause::Other), .. }));
        let known = JobState::Ended {
            outcome: Outcome::Failed,
            cause: Some(EndCause::OutcomeUnknown),
            reason: String::new(),
        };
        assert_eq!(parse(&serde_json::to_string(&known).unwrap()), known);
        assert!(serde_json::to_string(&known).unwrap().contains(EndCause::OutcomeUnknown.as_str()));
    }

    #[test]
    fn a_report_may_jump_over_what_the_node_kept_to_itself() {
        assert!(check_reachable(Phase::Offered, Phase::Ended(Outcome::RolledBack)).is_ok());
        assert!(check_reachable(Phase::RollingBack, Phase::Ended(Outcome::Refused)).is_err());
        assert!(check_reachable(Phase::Ended(Outcome::Lost), Phase::Ended(Outcome::Succeeded)).is_err());
    }
}
