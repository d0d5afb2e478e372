//! A simulated node: a journal, a link, and limits of its own, as the node's side of the design says.

use std::time::Duration;

use fleet_rollout::{Event, Reported};
use fleet_types::id::{Attempt, NodeId};
use fleet_types::job::Outcome;
use fleet_types::time::Timestamp;

use super::random::Random;

/// Where the job stands on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Accepted { start_by: Timestamp },
    Working { until: Timestamp, undoing: bool },
    Finished(Outcome),
}

#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub attempt: Attempt,
    pub stage: Stage,
    pub acked: bool,
}

/// The journal survives everything, so the job is resumed and not begun again.
#[derive(Debug)]
pub struct Agent {
    pub id: NodeId,
    pub pair: Option<u64>,
    pub link: bool,
    pub journal: Option<Entry>,
    pub starts: u32,
    /// The procedure's working-time limit, enforced on the node.
    pub limit: Duration,
    pub not_after: Timestamp,
}

impl Agent {
    pub fn is_working(&self) -> bool {
        matches!(self.journal, Some(Entry { stage: Stage::Working { .. }, .. }))
    }

    /// The node received its assignment, or the question whether it has it.
    pub fn on_work(&mut self, now: Timestamp, attempt: Attempt, random: &mut Random) {
        if self.journal.is_none() {
            let stage = if now >= self.not_after {
                Stage::Finished(Outcome::Expired)
            } else if random.chance(5) {
                Stage::Finished(Outcome::Refused)
            } else {
                Stage::Accepted { start_by: now.plus(Duration::from_secs(random.below(60))) }
            };
            self.journal = Some(Entry { attempt, stage, acked: false });
        }
    }

    /// The node was asked to stop. It remembers that for a job that it does not have, too.
    pub fn on_stop(&mut self, attempt: Attempt) {
        let stopped = Entry { attempt, stage: Stage::Finished(Outcome::Cancelled), acked: false };
        let entry = self.journal.get_or_insert(stopped);
        entry.stage = match entry.stage {
            Stage::Accepted { .. } | Stage::Working { undoing: false, .. } => {
                Stage::Finished(Outcome::Cancelled)
            }
            Stage::Working { undoing: true, .. } => Stage::Finished(Outcome::RolledBack),
            done @ Stage::Finished(_) => done,
        };
    }

    /// What the node does by itself until `now`: begin, change its mind, and end in time.
    pub fn live_until(&mut self, now: Timestamp, random: &mut Random) {
        let Some(entry) = &mut self.journal else { return };
        if let Stage::Accepted { start_by } = entry.stage
            && start_by <= now
        {
            let work = Duration::from_millis(random.below(u64::try_from(self.limit.as_millis()).unwrap()));
            // One in four runs into its limit.
            let work = if random.chance(25) { self.limit } else { work };
            if start_by >= self.not_after {
                entry.stage = Stage::Finished(Outcome::Expired);
            } else {
                self.starts += 1;
                entry.stage = Stage::Working { until: start_by.plus(work), undoing: false };
            }
        }
        if let Stage::Working { until, undoing } = entry.stage {
            if until <= now {
                let outcomes: &[Outcome] = if undoing {
                    &[Outcome::RolledBack, Outcome::RollbackFailed]
                } else {
                    &[Outcome::Succeeded, Outcome::Succeeded, Outcome::SucceededWithWarnings, Outcome::Failed]
                };
                entry.stage = Stage::Finished(random.pick(outcomes));
            } else if random.chance(5) {
                entry.stage = Stage::Working { until, undoing: true };
            }
        }
    }

    /// The report that tells where the job stands.
    pub fn report(&self, random: &mut Random) -> Option<Event> {
        let entry = self.journal?;
        let said = match entry.stage {
            Stage::Finished(outcome) => return Some(Event::ended(self.id, entry.attempt, outcome)),
            Stage::Accepted { .. } => Reported::Accepted,
            Stage::Working { undoing: true, .. } => Reported::RollingBack,
            Stage::Working { undoing: false, .. } if random.chance(15) => Reported::Waiting,
            Stage::Working { undoing: false, .. } => Reported::Running,
        };
        Some(Event::reported(self.id, entry.attempt, said))
    }
}
