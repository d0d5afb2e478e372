//! A run as the operator sees it: its states and how the jobs' outcomes make up the run's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::job::Outcome;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Written, nothing offered yet.
    Planned,
    /// Jobs are offered or under way.
    Running,
    /// Every open job waits at a barrier or for its window.
    Waiting,
    /// An operator stopped new starts.
    Paused,
    /// A budget, a gate or a cancel stopped new starts; what runs is finished or undone.
    Halting,
    /// Every node succeeded (with or without warnings).
    Succeeded,
    /// Some nodes succeeded, some did not.
    Partly,
    /// No node succeeded.
    Failed,
    /// Every node that began was rolled back.
    RolledBack,
    /// An operator ended it before any node succeeded.
    Cancelled,
}

impl RunState {
    /// Has it ended?
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Partly | Self::Failed | Self::RolledBack | Self::Cancelled)
    }

    /// The word as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Halting => "halting",
            Self::Succeeded => "succeeded",
            Self::Partly => "partly",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Where a ring of a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RingState {
    /// A ring before it is not done.
    Pending,
    /// Its nodes go.
    Open,
    /// Enough succeeded; they must stay well for a while.
    Soaking,
    /// Its gates are asked.
    Judging,
    /// Somebody must let the next ring begin.
    AwaitingApproval,
    /// The next ring may begin.
    Done,
    /// Too much failed: nothing starts until an operator decides.
    Halted,
}

impl RingState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Open,
        Self::Soaking,
        Self::Judging,
        Self::AwaitingApproval,
        Self::Done,
        Self::Halted,
    ];

    /// The word as stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Open => "open",
            Self::Soaking => "soaking",
            Self::Judging => "judging",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Done => "done",
            Self::Halted => "halted",
        }
    }
}

impl std::fmt::Display for RingState {
    /// As people read it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.as_str().replace('_', " "))
    }
}

/// What gates say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All of them hold.
    Pass,
    /// One does not.
    Fail,
    /// One cannot say.
    Inconclusive,
}

impl Verdict {
    /// The word as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// How many nodes ended how; the denominator is fixed when the run is made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Selected nodes.
    pub nodes: u32,
    /// Ended jobs by outcome.
    pub ended: BTreeMap<Outcome, u32>,
}

impl Tally {
    /// A tally over `nodes` nodes, none ended.
    pub fn new(nodes: u32) -> Self {
        Self { nodes, ended: BTreeMap::new() }
    }

    /// Counts one ended job.
    pub fn add(&mut self, outcome: Outcome) {
        *self.ended.entry(outcome).or_default() += 1;
    }

    /// How many ended with one of `outcomes`.
    pub fn count(&self, outcomes: &[Outcome]) -> u32 {
        outcomes.iter().filter_map(|o| self.ended.get(o)).sum()
    }

    /// How many ended at all.
    pub fn total_ended(&self) -> u32 {
        self.ended.values().sum()
    }

    /// The run's terminal state once every node ended; `None` before.
    pub fn terminal_state(&self) -> Option<RunState> {
        if self.total_ended() < self.nodes {
            return None;
        }
        let good = self.count(&[Outcome::Succeeded, Outcome::SucceededWithWarnings]);
        Some(if good == self.nodes {
            RunState::Succeeded
        } else if good > 0 {
            RunState::Partly
        } else if self.count(&[Outcome::Cancelled]) == self.nodes {
            RunState::Cancelled
        } else if self.count(&[Outcome::RolledBack]) == self.nodes {
            RunState::RolledBack
        } else {
            RunState::Failed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_but_all_succeeded_is_not_a_success() {
        let cases: [(&[Outcome], Option<RunState>); 7] = [
            (&[Outcome::Succeeded], None),
            (&[Outcome::Succeeded, Outcome::SucceededWithWarnings], Some(RunState::Succeeded)),
            (&[Outcome::Succeeded, Outcome::Lost], Some(RunState::Partly)),
            (&[Outcome::Failed, Outcome::Expired], Some(RunState::Failed)),
            (&[Outcome::Cancelled, Outcome::Cancelled], Some(RunState::Cancelled)),
            (&[Outcome::RolledBack, Outcome::RolledBack], Some(RunState::RolledBack)),
            (&[Outcome::Cancelled, Outcome::Refused], Some(RunState::Failed)),
        ];
        for (outcomes, expected) in cases {
            let mut tally = Tally::new(2);
            for outcome in outcomes {
                tally.add(*outcome);
            }
            assert_eq!(tally.terminal_state(), expected, "{outcomes:?}");
        }
    }
}
