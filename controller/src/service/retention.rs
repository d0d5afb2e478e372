//! How long things are kept, and the sweep that takes away what is older. All periods stand here.
//!
//! | what | kept |
//! |---|---|
//! | report bodies and output of steps | 30 days from the end of their run; then the job's summary and digest |
//! | runs with their jobs and requests | 90 days from their end (DESIGN, "Store") |
//! | answers to idempotency keys | 30 days |
//! | join tokens and invites | 30 days from their end |
//! | records of backup archives | 400 days: a year of monthly archives |
//! | documents, the audit log | for ever: what was signed and what was done |
//!
//! A sweep works in small commits, oldest first, and can be stopped anywhere: what is half taken away is found again
//! by the next one. What a start, a list or a connect reads does not depend on how much was kept.
//! Called by the program's own timer; must never take away what is open, or the newest report of a node, which
//! the next one names.

use std::time::Duration;

use fleet_store::{Direction, Key, chunks};
use fleet_types::id::RunId;
use fleet_types::time::Timestamp;

use crate::context::Context;
use crate::error::Result;
use crate::repo::audited::AuditEntry;
use crate::repo::codec::Record;
use crate::repo::keys;
use crate::repo::reader::{BatchExt as _, PAGE, Stored};
use crate::repo::records::{
    BackupRecord, IdempotencyRecord, InviteRecord, JobRecord, RunRecord, TokenRecord,
};

const DAY: Duration = Duration::from_hours(24);
const BODIES: Duration = DAY.saturating_mul(30);
const RUNS: Duration = DAY.saturating_mul(90);
const ANSWERS: Duration = DAY.saturating_mul(30);
const TOKENS: Duration = DAY.saturating_mul(30);
const BACKUPS: Duration = DAY.saturating_mul(400);

/// Report bodies a commit. Each is at most 512 KiB in parts of 7 KiB: eight of them stay below the store's 1,024
/// operations.
const BODIES_A_COMMIT: usize = 8;
/// Jobs a commit: two deletes each.
const JOBS_A_COMMIT: usize = 400;

/// What a sweep took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Runs whose report bodies and output went.
    pub bodies: usize,
    /// Runs that went as a whole.
    pub runs: usize,
    /// Answers, tokens, invites and records of archives.
    pub others: usize,
}

/// Takes away what is older than its period at the present time.
pub async fn sweep(context: &Context) -> Result<Swept> {
    let now = context.clock.now();
    let mut swept = Swept::default();
    let mut after: Option<Key> = None;
    loop {
        let page =
            context.repo.page::<RunRecord>(keys::RUNS, after.as_ref(), PAGE, Direction::Ascending).await?;
        let last = page.len() < PAGE;
        after = page.last().map(|(key, _)| key.clone());
        for (_, stored) in page {
            let run = &stored.record;
            let Some(ended) = run.ended.filter(|_| run.state.is_terminal()) else { continue };
            if is_over(ended, BODIES, now) && run.bodies_gone.is_none() {
                take_bodies(context, &stored, now).await?;
                swept.bodies += 1;
            } else if is_over(ended, RUNS, now) {
                take_run(context, run).await?;
                swept.runs += 1;
            }
        }
        if last {
            break;
        }
    }
    let token = |token: &TokenRecord| is_over(token.expires, TOKENS, now);
    let invite = |invite: &InviteRecord| is_over(invite.expires, TOKENS, now);
    let backup = |backup: &BackupRecord| is_over(backup.made, BACKUPS, now);
    swept.others += take_answers(context, now).await?;
    swept.others += take_records(context, keys::JOIN_TOKENS, token).await?;
    swept.others += take_records(context, keys::INVITES, invite).await?;
    swept.others += take_records(context, keys::BACKUPS, backup).await?;
    Ok(swept)
}

fn is_over(from: Timestamp, period: Duration, now: Timestamp) -> bool {
    now >= from.plus(period)
}

