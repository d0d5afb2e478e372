//! All jobs that the journal knows, and which of them may be forgotten.
//!
//! Pure. Called by the dispatcher, which owns it.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_types::id::{Attempt, RunId};
use fleet_types::time::Timestamp;

use super::entry::Entry;
use super::record::{JobKey, JobRecord};

/// Ended jobs are remembered this long, and past their request's end (security-and-delivery §2.5).
pub const REMEMBERED: Duration = Duration::from_hours(60 * 24);

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
    pub fn newest_report(&self) -> Option<(u64, fleet_types::digest::Digest)> {
        self.jobs.values().filter_map(|job| job.finished.as_ref()).map(|f| (f.sequence, f.report)).max()
    }

    /// May this job be forgotten at `now`? Open jobs and unsent reports never.
    pub fn may_forget(job: &JobRecord, now: Timestamp) -> bool {
        if job.is_open() || job.is_unacknowledged() {
            return false;
        }
        let ended = job.finished.as_ref().map(|f| f.at).or(job.stopped_at);
        let request_ends = job
            .finished
            .as_ref()
            .map(|f| f.request_ends)
            .or_else(|| job.accepted.as_ref().map(|a| a.request_ends));
        ended.is_none_or(|at| now > at.plus(REMEMBERED)) && request_ends.is_none_or(|at| now > at)
    }
}
