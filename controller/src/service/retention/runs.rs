//! Runs that ended long ago, and jobs of which there is no run.

use fleet_store::{Batch, Direction, Key, chunks};
use fleet_types::id::RunId;
use fleet_types::job::{JobState, Outcome};
use fleet_types::time::Timestamp;

use super::{BODIES, RUNS, UNMADE, is_over};
use crate::context::{Files, Storage};
use crate::error::Result;
use crate::repo::audited::AuditEntry;
use crate::repo::documents;
use crate::repo::jobs::{self, InboxRecord, JobRecord};
use crate::repo::reader::{PAGE, Stored};
use crate::repo::runs::{self, RunRecord};

/// Jobs a commit: two deletes each.
const JOBS_A_COMMIT: usize = 400;

type Jobs = Vec<(Key, Stored<JobRecord>)>;

/// Takes away old runs, and the output of those that are not so old: how many of the latter and of the former.
pub async fn take(storage: &Storage, files: &Files, now: Timestamp) -> Result<(usize, usize)> {
    let (mut outputs, mut runs) = (0, 0);
    let mut after: Option<Key> = None;
    loop {
        let page =
            storage.repo.page::<RunRecord>(runs::ALL, after.as_ref(), PAGE, Direction::Ascending).await?;
        let is_last = page.len() < PAGE;
        after = page.last().map(|(key, _)| key.clone());
        for (_, stored) in page {
            let run = &stored.record;
            let Some(ended) = run.ended.filter(|_| run.state.is_terminal()) else { continue };
            if is_over(ended, BODIES, now) && run.bodies_gone.is_none() {
                take_output(storage, files, &stored, now).await?;
                outputs += 1;
            } else if is_over(ended, RUNS, now) {
                runs += usize::from(take_run(storage, run).await?);
            }
        }
        if is_last {
            return Ok((outputs, runs));
        }
    }
}

/// The output of a run's steps; the bodies of its reports go by their own age, and what its jobs say of them stays.
async fn take_output(
    storage: &Storage,
    files: &Files,
    stored: &Stored<RunRecord>,
    now: Timestamp,
) -> Result<()> {
    let run = stored.record.run;
    files.output.forget(run).await?;
    let record = RunRecord { bodies_gone: Some(now), ..stored.record.clone() };
    let batch = storage.audited.batch().using_reserve();
    let batch = runs::save(batch, stored.write_id, &record)?;
    let what = "the bodies of its reports and their output";
    storage.audited.commit(batch, vec![leaf(storage, run, what)]).await?;
    Ok(())
}

/// A run with its jobs, its request, and its procedure where that was made for it alone; false when it stays.
async fn take_run(storage: &Storage, run: &RunRecord) -> Result<bool> {
    let jobs = storage.repo.all::<JobRecord>(&jobs::of_run(run.run)).await?;
    if is_awaited(storage, &jobs).await? {
        return Ok(false);
    }
    take_jobs(storage, &jobs, |batch| batch).await?;
    let store = storage.repo.store().as_ref();
    let mut batch = without_procedure(storage, run).await?;
    batch = runs::remove(batch, run)?;
    batch = chunks::delete_object(store, batch, &documents::content(&run.authority.digest())?).await?;
    storage.audited.commit(batch, vec![leaf(storage, run.run, "the run with its jobs")]).await?;
    Ok(true)
}

/// Is there a node that may still come back with one of these jobs? It is told to stop and asked for its report, and
/// that takes the job, the run and the request.
async fn is_awaited(storage: &Storage, jobs: &Jobs) -> Result<bool> {
    let may_answer =
        |job: &JobRecord| job.state.outcome() == Some(Outcome::Lost) || job.open_gates().is_some();
    for (_, job) in jobs.iter().filter(|(_, job)| may_answer(&job.record)) {
        let entry = jobs::inbox_entry(job.record.node, job.record.run)?;
        if storage.repo.get::<InboxRecord>(&entry).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn take_jobs(storage: &Storage, jobs: &Jobs, only: impl Fn(Batch) -> Batch) -> Result<()> {
    for chunk in jobs.chunks(JOBS_A_COMMIT) {
        let mut batch = only(storage.audited.batch().using_reserve());
        for (_, job) in chunk {
            batch = jobs::remove(batch, &job.record)?;
        }
        storage.audited.commit(batch, vec![]).await?;
    }
    Ok(())
}

/// A batch that takes away the procedure of a run, if it was never applied and no other run has it.
async fn without_procedure(storage: &Storage, run: &RunRecord) -> Result<Batch> {
    let nothing = || storage.audited.batch().using_reserve();
    let source = documents::source(&run.procedure_digest)?;
    if run.procedure_revision.is_some() || storage.repo.write_id(&source).await?.is_some() {
        return Ok(nothing());
    }
    // Before the look at the other runs: one that begins meanwhile writes the procedure anew, and this fails.
    let made = documents::content(&run.procedure_digest)?;
    let batch = nothing().if_absent(source);
    let batch = chunks::delete_object(storage.repo.store().as_ref(), batch, &made).await?;
    let mut after: Option<Key> = None;
    loop {
        let page =
            storage.repo.page::<RunRecord>(runs::ALL, after.as_ref(), PAGE, Direction::Descending).await?;
        let has_it =
            |other: &RunRecord| other.procedure_digest == run.procedure_digest && other.run != run.run;
        if page.iter().any(|(_, other)| has_it(&other.record)) {
            return Ok(nothing());
        }
        if page.len() < PAGE {
            return Ok(batch);
        }
        after = page.last().map(|(key, _)| key.clone());
    }
}

/// Jobs whose run was never made, because its start failed in between, and those that a restored store adopted. Gives
/// the number of runs.
pub async fn take_jobs_alone(storage: &Storage, now: Timestamp) -> Result<usize> {
    let (mut taken, mut after) = (0, None);
    loop {
        let store = storage.repo.store();
        let page = store.scan(jobs::ALL.as_bytes(), after.as_ref(), 1, Direction::Ascending).await?;
        let Some((key, _)) = page.into_iter().next() else { return Ok(taken) };
        let Some(run) = jobs::run_of(&key) else {
            after = Some(key);
            continue;
        };
        after = Some(jobs::behind_run(run)?);
        let made = runs::key(run)?;
        if storage.repo.write_id(&made).await?.is_some() {
            continue;
        }
        let mut jobs = storage.repo.all::<JobRecord>(&jobs::of_run(run)).await?;
        jobs.retain(|(_, job)| match job.record.state {
            JobState::Queued => is_over(run.time(), UNMADE, now),
            _ => job.record.ended.is_some_and(|ended| is_over(ended, RUNS, now)),
        });
        // Should the run be made at this very moment, nothing is taken.
        take_jobs(storage, &jobs, |batch| batch.if_absent(made.clone())).await?;
        taken += usize::from(!jobs.is_empty());
    }
}

fn leaf(storage: &Storage, run: RunId, what: &str) -> AuditEntry {
    AuditEntry::new(storage.audited.actor(), "run.prune", format!("run/{run}"))
        .because(format!("kept long enough: {what}"))
}
