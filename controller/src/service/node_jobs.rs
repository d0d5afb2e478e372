//! Ends the open jobs of a node that gets no work any more. Called when it is held or removed, and again at starts.

use fleet_store::Direction;
use fleet_types::id::{JobId, NodeId};
use fleet_types::job::{JobState, Outcome};

use crate::context::Context;
use crate::error::{Kind, Result};
use crate::repo::audited::AuditEntry;
use crate::repo::reader::PAGE;
use crate::repo::records::{JobRecord, Mark, RunRecord};
use crate::repo::{jobs, keys};

/// Which of a node's open jobs end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Those that were not offered.
    Unbegun,
    /// All: nobody knows what the machine is doing.
    All,
}

/// Ends a node's jobs in open runs, each in a commit of its own: there are a few at most.
pub async fn end_jobs(context: &Context, node: NodeId, reason: &str, ends: Ends) -> Result<()> {
    let mut after = None;
    loop {
        let page =
            context.repo.page::<Mark>(keys::OPEN_RUNS, after.as_ref(), PAGE, Direction::Ascending).await?;
        let is_last = page.len() < PAGE;
        for (key, _) in page {
            let run = keys::run_in(&key, keys::OPEN_RUNS);
            after = Some(key);
            let Some(run) = run else { continue };
            while !end_job(context, JobId::first(run, node), reason, ends).await? {}
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Ends one job, if it is open. False when it changed in between.
async fn end_job(context: &Context, job: JobId, reason: &str, ends: Ends) -> Result<bool> {
    let key = keys::job(job.run, job.node)?;
    let Some(stored) = context.repo.get::<JobRecord>(&key).await? else { return Ok(true) };
    let outcome = match stored.record.state {
        JobState::Ended { .. } => return Ok(true),
        JobState::Queued => Outcome::Cancelled,
        _ if ends == Ends::All => Outcome::Lost,
        _ => return Ok(true),
    };
    let Some(run) = context.repo.get::<RunRecord>(&keys::run(job.run)?).await? else { return Ok(true) };
    let attempt = stored.record.attempt;
    let record = JobRecord {
        state: JobState::ended(outcome, reason),
        ended: Some(context.clock.now()),
        summary: reason.chars().take(200).collect(),
        ..stored.record.clone()
    };
    let batch = jobs::end(&context.repo, context.audited.batch().using_reserve(), &stored, &record).await?;
    let leaf = AuditEntry::new(context.audited.actor(), "job.end", format!("run/{}", job.run))
        .job(job, attempt)
        .subject(run.record.authority.digest())
        .outcome(outcome)
        .because(record.summary.as_str());
    if !committed(context.audited.commit(batch, vec![leaf]).await)? {
        return Ok(false);
    }
    context.sessions.clear_live(job.node, job.run);
    context.notifier.job_changed(job.run, job.node);
    Ok(true)
}

/// Did it go through? Not after a conflict: then the caller looks again.
pub fn committed<T>(outcome: Result<T>) -> Result<bool> {
    match outcome {
        Ok(_) => Ok(true),
        Err(error) if error.kind == Kind::Conflict => Ok(false),
        Err(error) => Err(error),
    }
}
