//! Reports of ended jobs: checked, chained, stored with their audit leaf, and only then acknowledged.
//!
//! A repeated report is answered from what is stored. Terminal states never change: a report after the end is
//! kept beside it, one a job (security-and-delivery §2.2, §2.6). Reports of a node form a chain of numbers and
//! digests; each is taken only behind the one before it (§3.6). A node whose reports contradict what is stored, or
//! speak of work that this store never gave it, is held until an operator looks (docs/adr/0016).

mod archives;
mod gates;

use std::sync::Arc;
use std::time::Duration;

use fleet_store::{Batch, Direction, chunks};
use fleet_types::authority::Authority;
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, Generation, NodeId, RunId};
use fleet_types::job::{JobState, Outcome, Phase, check_reachable};
use fleet_types::plan::NodePlan;
use fleet_types::report::{MAX_REPORT_BYTES, NOT_AVAILABLE, Problem, Report, StepState};
use fleet_types::seal::Kind as SealKind;
use fleet_types::severity::Severity;
use fleet_types::time::Timestamp;
use fleet_types::view::Health;

use super::caller::Agent;
use super::{holds, retention};
use crate::context::{Context, Identities, Memory, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::fleet::node_cache::Known;
use crate::repo::audited::AuditEntry;
use crate::repo::jobs::{self, JobRecord};
use crate::repo::nodes::{self, HealthRecord, NodeRecord};
use crate::repo::reader::{BatchExt as _, Stored};
use crate::repo::reports::{self, ReportRecord, StoredReport};
use crate::repo::runs::{self, RunRecord};

/// Code of the error for a report whose predecessor is not here: it is not stored and not acknowledged.
pub const GAP: &str = "report-gap";

/// A sealed report as it arrives.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// The run it claims.
    pub run: RunId,
    /// The attempt it claims.
    pub attempt: Attempt,
    /// JSON of the report.
    pub payload: Vec<u8>,
    /// The node's signature.
    pub signature: Vec<u8>,
}

/// Stores a report. Returns its digest for the acknowledgement.
pub async fn report(context: &Context, agent: &Agent, arrived: &Arrived) -> Result<Digest> {
    let (report, node) = check_report(&context.memory, &context.identities, agent, arrived)?;
    let digest = Digest::of(&arrived.payload);
    let at = StoredReport { chain: node.chain, sequence: report.sequence, digest };
    // An answer for gates may come again when the node has been asked anew: what is stored tells it.
    if matches!(report.authority, Authority::Gates(_))
        && stored_digest(&context.storage, agent.node, at.chain, at.sequence).await? == Some(digest)
    {
        return Ok(digest);
    }
    loop {
        let job = context.storage.repo.get::<JobRecord>(&jobs::key(arrived.run, agent.node)?).await?;
        let is_this = |stored: Option<StoredReport>| stored.is_some_and(|stored| stored.digest == digest);
        if job.as_ref().is_some_and(|job| is_this(job.record.report) || is_this(job.record.late_report)) {
            return Ok(digest);
        }
        let origin =
            origin(&context.storage, &context.identities, &report, job.as_ref().map(|job| &job.record))
                .await?;
        if let Origin::Unexplained(why) = &origin {
            // Work of the time before an operator took the node as it is: let go, and nothing is stored of it.
            if node.released.is_some_and(|released| report.ended < released) {
                return Ok(digest);
            }
            return Err(holds::shut_out(context, agent.actor(), agent.node, why).await?);
        }
        let is_forgotten = matches!(origin, Origin::Forgotten);
        if is_forgotten && was_taken_away(&context.storage, agent.node, &at).await? {
            return Ok(digest);
        }
        match place_in_chain(&context.storage, &context.memory, agent, &at, &report).await? {
            Place::Stored => return Ok(digest),
            Place::Contradicts(why) => {
                let why = format!("{why}: it was restored from an image, or another machine has its key");
                return Err(holds::shut_out(context, agent.actor(), agent.node, &why).await?);
            }
            Place::Next => {}
        }
        let stored = if is_forgotten {
            store_forgotten(&context.storage, &context.memory, agent, arrived, at).await
        } else {
            let Context { storage, memory, .. } = context;
            match (report.authority, job) {
                (Authority::Gates(_), Some(job)) => {
                    gates::store(storage, memory, agent, arrived, &report, at, job).await
                }
                (_, job) => store(storage, memory, agent, arrived, &report, at, job).await,
            }
        };
        match stored {
            // The runner changed the job in between (an expiry, a lost), or the number was taken: look again.
            Err(error) if error.kind == Kind::Conflict => context.memory.report_heads.forget(agent.node),
            Err(error) => return Err(error),
            Ok(()) => {
                context.memory.report_heads.stored(agent.node, at.sequence, digest);
                return Ok(digest);
            }
        }
    }
}

