//! What a scripted agent knows of its jobs. Synchronous; outlives links.
//!
//! It has the rules of the real one: a job starts at most once, a cancel that comes first leaves a tombstone,
//! every report has the next number and names the one before it, and is made once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet_proto::convert::JobUpdate;
use fleet_proto::pb;
use fleet_types::authority::Authority;
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, FleetId, Generation, JobId, LinkEpoch, NodeId, RunId};
use fleet_types::job::{JobState, Outcome};
use fleet_types::report::{BootSpan, REPORT_SCHEMA, Report, StepReport, StepState, TaskReport};
use fleet_types::seal::{Kind, SigningKey};

use crate::clock;

/// Names a job of this node.
pub type JobKey = (RunId, Attempt);

/// A report as it was made and signed, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedReport {
    /// Canonical JSON of the report.
    pub payload: Vec<u8>,
    /// The node's signature.
    pub signature: Vec<u8>,
    /// Digest of the payload.
    pub digest: Digest,
}

impl SealedReport {
    /// As a message.
    pub fn message(&self, key: JobKey) -> pb::SealedReport {
        pb::SealedReport {
            run: key.0.to_string(),
            attempt: key.1.0,
            payload: self.payload.clone(),
            signature: self.signature.clone(),
        }
    }
}

/// What is known of one job.
#[derive(Debug, Clone)]
pub struct Job {
    /// Digest of its request.
    pub request: Digest,
    /// Where it stands.
    pub state: JobState,
    /// Its report, once it has ended.
    pub report: Option<SealedReport>,
    /// Did the controller acknowledge the report?
    pub acked: bool,
    /// How often it was started: never more than once.
    pub starts: u32,
    /// How often it was assigned.
    pub offers: u32,
    /// How often its report was sent.
    pub sent: u32,
    /// How often its report was acknowledged, lost acknowledgements included.
    pub acks: u32,
    /// Was it asked to stop?
    pub cancelled: bool,
}

/// What became of an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It is new, and accepted.
    Accepted,
    /// It is in hand already.
    InHand,
    /// It has ended; the stored report is the answer.
    Ended,
}

/// One node's journal.
pub struct Journal {
    fleet: FleetId,
    node: NodeId,
    key: SigningKey,
    /// Jobs by run and attempt.
    pub jobs: BTreeMap<JobKey, Job>,
    /// Runs whose cancel came before their assignment.
    pub tombstones: BTreeSet<RunId>,
    /// Number of the newest frame.
    pub frames: u64,
    /// Reports made.
    pub reports: u64,
    /// Digest of the newest report.
    pub previous: Option<Digest>,
    /// Highest fencing values seen.
    pub seen: (Generation, LinkEpoch),
    /// What the controller did that it must never do.
    pub faults: Vec<String>,
}

impl Journal {
    /// An empty journal.
    pub fn new(fleet: FleetId, node: NodeId, key: SigningKey) -> Self {
        Self {
            fleet,
            node,
            key,
            jobs: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            frames: 0,
            reports: 0,
            previous: None,
            seen: (Generation(0), LinkEpoch(0)),
            faults: Vec::new(),
        }
    }

    /// Whose journal it is.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The one job of a run.
    pub fn job(&self, run: RunId) -> Option<&Job> {
        self.jobs.get(&(run, Attempt(1)))
    }

    /// Takes an assignment.
    pub fn on_assign(&mut self, key: JobKey, request: Digest) -> Result<Offered> {
        if let Some(job) = self.jobs.get_mut(&key) {
            job.offers += 1;
            return Ok(if job.report.is_some() { Offered::Ended } else { Offered::InHand });
        }
        let buried = self.tombstones.contains(&key.0);
        self.frames += 1;
        let job = Job {
            request,
            state: JobState::Accepted,
            report: None,
            acked: false,
            starts: u32::from(!buried),
            offers: 1,
            sent: 0,
            acks: 0,
            cancelled: buried,
        };
        self.jobs.insert(key, job);
        if buried {
            self.finish(key, Outcome::Cancelled, "cancelled before it began")?;
            return Ok(Offered::Ended);
        }
        Ok(Offered::Accepted)
    }

    /// The job runs its one step.
    pub fn on_running(&mut self, key: JobKey) {
        self.frames += 1;
        if let Some(job) = self.jobs.get_mut(&key) {
            job.state = JobState::Running { step: "metrics".to_owned(), since: clock::now() };
        }
    }

    /// Ends a job: makes and signs its report. A job that has ended stays as it is.
    pub fn finish(&mut self, key: JobKey, outcome: Outcome, reason: &str) -> Result<()> {
        let job = self.jobs.get(&key).context("no such job")?;
        if job.report.is_some() {
            return Ok(());
        }
        let report = self.report(key, job.request, outcome, reason);
        let sealed = self.seal(&report)?;
        self.reports = report.sequence;
        self.previous = Some(sealed.digest);
        self.frames += 1;
        if let Some(job) = self.jobs.get_mut(&key) {
            job.state = JobState::ended(outcome, reason);
            job.report = Some(sealed);
        }
        Ok(())
    }

