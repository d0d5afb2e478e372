//! A simulated node: a journal, a queue in which one change goes after the other, a link, a power switch, and
//! limits of its own on a clock that stands still while it is off, as the node's side of the design says.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_rollout::{Event, Presence, Reported};
use fleet_types::id::{Attempt, NodeId, RunId};
use fleet_types::job::Outcome;

use super::random::Random;

/// What a run asks of a node.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    pub run: RunId,
    pub changes: bool,
    /// The working-time limit of the procedure; the way back may take as long.
    pub limit: Duration,
    /// End of first starts, on the true clock.
    pub not_after: Duration,
}

/// Where a job stands on the node. Instants are of the true clock, moved on by the time that the node was off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Queued,
    Working { ends: Duration, limit: Duration },
    Undoing { ends: Duration, limit: Duration },
    Finished(Outcome),
}

#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub work: Work,
    pub attempt: Attempt,
    pub stage: Stage,
    pub acked: bool,
}

impl Entry {
    const fn is_working(&self) -> bool {
        matches!(self.stage, Stage::Working { .. } | Stage::Undoing { .. })
    }
}

/// The journal survives everything, so a job is resumed and not begun again.
#[derive(Debug)]
pub struct Agent {
    pub id: NodeId,
    pub pair: Option<u64>,
    pub site: String,
    pub link: bool,
    /// Held by an operator: gets nothing new.
    pub held: bool,
    /// Off: nothing is done and no limit runs.
    pub off_since: Option<Duration>,
    /// An old agent does not say how long its jobs may still take.
    pub says_limits: bool,
    pub jobs: BTreeMap<RunId, Entry>,
    /// Runs in the order of their acceptance.
    queue: Vec<RunId>,
    /// Starts since the last look.
    pub started: Vec<RunId>,
}

impl Agent {
    pub fn new(id: NodeId, pair: Option<u64>, site: String, says_limits: bool) -> Self {
        Self {
            id,
            pair,
            site,
            link: false,
            held: false,
            off_since: None,
            says_limits,
            jobs: BTreeMap::new(),
            queue: Vec::new(),
            started: Vec::new(),
        }
    }

    /// As the controller sees it.
    pub const fn presence(&self) -> Presence {
        match (self.link, self.held) {
            (false, _) => Presence::Offline,
            (true, true) => Presence::Held,
            (true, false) => Presence::Online,
        }
    }

    /// The runs for which the node is changing itself now, or will go on to when it is switched on.
    pub fn changing(&self) -> impl Iterator<Item = RunId> {
        self.jobs
            .values()
            .filter(|entry| entry.work.changes && entry.is_working())
            .map(|entry| entry.work.run)
    }

    /// Does the node have this job, and has not ended it?
    pub fn has_open(&self, run: RunId) -> bool {
        self.jobs.get(&run).is_some_and(|entry| !matches!(entry.stage, Stage::Finished(_)))
    }

    /// The node received its assignment, or the question whether it has it.
    pub fn on_work(&mut self, now: Duration, work: Work, attempt: Attempt, random: &mut Random) {
        if self.jobs.contains_key(&work.run) {
            return;
        }
        let stage = if now >= work.not_after {
            Stage::Finished(Outcome::Expired)
        } else if random.chance(5) {
            Stage::Finished(Outcome::Refused)
        } else {
            self.queue.push(work.run);
            Stage::Queued
        };
        self.jobs.insert(work.run, Entry { work, attempt, stage, acked: false });
    }

    /// The node was asked to stop. It remembers that for a job that it does not have, too.
    pub fn on_stop(&mut self, now: Duration, work: Work, attempt: Attempt) {
        let stopped = Entry { work, attempt, stage: Stage::Finished(Outcome::Cancelled), acked: false };
        let entry = self.jobs.entry(work.run).or_insert(stopped);
        entry.stage = match entry.stage {
            Stage::Queued => Stage::Finished(Outcome::Cancelled),
            // What was begun is undone first, and that takes its time.
            Stage::Working { .. } => Stage::Undoing { ends: now + work.limit / 2, limit: now + work.limit },
            going @ Stage::Undoing { .. } => going,
            done @ Stage::Finished(_) => done,
        };
    }

    pub fn switch_off(&mut self, now: Duration) {
        self.off_since.get_or_insert(now);
    }

    pub fn switch_on(&mut self, now: Duration) {
        let Some(since) = self.off_since.take() else { return };
        let off = now.saturating_sub(since);
        for entry in self.jobs.values_mut() {
            entry.stage = match entry.stage {
                Stage::Working { ends, limit } => Stage::Working { ends: ends + off, limit: limit + off },
                Stage::Undoing { ends, limit } => Stage::Undoing { ends: ends + off, limit: limit + off },
                other => other,
            };
        }
    }

    /// What the node does by itself until `now`: begin, change its mind, and end in time.
    pub fn live_until(&mut self, now: Duration, random: &mut Random) {
        if self.off_since.is_some() {
            return;
        }
        for run in self.queue.clone() {
            let busy = self.jobs.values().any(|entry| entry.work.changes && entry.is_working());
            let Some(entry) = self.jobs.get_mut(&run).filter(|entry| entry.stage == Stage::Queued) else {
                self.queue.retain(|queued| *queued != run);
                continue;
            };
            if now >= entry.work.not_after {
                entry.stage = Stage::Finished(Outcome::Expired);
            } else if !(busy && entry.work.changes) && random.chance(60) {
                let limit = entry.work.limit;
                let most = u64::try_from(limit.as_millis()).unwrap();
                // One in four runs into its limit.
                let takes = if random.chance(25) { limit } else { Duration::from_millis(random.below(most)) };
                entry.stage = Stage::Working { ends: now + takes, limit: now + limit };
                self.started.push(run);
            }
        }
        for entry in self.jobs.values_mut() {
            entry.stage = match entry.stage {
                Stage::Working { .. } if random.chance(5) => {
                    let most = u64::try_from(entry.work.limit.as_millis()).unwrap();
                    let takes = Duration::from_millis(random.below(most + 1));
                    Stage::Undoing { ends: now + takes, limit: now + entry.work.limit }
                }
                Stage::Working { ends, .. } if ends <= now => Stage::Finished(random.pick(&[
                    Outcome::Succeeded,
                    Outcome::Succeeded,
                    Outcome::SucceededWithWarnings,
                    Outcome::Failed,
                ])),
                Stage::Undoing { ends, .. } if ends <= now => {
                    Stage::Finished(random.pick(&[Outcome::RolledBack, Outcome::RollbackFailed]))
                }
                other => other,
            };
        }
    }

    /// The report that tells where a job stands, and how long it may still take.
    pub fn report(&self, now: Duration, run: RunId, random: &mut Random) -> Option<Event> {
        let entry = self.jobs.get(&run)?;
        let limit = entry.work.limit;
        let (said, left) = match entry.stage {
            Stage::Finished(outcome) => return Some(Event::ended(self.id, entry.attempt, outcome)),
            Stage::Queued => (Reported::Accepted, entry.work.not_after.saturating_sub(now) + 2 * limit),
            Stage::Undoing { limit: until, .. } => (Reported::RollingBack, until.saturating_sub(now)),
            Stage::Working { limit: until, .. } => {
                let said = if random.chance(15) { Reported::Waiting } else { Reported::Running };
                (said, until.saturating_sub(now) + limit)
            }
        };
        Some(Event::reported(self.id, entry.attempt, said, self.says_limits.then_some(left)))
    }
}
