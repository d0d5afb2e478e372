//! All jobs that the journal knows, and which of them may be forgotten.
//!
//! Pure. Called by the dispatcher, which owns it.

use std::collections::{BTreeMap, BTreeSet};

use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, Generation, LinkEpoch, RunId};
use fleet_types::time::Timestamp;

use super::entry::Entry;
use super::record::{JobKey, JobRecord};
use crate::retention::{MAX_REMEMBERED_JOBS, MAX_TOMBSTONES, REMEMBERED};

/// The jobs by run and attempt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobTable {
    jobs: BTreeMap<JobKey, JobRecord>,
}

impl JobTable {
    /// Takes one entry in.
    pub fn apply(&mut self, entry: &Entry) {
        self.jobs.entry(entry.job()).or_default().apply(entry);
    }

    /// One attempt of a job.
    pub fn get(&self, key: &JobKey) -> Option<&JobRecord> {
        self.jobs.get(key)
    }

    /// All attempts in order.
    pub fn iter(&self) -> impl Iterator<Item = (&JobKey, &JobRecord)> {
        self.jobs.iter()
    }

    /// The attempts of one run.
    pub fn of_run(&self, run: RunId) -> impl Iterator<Item = (&JobKey, &JobRecord)> {
        self.jobs.range((run, Attempt(0))..=(run, Attempt(u32::MAX)))
    }

    /// How many jobs count as disruptive and began after `since`.
    pub fn disruptive_since(&self, since: Timestamp) -> usize {
        let counts =
            |job: &&JobRecord| job.accepted.as_ref().is_some_and(|a| a.disruptive && a.started > since);
        self.jobs.values().filter(counts).count()
    }

    /// The highest number of a report, with its digest.
    pub fn newest_report(&self) -> Option<(u64, Digest)> {
        self.jobs.values().filter_map(|job| job.finished.as_ref()).map(|f| (f.sequence, f.report)).max()
    }

    /// The highest fencing values of any accepted job: a floor where the state that keeps them is lost.
    pub fn newest_fence(&self) -> Option<(Generation, LinkEpoch)> {
        let accepted = self.jobs.values().filter_map(|job| job.accepted.as_ref());
        accepted.map(|a| (a.assignment.generation, a.assignment.link_epoch)).max()
    }

    /// Reports that wait for their acknowledgement.
    pub fn unacknowledged(&self) -> usize {
        self.jobs.values().filter(|job| job.is_unacknowledged()).count()
    }

    /// Forgets what may be forgotten at `now`.
    pub fn forget(&mut self, now: Timestamp) {
        for key in self.forgettable(now) {
            self.jobs.remove(&key);
        }
    }

    /// The jobs that may be forgotten at `now`: by their age, and by their number the oldest. Open jobs and unsent
    /// reports never, nor the newest report: the next one follows it.
    pub fn forgettable(&self, now: Timestamp) -> BTreeSet<JobKey> {
        let newest = self.newest_report().map(|(sequence, _)| sequence);
        let mut gone = BTreeSet::new();
        let (mut over, mut tombstones) = (Vec::new(), Vec::new());
        for (key, job) in &self.jobs {
            let is_newest = newest.is_some() && job.finished.as_ref().map(|f| f.sequence) == newest;
            if job.is_open() || job.is_unacknowledged() || is_newest {
                continue;
            }
            let ended = job.finished.as_ref().map(|f| f.at).or(job.stopped_at);
            if job.accepted.is_none() && job.finished.is_none() {
                tombstones.push((ended, *key));
            }
            let of_finished = job.finished.as_ref().map(|f| f.request_ends);
            let request_ends = of_finished.or_else(|| job.accepted.as_ref().map(|a| a.request_ends));
            if request_ends.is_some_and(|at| now <= at) {
                continue;
            }
            if ended.is_none_or(|at| now > at.plus(REMEMBERED)) {
                gone.insert(*key);
            } else if request_ends.is_some() {
                over.push((ended, *key));
            }
        }
        for (mut aged, most) in [(over, MAX_REMEMBERED_JOBS), (tombstones, MAX_TOMBSTONES)] {
            aged.sort_unstable();
            let surplus = aged.len().saturating_sub(most);
            gone.extend(aged.drain(..surplus).map(|(_, key)| key));
        }
        gone
    }
}