/// Signature, and that it says of itself what the message says of it (§3.6).
fn check_report(
    memory: &Memory,
    identities: &Identities,
    agent: &Agent,
    arrived: &Arrived,
) -> Result<(Report, Arc<NodeRecord>)> {
    let refuse = |why: String| {
        tracing::warn!(node = %agent.name, run = %arrived.run, "report refused: {why}");
        ControllerError::new(Kind::Refused, "report-refused", format!("the report is refused: {why}"))
    };
    if arrived.payload.len() > MAX_REPORT_BYTES {
        return Err(refuse(format!("{} bytes, at most {MAX_REPORT_BYTES}", arrived.payload.len())));
    }
    let known = memory.node_cache.get(agent.node).ok_or_else(|| refuse("the node is unknown".to_owned()))?;
    let key = known.record.report_key.ok_or_else(|| refuse("the node has no report key".to_owned()))?;
    key.verify(SealKind::Report, identities.fleet.fleet, Digest::of(&arrived.payload), &arrived.signature)
        .map_err(|error| refuse(error.to_string()))?;
    let report: Report =
        canonical::from_slice(&arrived.payload).map_err(|error| refuse(error.to_string()))?;
    let own = (arrived.run, agent.node, arrived.attempt);
    if (report.job.run, report.job.node, report.attempt) != own {
        return Err(refuse(format!("it is of job {} attempt {}", report.job, report.attempt.0)));
    }
    Ok((report, known.record))
}

/// What this store knows of the work that a report is about.
enum Origin {
    /// It was offered here, or is adopted.
    Explained,
    /// Its run is so old that it may have been taken away (service/retention.rs).
    Forgotten,
    /// No offer of this store explains it, for this reason.
    Unexplained(String),
}

/// What explains a report. A store that was declared to be restored may have lost the runs that its nodes speak of: then
/// they are adopted.
async fn origin(
    storage: &Storage,
    identities: &Identities,
    report: &Report,
    job: Option<&JobRecord>,
) -> Result<Origin> {
    let id = report.job.run;
    if job.is_none() && retention::may_be_gone(id, storage.clock.now()) {
        return Ok(Origin::Forgotten);
    }
    let run = storage.repo.get::<RunRecord>(&runs::key(id)?).await?;
    Ok(match (run, job) {
        (None, None) if is_restored(identities) => Origin::Explained,
        (None, _) => Origin::Unexplained(format!(
            "it reports on run {id}, which this store does not have: the store is older than the node's work, or another machine has its key"
        )),
        (Some(run), Some(job)) if report.authority == Authority::Gates(run.record.authority.digest()) => {
            gates::explained(job, report).map_or_else(Origin::Unexplained, |()| Origin::Explained)
        }
        // An attempt is of one stage.
        (Some(_), Some(job)) if job.attempt == report.attempt && job.stage != report.job.stage => {
            Origin::Unexplained(format!("it reports on another stage of run {id} than it was given"))
        }
        (Some(run), Some(job)) if run.record.authority == report.authority => match job.late_report {
            Some(_) => Origin::Unexplained(format!("it sends another late report on run {id}")),
            None => Origin::Explained,
        },
        (Some(_), _) => Origin::Unexplained(format!("it reports on run {id}, which gave it no such work")),
    })
}

/// Has the store been put back to an older state, and was that said?
pub fn is_restored(identities: &Identities) -> bool {
    identities.fleet.generation > Generation::FIRST
}

/// Where a report stands in its node's chain.
enum Place {
    /// Behind the newest.
    Next,
    /// It is stored.
    Stored,
    /// It cannot be of the node whose reports are stored.
    Contradicts(String),
}

