//! The run as one line: its state, how its nodes ended, how many are where.
//!
//! Kept up to date with each event, so reading it costs nothing. Must never be the source of a decision.
//! Called for showing and for the stored run record.

use fleet_types::job::Phase;
use fleet_types::run::{RunState, Tally};
use fleet_types::time::Timestamp;

use crate::event::Mode;
use crate::state::Rollout;

/// How many jobs are in which phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Their turn has not come.
    pub queued: u32,
    /// Offered, not answered.
    pub offered: u32,
    /// Durable on the node.
    pub accepted: u32,
    /// A step is being carried out.
    pub running: u32,
    /// At a barrier.
    pub waiting: u32,
    /// Undoing.
    pub rolling_back: u32,
    /// Ended, however.
    pub ended: u32,
}

impl Counts {
    pub(crate) const fn of(&mut self, phase: Phase) -> &mut u32 {
        match phase {
            Phase::Queued => &mut self.queued,
            Phase::Offered => &mut self.offered,
            Phase::Accepted => &mut self.accepted,
            Phase::Running => &mut self.running,
            Phase::Waiting => &mut self.waiting,
            Phase::RollingBack => &mut self.rolling_back,
            Phase::Ended(_) => &mut self.ended,
        }
    }

    /// The phases of those that have not ended, as words, where there are any.
    pub fn open(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let all = [
            ("queued", self.queued),
            ("offered", self.offered),
            ("accepted", self.accepted),
            ("running", self.running),
            ("waiting", self.waiting),
            ("rolling_back", self.rolling_back),
        ];
        all.into_iter().filter(|(_, count)| *count > 0)
    }

    /// Offered and not ended.
    pub const fn in_flight(&self) -> u32 {
        self.offered + self.accepted + self.running + self.waiting + self.rolling_back
    }
}

/// The run as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Where the run stands.
    pub state: RunState,
    /// How its nodes ended, over a fixed denominator.
    pub tally: Tally,
    /// How many jobs are where.
    pub counts: Counts,
}

impl Rollout {
    /// The run as one line.
    pub fn summary(&self, now: Timestamp) -> Summary {
        Summary { state: self.state(now), tally: self.tally.clone(), counts: self.counts }
    }

    /// Where the run stands at `now`.
    pub fn state(&self, now: Timestamp) -> RunState {
        if let Some(state) = self.terminal_state() {
            return state;
        }
        match self.mode {
            Mode::Halting { .. } => RunState::Halting,
            Mode::Paused { .. } => RunState::Paused,
            Mode::Going if self.halted().is_some() => RunState::Paused,
            Mode::Going => {
                let counts = &self.counts;
                let at_barrier = counts.waiting == counts.in_flight();
                let for_window = counts.queued == 0 || now < self.plan.not_before;
                if counts.in_flight() == 0 && counts.ended == 0 {
                    RunState::Planned
                } else if at_barrier && for_window {
                    RunState::Waiting
                } else {
                    RunState::Running
                }
            }
        }
    }

    /// Has every node ended?
    pub fn is_done(&self) -> bool {
        self.terminal_state().is_some()
    }

    /// How the run ended; `None` while a node has not.
    pub fn terminal_state(&self) -> Option<RunState> {
        self.tally.terminal_state()
    }
}