/// The bodies of a run's reports and the output of its steps; what the job says of them stays.
async fn take_bodies(context: &Context, stored: &Stored<RunRecord>, now: Timestamp) -> Result<()> {
    let run = stored.record.run;
    context.output.forget(run).await?;
    let mut batch = context.audited.batch().using_reserve();
    let mut taken = 0;
    for (_, job) in context.repo.all::<JobRecord>(&keys::jobs_of(run)).await? {
        for report in [job.record.report, job.record.late_report].into_iter().flatten() {
            // The node's next report names this one: it stays until that has come.
            let next = keys::report(job.record.node, report.chain, report.sequence.saturating_add(1))?;
            if context.repo.write_id(&next).await?.is_none() {
                continue;
            }
            let key = keys::report(job.record.node, report.chain, report.sequence)?;
            batch = chunks::delete_object(context.repo.store().as_ref(), batch, &key).await?;
            taken += 1;
            if taken % BODIES_A_COMMIT == 0 {
                context.audited.commit(batch, vec![]).await?;
                batch = context.audited.batch().using_reserve();
            }
        }
    }
    let record = RunRecord { bodies_gone: Some(now), ..stored.record.clone() };
    let batch = batch.replace_record(keys::run(run)?, stored.write_id, &record)?;
    context
        .audited
        .commit(batch, vec![leaf(context, run, "the bodies of its reports and their output")])
        .await?;
    Ok(())
}

/// A run with its jobs and its request.
async fn take_run(context: &Context, run: &RunRecord) -> Result<()> {
    let jobs = context.repo.all::<JobRecord>(&keys::jobs_of(run.run)).await?;
    for chunk in jobs.chunks(JOBS_A_COMMIT) {
        let mut batch = context.audited.batch().using_reserve();
        for (key, job) in chunk {
            batch = batch.delete(key.clone()).delete(keys::node_job(job.record.node, run.run)?);
        }
        context.audited.commit(batch, vec![]).await?;
    }
    let batch = context.audited.batch().using_reserve();
    let batch = batch.delete(keys::run(run.run)?).delete(keys::run_by_time(run.started, run.run)?);
    let request = keys::content(&run.authority.digest())?;
    let batch = chunks::delete_object(context.repo.store().as_ref(), batch, &request).await?;
    context.audited.commit(batch, vec![leaf(context, run.run, "the run with its jobs")]).await?;
    Ok(())
}

fn leaf(context: &Context, run: RunId, what: &str) -> AuditEntry {
    AuditEntry::new(context.audited.actor(), "run.prune", format!("run/{run}"))
        .because(format!("kept long enough: {what}"))
}

/// Records below a prefix that are over. Replaced meanwhile, they stay.
async fn take_records<R: Record>(
    context: &Context,
    prefix: &str,
    over: impl Fn(&R) -> bool,
) -> Result<usize> {
    let mut taken = 0;
    let mut after: Option<Key> = None;
    loop {
        let page = context.repo.page::<R>(prefix, after.as_ref(), PAGE, Direction::Ascending).await?;
        let last = page.len() < PAGE;
        after = page.last().map(|(key, _)| key.clone());
        let mut batch = context.audited.batch().using_reserve();
        let mut gone = 0;
        for (key, _) in page.into_iter().filter(|(_, stored)| over(&stored.record)) {
            batch = batch.delete(key);
            gone += 1;
        }
        if gone > 0 {
            context.audited.commit(batch, vec![]).await?;
            taken += gone;
        }
        if last {
            return Ok(taken);
        }
    }
}