    /// The next report of this node, not yet signed and not remembered.
    pub fn report(&self, key: JobKey, request: Digest, outcome: Outcome, reason: &str) -> Report {
        let now = clock::now();
        let step = StepReport {
            id: "metrics".to_owned(),
            title: "Collect metrics".to_owned(),
            action: "metrics.collect".to_owned(),
            state: if outcome.is_success() { StepState::Succeeded } else { StepState::Failed },
            cause: None,
            started: Some(now),
            took_ms: 1,
            tries: 1,
            output: None,
            output_kept: None,
            body: TaskReport {
                summary: "a scripted node has no metrics".to_owned(),
                ..TaskReport::default()
            },
        };
        Report {
            schema: REPORT_SCHEMA.to_owned(),
            job: JobId::first(key.0, self.node),
            attempt: key.1,
            authority: Authority::Request(request),
            sequence: self.reports + 1,
            previous: self.previous,
            new_chain: None,
            outcome,
            cause: None,
            reason: reason.to_owned(),
            started: now.minus(Duration::from_millis(1)),
            ended: now,
            boot: BootSpan {
                id: "00000000-0000-4000-8000-000000000000".to_owned(),
                started_ms: Some(1),
                ended_ms: 2,
            },
            checkpoint: None,
            working_ms: 1,
            steps: vec![step],
            plan: None,
        }
    }

    /// Signs a report, whatever it says.
    pub fn seal(&self, report: &Report) -> Result<SealedReport> {
        let payload = canonical::to_vec(report)?;
        let digest = Digest::of(&payload);
        let signature = self.key.sign(Kind::Report, self.fleet, digest);
        Ok(SealedReport { payload, signature, digest })
    }

    /// A job as the controller hears of it.
    pub fn update(&self, key: JobKey) -> Option<pb::JobUpdate> {
        let job = self.jobs.get(&key)?;
        Some(pb::JobUpdate::from(&JobUpdate {
            run: key.0,
            attempt: key.1,
            state: job.state.clone(),
            journal_sequence: self.frames,
            report: job.report.as_ref().map(|report| report.digest),
            request: Some(job.request),
            limits: None,
        }))
    }

    /// Jobs that are not finished or not acknowledged, for reconcile.
    pub fn open(&self) -> Vec<JobKey> {
        self.jobs.iter().filter(|(_, job)| !job.acked).map(|(key, _)| *key).collect()
    }

    /// Reports that wait for their acknowledgement.
    pub fn unacknowledged(&self) -> Vec<JobKey> {
        self.jobs.iter().filter(|(_, job)| job.report.is_some() && !job.acked).map(|(key, _)| *key).collect()
    }

    /// An acknowledgement arrived; `lost` ones are counted and forgotten.
    pub fn on_ack(&mut self, key: JobKey, digest: Digest, lost: bool) {
        let Some(job) = self.jobs.get_mut(&key) else {
            return self
                .faults
                .push(format!("a report of run {} was acknowledged that was never made", key.0));
        };
        job.acks += 1;
        if job.report.as_ref().map(|report| report.digest) != Some(digest) {
            return self.faults.push(format!("another report of run {} was acknowledged", key.0));
        }
        if !lost {
            job.acked = true;
            self.frames += 1;
        }
    }

    /// The report key's public half.
    pub fn report_key(&self) -> fleet_types::seal::PublicKey {
        self.key.public()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Journal {
        let id = uuid::Uuid::from_u128(1);
        Journal::new(FleetId::from_uuid(id), NodeId::from_uuid(id), SigningKey::generate().unwrap().0)
    }

    #[test]
    fn a_job_starts_once_and_its_reports_form_a_chain() {
        let mut journal = journal();
        let keys = [1, 2].map(|n| (RunId::from_number(n), Attempt(1)));
        for key in keys {
            assert_eq!(journal.on_assign(key, Digest::of(b"r")).unwrap(), Offered::Accepted);
            assert_eq!(journal.on_assign(key, Digest::of(b"r")).unwrap(), Offered::InHand);
            journal.finish(key, Outcome::Succeeded, "").unwrap();
            assert_eq!(journal.on_assign(key, Digest::of(b"r")).unwrap(), Offered::Ended);
            assert_eq!(journal.jobs[&key].starts, 1);
        }
        let read = |n: usize| -> Report {
            canonical::from_slice(&journal.jobs[&keys[n]].report.as_ref().unwrap().payload).unwrap()
        };
        let first = journal.jobs[&keys[0]].report.as_ref().unwrap().digest;
        assert_eq!((read(0).sequence, read(0).previous), (1, None));
        assert_eq!((read(1).sequence, read(1).previous), (2, Some(first)));
    }

    #[test]
    fn a_cancel_that_came_first_ends_the_job_unstarted() {
        let mut journal = journal();
        let key = (RunId::from_number(1), Attempt(1));
        journal.tombstones.insert(key.0);
        assert_eq!(journal.on_assign(key, Digest::of(b"r")).unwrap(), Offered::Ended);
        assert_eq!(journal.jobs[&key].starts, 0);
        assert_eq!(journal.jobs[&key].state.outcome(), Some(Outcome::Cancelled));
    }
}