/// The report's number is free, and it names the report before it.
async fn place_in_chain(
    storage: &Storage,
    memory: &Memory,
    agent: &Agent,
    at: &StoredReport,
    report: &Report,
) -> Result<Place> {
    let (node, chain, sequence) = (agent.node, at.chain, at.sequence);
    let previous = report.previous;
    // Right behind the newest one that this process has stored: that its number is free is the commit's to see.
    if let Some((newest, newest_digest)) = memory.report_heads.of(node)
        && newest.checked_add(1) == Some(sequence)
        && previous == Some(newest_digest)
    {
        return Ok(Place::Next);
    }
    match stored_digest(storage, node, chain, sequence).await? {
        Some(stored) if stored == at.digest => return Ok(Place::Stored),
        Some(_) => return Ok(Place::Contradicts(format!("it has two reports with the number {sequence}"))),
        None => {}
    }
    // The node lost a part of its chain and says so (docs/adr/0014): nothing goes before this one.
    if report.new_chain.is_some() {
        let contradicts =
            || Place::Contradicts(format!("its report {sequence} begins a chain and follows one"));
        return Ok(if previous.is_none() { Place::Next } else { contradicts() });
    }
    let before = match sequence.checked_sub(1) {
        None => return Ok(Place::Contradicts("it has a report with the number 0".to_owned())),
        Some(0) => None,
        Some(before) => {
            let stored = stored_digest(storage, node, chain, before).await?;
            if stored.is_none() {
                // An operator took the node as it is: the chain begins wherever the node stands.
                if chain > 0 && newest_sequence(storage, node, chain).await?.is_none() {
                    return Ok(Place::Next);
                }
                // Sent too early, or the one before it is gone for good; which of them, time will tell.
                let why = format!("report {sequence} of {} came, report {before} did not", agent.name);
                return Err(ControllerError::new(Kind::Unavailable, GAP, why));
            }
            stored
        }
    };
    if previous == before {
        return Ok(Place::Next);
    }
    Ok(Place::Contradicts(format!("its report {sequence} does not follow the one before it")))
}

/// The number of the newest stored report of a chain.
pub async fn newest_sequence(storage: &Storage, node: NodeId, chain: u32) -> Result<Option<u64>> {
    let prefix = reports::of_chain(node, chain);
    let newest = storage.repo.store().scan(prefix.as_bytes(), None, 1, Direction::Descending).await?;
    Ok(newest.first().and_then(|(key, _)| reports::sequence_in(key, &prefix)))
}

/// The newest journal frame that stood behind a stored report of a node; 0 when there is none.
pub async fn newest_journal_sequence(storage: &Storage, node: NodeId, chain: u32) -> Result<u64> {
    let Some(newest) = newest_sequence(storage, node, chain).await? else { return Ok(0) };
    let stored = storage.repo.object_record::<ReportRecord>(&reports::key(node, chain, newest)?).await?;
    Ok(stored.map_or(0, |record| record.journal_sequence))
}

/// Was there a report with this number, as far as reports are kept? They are stored in order.
async fn was_taken_away(storage: &Storage, node: NodeId, at: &StoredReport) -> Result<bool> {
    let newest = newest_sequence(storage, node, at.chain).await?;
    let is_kept = storage.repo.write_id(&reports::key(node, at.chain, at.sequence)?).await?.is_some();
    Ok(!is_kept && newest.is_some_and(|newest| newest >= at.sequence))
}

/// A report as it is stored, in a batch that takes its number.
fn numbered(
    storage: &Storage,
    memory: &Memory,
    agent: &Agent,
    arrived: &Arrived,
    at: &StoredReport,
) -> Result<(Batch, Known)> {
    let known = memory.node_cache.get(agent.node);
    let known = known.ok_or_else(|| ControllerError::not_found("node", agent.node))?;
    let record = ReportRecord {
        payload: arrived.payload.clone(),
        signature: arrived.signature.clone(),
        received: storage.clock.now(),
        journal_sequence: known.journal_sequence.unwrap_or(0),
    };
    let key = reports::key(agent.node, at.chain, at.sequence)?;
    Ok((storage.audited.batch().if_absent(key.clone()).put_object_record(&key, &record)?, known))
}

/// A node was away for longer than its run was kept. Its report says nothing to anybody any more, and the next one names
/// it: it takes its place in the chain, and that of such a one before it, so that nobody fills the store with runs of
/// long ago. The audit log was told when the node listed the job.
async fn store_forgotten(
    storage: &Storage,
    memory: &Memory,
    agent: &Agent,
    arrived: &Arrived,
    at: StoredReport,
) -> Result<()> {
    let (node, run) = (agent.node, arrived.run);
    let (mut batch, _) = numbered(storage, memory, agent, arrived, &at)?;
    if let Some(newest) = newest_sequence(storage, node, at.chain).await?
        && let Some((before, _)) = stored_report(storage, node, at.chain, newest).await?
        && storage.repo.write_id(&jobs::key(before.job.run, node)?).await?.is_none()
    {
        let key = reports::key(node, at.chain, newest)?;
        batch = chunks::delete_object(storage.repo.store().as_ref(), batch, &key).await?;
    }
    storage.audited.commit(batch, vec![]).await?;
    tracing::info!(node = %agent.name, %run, "a report on a run that is not kept any more");
    Ok(())
}

