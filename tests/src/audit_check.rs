//! The whole audit log and all reports compared: contiguity, root, one leaf a terminal job, digests, signatures.
//!
//! Trusts nothing that the controller derives: leaves are hashed here, in the order of their indices.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use fleet_types::audit::{AuditRecord, Decision};
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::id::JobId;
use fleet_types::merkle;
use fleet_types::seal::Kind;

use crate::fake_agent::FakeAgent;
use crate::operator_client::OperatorClient;
use crate::wait::{PATIENCE, wait_for};

/// What was found.
#[derive(Debug)]
pub struct Checked {
    /// All records, in order.
    pub records: Vec<AuditRecord>,
    /// Terminal jobs.
    pub jobs: usize,
    /// Reports that agents made and the controller stored.
    pub reports: usize,
}

impl Checked {
    /// Records of an action.
    pub fn of<'a>(&'a self, action: &'a str) -> impl Iterator<Item = &'a AuditRecord> {
        self.records.iter().filter(move |record| record.action == action)
    }

    /// Refusals whose reason contains a text.
    pub fn refused<'a>(&'a self, reason: &'a str) -> impl Iterator<Item = &'a AuditRecord> {
        self.records
            .iter()
            .filter(move |record| record.decision == Decision::Refused && record.reason.contains(reason))
    }
}

/// Reads the log, recomputes its root and checks every record's place.
pub async fn read_log(operator: &OperatorClient) -> Result<Vec<AuditRecord>> {
    // The stream is not repeated by itself: a controller that is killed just now ends it.
    wait_for("the whole audit log", PATIENCE, async || {
        let head = operator.audit_head().await?;
        let leaves = operator.audit_bytes(0, head.size).await?;
        ensure!(leaves.len() as u64 == head.size, "{} of {} records came", leaves.len(), head.size);
        let mut records = Vec::with_capacity(leaves.len());
        let mut frontier = merkle::Frontier::default();
        for (expected, (index, bytes)) in (0u64..).zip(&leaves) {
            ensure!(*index == expected, "record {index} came where {expected} was due");
            let record: AuditRecord =
                canonical::from_slice(bytes).with_context(|| format!("record {index}"))?;
            ensure!(record.index == expected, "record {} lies at place {expected}", record.index);
            ensure!(record.log == operator.fleet, "record {expected} is of another log");
            frontier.push(merkle::leaf_hash(bytes));
            records.push(record);
        }
        ensure!(frontier.root() == head.root, "the root over the records is not that of the head");
        let ids: BTreeSet<_> = records.iter().map(|record| *record.id.as_uuid()).collect();
        ensure!(ids.len() == records.len(), "a record's id is there twice");
        Ok(Some(records))
    })
    .await
}

/// Waits until a refusal whose reason contains `reason` is in the log; refusals are written every few seconds.
pub async fn wait_for_refusal(operator: &OperatorClient, reason: &str) -> Result<AuditRecord> {
    wait_for(&format!("a refusal with \"{reason}\" in the log"), PATIENCE, async || {
        let records = read_log(operator).await?;
        let found = records
            .into_iter()
            .find(|record| record.decision == Decision::Refused && record.reason.contains(reason));
        Ok(found)
    })
    .await
}

/// Checks the log, and all jobs of all runs against it and against the agents' journals.
pub async fn check(operator: &OperatorClient, agents: &[FakeAgent]) -> Result<Checked> {
    // Jobs first: their leaves are then certainly in the log.
    let mut jobs = Vec::new();
    for run in operator.runs().await? {
        jobs.extend(operator.jobs(run.run).await?);
    }
    let records = read_log(operator).await?;
    let mut ends: BTreeMap<JobId, Vec<&AuditRecord>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.action == "job.end") {
        ends.entry(record.job.context("a job.end without a job")?).or_default().push(record);
    }
    let (mut terminal, mut reports) = (0, 0);
    for item in &jobs {
        let id = JobId::first(item.run, item.node);
        let leaves = ends.remove(&id).unwrap_or_default();
        let (late, ordinary): (Vec<&AuditRecord>, Vec<&AuditRecord>) =
            leaves.into_iter().partition(|leaf| leaf.reason.starts_with("late"));
        let Some(outcome) = item.state.outcome() else {
            ensure!(ordinary.is_empty(), "the open job {id} has a leaf of its end");
            continue;
        };
        terminal += 1;
        let [leaf] = ordinary[..] else { bail!("job {id} has {} leaves of its end", ordinary.len()) };
        ensure!(leaf.outcome == Some(outcome), "job {id} is {outcome:?}, its leaf says {:?}", leaf.outcome);
        let stored = operator.job(item.run, item.node_name.as_str()).await?;
        ensure!(stored.report_digest == leaf.report, "the report of job {id} is not that of its leaf");
        ensure!(late.len() == usize::from(stored.item.late_report.is_some()), "late leaves of job {id}");
        let Some(agent) = agents.iter().find(|agent| agent.credentials().node == item.node) else { continue };
        let made = agent.journal(|journal| journal.jobs.get(&(item.run, item.attempt)).cloned());
        let sealed = made.and_then(|job| job.report);
        let known = leaf.report.or(stored.item.late_report);
        let Some(digest) = known else { continue };
        let sealed = sealed.with_context(|| format!("job {id} has a report that no agent made"))?;
        ensure!(sealed.digest == digest, "the stored report of job {id} is not the one that was sent");
        if let Some(report) = &stored.report {
            let bytes = canonical::to_vec(report)?;
            ensure!(Digest::of(&bytes) == digest && bytes == sealed.payload, "the report of {id} changed");
            let key = agent.journal(|journal| journal.report_key());
            key.verify(Kind::Report, operator.fleet, digest, &sealed.signature)
                .with_context(|| format!("the report of {id}"))?;
        }
        reports += 1;
    }
    // A job that this store never had is kept by itself: it belongs to no run.
    ends.retain(|_, leaves| !leaves.iter().all(|leaf| leaf.reason.starts_with("adopted")));
    ensure!(ends.is_empty(), "leaves of jobs that do not exist: {:?}", ends.keys().collect::<Vec<_>>());
    Ok(Checked { records, jobs: terminal, reports })
}