/// Answers to idempotency keys; they are objects.
async fn take_answers(context: &Context, now: Timestamp) -> Result<usize> {
    let store = context.repo.store().as_ref();
    let mut taken = 0;
    let mut after: Option<Key> = None;
    loop {
        let prefix = keys::IDEMPOTENCY.as_bytes();
        let page = store.scan(prefix, after.as_ref(), PAGE, Direction::Ascending).await?;
        let last = page.len() < PAGE;
        after = page.last().map(|(key, _)| key.clone());
        for (key, _) in page.into_iter().filter(|(key, _)| keys::is_idempotency_head(key)) {
            let answer = context.repo.object_record::<IdempotencyRecord>(&key).await?;
            if answer.is_some_and(|answer| is_over(answer.at, ANSWERS, now)) {
                let batch = context.audited.batch().using_reserve();
                let batch = chunks::delete_object(store, batch, &key).await?;
                context.audited.commit(batch, vec![]).await?;
                taken += 1;
            }
        }
        if last {
            return Ok(taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fleet_store::MemoryStore;
    use fleet_types::digest::Digest;
    use fleet_types::id::Attempt;
    use fleet_types::job::{JobState, Outcome};
    use fleet_types::run::RunState;

    use super::*;
    use crate::clock::Clock;
    use crate::repo::output_files::OutputOf;
    use crate::repo::records::{Mark, ReportRecord, StoredReport};
    use crate::testing::{TestContext, agent, job_record, run_record};

    /// Writes a run that ended now, with one job, its report and some output.
    async fn ended_run(context: &Context, number: u64, sequence: u64) {
        let (now, node) = (context.clock.now(), agent(1));
        let run = RunId::new(now, u32::try_from(number).unwrap());
        let payload = vec![7; 20_000];
        let report = StoredReport { chain: 0, sequence, digest: Digest::of(&payload) };
        let record = RunRecord {
            authority: fleet_types::authority::Authority::Request(Digest::of(&number.to_be_bytes())),
            state: RunState::Succeeded,
            ended: Some(now),
            ..run_record(run, now)
        };
        let job = JobRecord {
            state: JobState::ended(Outcome::Succeeded, ""),
            ended: Some(now),
            report: Some(report),
            ..job_record(run, &node)
        };
        let body = ReportRecord { payload, signature: vec![1; 64], received: now, journal_sequence: 1 };
        let answer = IdempotencyRecord {
            arguments: record.authority.digest(),
            answer: serde_json::Value::Null,
            at: now,
        };
        let operator = crate::testing::operator().record.id;
        let batch = context
            .audited
            .batch()
            .put_record(keys::run(run).unwrap(), &record)
            .and_then(|batch| batch.put_record(keys::job(run, node.node)?, &job))
            .and_then(|batch| batch.put_record(keys::node_job(node.node, run)?, &Mark {}))
            .and_then(|batch| batch.put_record(keys::run_by_time(record.started, run)?, &Mark {}))
            .and_then(|batch| batch.put_object(&keys::content(&record.authority.digest())?, b"request"))
            .and_then(|batch| batch.put_object_record(&keys::report(node.node, 0, sequence)?, &body))
            .and_then(|batch| {
                batch.put_object_record(&keys::idempotency(operator, &record.authority.digest())?, &answer)
            })
            .unwrap();
        context.audited.commit(batch, vec![]).await.unwrap();
        let of = OutputOf { run, node: node.node, attempt: Attempt(1), step: "s".to_owned() };
        context.output.append(&of, 0, vec![1; 100], true).await.unwrap();
    }

    async fn keys_below(context: &Context, prefix: &str) -> usize {
        let store = context.repo.store();
        let (mut count, mut after) = (0, None);
        loop {
            let page =
                store.scan(prefix.as_bytes(), after.as_ref(), PAGE, Direction::Ascending).await.unwrap();
            count += page.len();
            match page.last() {
                Some((key, _)) if page.len() == PAGE => after = Some(key.clone()),
                _ => return count,
            }
        }
    }

    #[tokio::test]
    async fn ten_months_leave_what_ninety_days_leave() {
        let start = Timestamp::clamped(1_800_000_000_000);
        let test = TestContext::at(Arc::new(MemoryStore::new()), Clock::manual(start)).await;
        let context = &test.context;
        let mut sizes = Vec::new();
        for day in 0..300 {
            context.clock.set(start.plus(DAY * day));
            ended_run(context, u64::from(day), u64::from(day) + 1).await;
            sweep(context).await.unwrap();
            let mut size = 0;
            for prefix in ["run/", "job/", "node-job/", "content/", "report/", keys::IDEMPOTENCY] {
                size += keys_below(context, prefix).await;
            }
            sizes.push(size);
        }
        assert_eq!(sizes[120], sizes[299], "flat once the longest period is over");
        assert_eq!(keys_below(context, "run/").await, 90);
        assert_eq!(keys_below(context, "job/").await, 90);
        // A report of 20,000 bytes, base 64 in JSON, has a head and three parts.
        assert_eq!(keys_below(context, "report/").await, 30 * 4);
        assert_eq!(keys_below(context, keys::IDEMPOTENCY).await, 30);
        assert_eq!(context.output.runs().await.unwrap(), 30);
        // The newest report stays however old it is: the next one names it.
        context.clock.set(start.plus(DAY * 1_000));
        sweep(context).await.unwrap();
        sweep(context).await.unwrap();
        assert_eq!(keys_below(context, "report/").await, 4);
        assert_eq!((keys_below(context, "run/").await, keys_below(context, "job/").await), (0, 0));
        assert_eq!(sweep(context).await.unwrap(), Swept::default());
    }
}