async fn store(
    storage: &Storage,
    memory: &Memory,
    agent: &Agent,
    arrived: &Arrived,
    report: &Report,
    at: StoredReport,
    job: Option<Stored<JobRecord>>,
) -> Result<()> {
    let now = storage.clock.now();
    let (run, node, attempt) = (arrived.run, agent.node, arrived.attempt);
    let (mut batch, known) = numbered(storage, memory, agent, arrived, &at)?;
    let leaf = AuditEntry::new(agent.actor(), "job.end", format!("run/{run}"))
        .job(report.job, attempt)
        .subject(report.authority.digest())
        .outcome(report.outcome)
        .report(at.digest, &arrived.signature);
    // Told in the same record, so that an operator sees where a chain was cut.
    let because = |reason: &str| match &report.new_chain {
        Some(lost) => format!("{reason}; a new chain of reports begins: {}", short(lost)),
        None => reason.to_owned(),
    };
    let leaf = if report.new_chain.is_some() { leaf.because(because("in time")) } else { leaf };
    let Some(job) = job else {
        // Unknown to a restored store: keep it where it can be found, and say so in the log.
        let record = adopted(agent, report, at, now);
        batch = jobs::add(batch.if_absent(runs::key(run)?).if_absent(jobs::key(run, node)?), &record)?;
        storage.audited.commit(batch, vec![leaf.because(because("adopted: unknown to this store"))]).await?;
        memory.adopted.forget(node, run);
        return Ok(());
    };
    // Storing the reports of jobs that were offered goes on from the reserve when space is short (§3.4).
    batch = batch.using_reserve();
    batch = archives::add(batch, storage, agent, report).await?;
    let (with_health, found, newest) = with_health(storage, batch, node, report, &known)?;
    batch = with_health;
    let ended = ended(report);
    let late = job.record.state.outcome().is_some() || job.record.attempt != attempt;
    if late {
        let record = JobRecord { late_report: Some(at), ..job.record };
        batch = jobs::note_late(&storage.repo, batch, job.write_id, &record).await?;
        storage.audited.commit(batch, vec![leaf.because(because("late: the job had ended here"))]).await?;
        note_health(memory, node, newest);
        memory.notifier.job_changed(run, node);
        return Ok(());
    }
    // A queued job that a node reports on was offered by a store that has since been restored.
    let from = if job.record.state == JobState::Queued { Phase::Offered } else { job.record.state.phase() };
    check_reachable(from, ended.phase())
        .map_err(|error| ControllerError::new(Kind::Refused, "report-refused", error.to_string()))?;
    let record = JobRecord {
        state: ended,
        ended: Some(now),
        took_ms: Some(u64::try_from(report.ended.since(report.started).as_millis()).unwrap_or(u64::MAX)),
        summary: summary_of(report),
        plan: plan_of(report),
        report: Some(at),
        health: found,
        ..job.record.clone()
    };
    batch = jobs::end(&storage.repo, batch, &job, &record).await?;
    storage.audited.commit(batch, vec![leaf]).await?;
    memory.sessions.clear_live(node, run);
    note_health(memory, node, newest);
    memory.notifier.job_changed(run, node);
    Ok(())
}

/// The health that a report found, and the same where it is the newest of its node: then it is written.
fn with_health(
    storage: &Storage,
    batch: Batch,
    node: NodeId,
    report: &Report,
    known: &Known,
) -> Result<(Batch, Option<Health>, Option<Health>)> {
    let found = health_of(report, storage.clock.now());
    let is_newest = |found: &Health| known.health.as_ref().is_none_or(|known| known.at <= found.at);
    let newest = found.clone().filter(is_newest);
    let batch = match &newest {
        Some(health) => batch.put_record(nodes::health(node)?, &HealthRecord { health: health.clone() })?,
        None => batch,
    };
    Ok((batch, found, newest))
}

fn note_health(memory: &Memory, node: NodeId, newest: Option<Health>) {
    if let Some(health) = newest {
        memory.node_cache.update(node, |known| known.health = Some(health));
    }
}

fn adopted(agent: &Agent, report: &Report, at: StoredReport, now: Timestamp) -> JobRecord {
    JobRecord {
        run: report.job.run,
        node: agent.node,
        node_name: agent.name.clone(),
        index: 0,
        pair: None,
        site: "-".to_owned(),
        ring: 0,
        stage: report.job.stage,
        attempt: report.attempt,
        state: ended(report),
        places: vec![],
        offered: None,
        ended: Some(now),
        took_ms: Some(u64::try_from(report.ended.since(report.started).as_millis()).unwrap_or(u64::MAX)),
        summary: summary_of(report),
        plan: plan_of(report),
        report: Some(at),
        late_report: None,
        health: health_of(report, now),
        gates: None,
    }
}

fn ended(report: &Report) -> JobState {
    JobState::Ended { outcome: report.outcome, cause: report.cause, reason: short(&report.reason) }
}

fn plan_of(report: &Report) -> Option<Digest> {
    report.plan.as_ref().and_then(NodePlan::digest)
}

/// Longest reason kept with a job; the whole stands in the report.
fn short(reason: &str) -> String {
    reason.chars().take(500).collect()
}

/// One line: what failed, else what was done.
fn summary_of(report: &Report) -> String {
    let failed = report.steps.iter().find(|step| step.state == StepState::Failed);
    let warned: Vec<&str> = report
        .steps
        .iter()
        .filter(|step| step.state == StepState::Warned)
        .map(|step| step.id.as_str())
        .collect();
    let text = match (report.outcome, failed) {
        (_, Some(step)) => format!("{}: {}", step.id, step.body.summary),
        (Outcome::SucceededWithWarnings, None) if !warned.is_empty() => {
            format!("warnings in {}", warned.join(", "))
        }
        (Outcome::Succeeded, None) => {
            let done = report.steps.iter().filter(|step| step.state == StepState::Succeeded).count();
            format!("{done} of {} steps", report.steps.len())
        }
        _ => report.reason.clone(),
    };
    text.chars().take(200).collect()
}

/// A health that was not measured again within so many times the shortest `every` of its checks is unknown: one look
/// may be missed by a restart and one by a busy node.
const LOOKS_MISSED: f64 = 3.0;
/// How long the health of a report is believed that does not say how often its checks are due: three times the
/// longest `every` of the shipped profiles.
const DEFAULT_FRESHNESS: Duration = Duration::from_mins(15);

/// The health score and problems, where a step measured them. A node whose clock is ahead does not stay healthy for longer.
fn health_of(report: &Report, now: Timestamp) -> Option<Health> {
    let step = report
        .steps
        .iter()
        .rev()
        .find(|step| step.body.samples.iter().any(|s| s.metric == "health_score"))?;
    let sample = step.body.samples.iter().find(|sample| sample.metric == "health_score")?;
    let unseen = |problem: &&Problem| problem.code == NOT_AVAILABLE;
    let bad = |problem: &&Problem| problem.severity >= Severity::Medium && !unseen(problem);
    let every = step.body.samples.iter().find(|sample| sample.metric == "health_every");
    let freshness = every.and_then(|s| Duration::try_from_secs_f64(s.value * LOOKS_MISSED).ok());
    // A year bounds what a broken agent may say.
    let freshness = freshness.unwrap_or(DEFAULT_FRESHNESS).min(Duration::from_hours(365 * 24));
    let count = |matching: &dyn Fn(&&Problem) -> bool| {
        u32::try_from(step.body.problems.iter().filter(matching).count()).unwrap_or(u32::MAX)
    };
    let worst = step.body.problems.iter().filter(bad).max_by_key(|problem| problem.severity);
    // Scores are whole numbers from 0 to 100; anything else is a broken agent's.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let score = sample.value.clamp(0.0, 100.0).round() as u32;
    Some(Health {
        score,
        problems: count(&bad),
        unknown: count(&unseen),
        worst: worst.map(|problem| problem.message.chars().take(120).collect()).unwrap_or_default(),
        at: report.ended.min(now),
        fresh_until: Some(report.ended.min(now).plus(freshness)),
    })
}

async fn stored_digest(storage: &Storage, node: NodeId, chain: u32, sequence: u64) -> Result<Option<Digest>> {
    let key = reports::key(node, chain, sequence)?;
    let stored = storage.repo.object_record::<ReportRecord>(&key).await?;
    Ok(stored.map(|record| Digest::of(&record.payload)))
}

/// A node's stored report by its chain and number, with its digest.
pub async fn stored_report(
    storage: &Storage,
    node: NodeId,
    chain: u32,
    sequence: u64,
) -> Result<Option<(Report, Digest)>> {
    let key = reports::key(node, chain, sequence)?;
    let Some(record) = storage.repo.object_record::<ReportRecord>(&key).await? else { return Ok(None) };
    let digest = Digest::of(&record.payload);
    Ok(Some((canonical::from_slice(&record.payload).map_err(ControllerError::internal)?, digest)))
}

#[cfg(test)]
mod tests;
