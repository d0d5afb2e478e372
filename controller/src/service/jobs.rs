//! What nodes say of their jobs short of the end: live states, and the list at reconcile.
//!
//! Live states stay in memory: what lies between offer and end is the node's, and comes back at reconcile
//! (security-and-delivery §2.2, §2.8).

use fleet_proto::convert::JobUpdate;
use fleet_types::id::Attempt;
use fleet_types::run::RunState;

use super::caller::Agent;
use super::reports;
use crate::context::{Context, Memory, Storage};
use crate::error::Result;
use crate::repo::audited::AuditEntry;
use crate::repo::jobs::{self, JobRecord};
use crate::repo::reports::StoredReport;
use crate::repo::runs::{self, RunRecord};

/// Runs that the leaf of a reconcile names; the rest is counted. A leaf has at most 4 KiB.
const NAMED: usize = 4;

/// What to do with one job of a node's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Continue,
    /// Stop.
    Cancel,
    /// Send the report (again).
    SendReport,
    /// It is stored: nothing more to do.
    Forget,
    /// Unknown to this restored store: go on, its report will be kept.
    Adopt,
}

/// Notes where a node says a job stands, if it is a job of this node that is open here; of others, and of other
/// attempts, nothing is kept. In memory only: what lies between offer and end is the node's.
pub async fn update(storage: &Storage, memory: &Memory, agent: &Agent, update: &JobUpdate) -> Result<()> {
    if update.state.outcome().is_some() || !is_open(storage, agent, update).await? {
        return Ok(());
    }
    let said = storage.clock.moment().mono;
    let (state, limits) = (update.state.clone(), update.limits);
    memory.sessions.set_live(agent.node, update.run, update.attempt, state, limits, said);
    // The job may have ended between the look and the note; then its end had nothing to clear away.
    if !is_open(storage, agent, update).await? {
        memory.sessions.clear_live(agent.node, update.run);
        return Ok(());
    }
    memory.notifier.job_changed(update.run, agent.node);
    Ok(())
}

async fn is_open(storage: &Storage, agent: &Agent, update: &JobUpdate) -> Result<bool> {
    let job = storage.repo.get::<JobRecord>(&jobs::key(update.run, agent.node)?).await?;
    Ok(job.is_some_and(|job| job.record.state.outcome().is_none() && job.record.attempt == update.attempt))
}

/// Decides on the jobs of one page of a node's list at connect. Those that this store does not have are told to
/// the audit log, together, and once as long as this controller remembers it.
pub async fn reconcile(context: &Context, agent: &Agent, page: &[JobUpdate]) -> Result<Vec<Decision>> {
    let mut decisions = Vec::with_capacity(page.len());
    let mut unknown = Vec::new();
    for listed in page {
        let decision = decide(&context.storage, &context.memory, agent, listed).await?;
        decisions.push(decision.unwrap_or_else(|| {
            unknown.push(listed);
            match (reports::is_restored(&context.identities), is_finished(listed)) {
                (true, false) => Decision::Adopt,
                // Its report is on its way by itself, and is judged when it comes.
                (_, true) => Decision::SendReport,
                (false, false) => Decision::Forget,
            }
        }));
    }
    unknown.retain(|listed| !context.memory.adopted.is_told(agent.node, listed.run, listed.attempt));
    if !unknown.is_empty() {
        let object = format!("node/{}", agent.name);
        let leaf = if reports::is_restored(&context.identities) {
            AuditEntry::new(agent.actor(), "job.adopt", object).because(listed_unknown(&unknown))
        } else {
            AuditEntry::new(agent.actor(), "job.unknown", object).refused(listed_unknown(&unknown))
        };
        context.storage.audited.commit(context.storage.audited.batch().using_reserve(), vec![leaf]).await?;
        for listed in unknown {
            context.memory.adopted.note(agent.node, listed.run, listed.attempt);
        }
    }
    Ok(decisions)
}

fn listed_unknown(unknown: &[&JobUpdate]) -> String {
    let named: Vec<String> = unknown
        .iter()
        .take(NAMED)
        .map(|listed| match listed.attempt {
            Attempt(1) => listed.run.to_string(),
            Attempt(attempt) => format!("{} attempt {attempt}", listed.run),
        })
        .collect();
    let more = match unknown.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let count = unknown.len();
    format!(
        "the node lists jobs that this store does not have, {count} in number: {}{more}",
        named.join(", ")
    )
}

fn is_finished(listed: &JobUpdate) -> bool {
    listed.report.is_some() || listed.state.outcome().is_some()
}

/// Decides on one job; `None` when this store does not have it.
async fn decide(
    storage: &Storage,
    memory: &Memory,
    agent: &Agent,
    listed: &JobUpdate,
) -> Result<Option<Decision>> {
    let Some(job) = storage.repo.get::<JobRecord>(&jobs::key(listed.run, agent.node)?).await? else {
        return Ok(None);
    };
    let stored = |report: Option<StoredReport>| report.is_some_and(|r| Some(r.digest) == listed.report);
    if is_finished(listed) {
        let answer = job.record.gates.as_ref().and_then(|gates| gates.answer.as_ref());
        let known = [job.record.report, job.record.late_report, answer.map(|answer| answer.report)];
        let known = known.into_iter().any(stored);
        return Ok(Some(if known { Decision::Forget } else { Decision::SendReport }));
    }
    update(storage, memory, agent, listed).await?;
    let run = storage.repo.get::<RunRecord>(&runs::key(listed.run)?).await?;
    if job.record.open_gates().is_some_and(|gates| gates.attempt == listed.attempt) {
        let is_over =
            run.is_none_or(|run| run.record.state.is_terminal() || run.record.state == RunState::Halting);
        return Ok(Some(if is_over { Decision::Cancel } else { Decision::Continue }));
    }
    if job.record.state.outcome().is_some() {
        // Given up here, and not ended there: it is told so, and what it then reports will be late.
        return Ok(Some(Decision::Cancel));
    }
    let halting = run.is_some_and(|run| run.record.state == RunState::Halting);
    Ok(Some(if halting { Decision::Cancel } else { Decision::Continue }))
}

#[cfg(test)]
mod tests {
    use fleet_types::id::RunId;
    use fleet_types::job::{JobState, Outcome};

    use super::*;
    use crate::repo::reader::BatchExt as _;
    use crate::testing::{TestContext, agent, job_record, leaves};

    fn said(run: u64, attempt: u32, state: JobState) -> JobUpdate {
        let (run, attempt) = (RunId::from_number(run), Attempt(attempt));
        JobUpdate { run, attempt, state, journal_sequence: 1, report: None, request: None, limits: None }
    }

    async fn put_job(context: &Context, agent: &Agent, run: u64, state: JobState) {
        let record = JobRecord { state, ..job_record(RunId::from_number(run), agent) };
        let key = jobs::key(record.run, agent.node).unwrap();
        let batch = context.storage.audited.batch().put_record(key, &record).unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
    }

    #[tokio::test]
    async fn only_open_jobs_of_the_node_itself_are_kept_in_memory() {
        let test = TestContext::new().await;
        let context = &test.context;
        let (a, b) = (agent(1), agent(2));
        put_job(context, &a, 1, JobState::Offered).await;
        let lost = JobState::ended(Outcome::Lost, "");
        put_job(context, &a, 2, lost).await;
        put_job(context, &b, 3, JobState::Offered).await;
        for run in 1..100 {
            update(&context.storage, &context.memory, &a, &said(run, 1, JobState::Accepted)).await.unwrap();
        }
        // A word of another attempt takes nothing's place.
        update(&context.storage, &context.memory, &a, &said(1, 2, JobState::Queued)).await.unwrap();
        let kept: Vec<u64> = (1..100)
            .filter(|run| context.memory.sessions.live(a.node, RunId::from_number(*run)).is_some())
            .collect();
        assert_eq!(kept, [1]);
        assert_eq!(
            context
                .memory
                .sessions
                .live(a.node, RunId::from_number(1))
                .map(|live| (live.attempt, live.state)),
            Some((Attempt(1), JobState::Accepted))
        );
        assert_eq!(context.memory.notifier.take().jobs.len(), 1, "the runner is woken for open jobs only");
    }

    #[tokio::test]
    async fn unknown_jobs_of_a_page_make_one_counted_leaf_and_none_at_the_next_connect() {
        let test = TestContext::new().await;
        let context = &test.context;
        let a = agent(1);
        let page: Vec<JobUpdate> = (1..=256).map(|run| said(run, 1, JobState::Accepted)).collect();
        put_job(context, &a, 256, JobState::Offered).await;
        for _ in 0..3 {
            let decisions = reconcile(context, &a, &page).await.unwrap();
            assert_eq!(decisions.iter().filter(|d| **d == Decision::Forget).count(), 255);
            assert_eq!(decisions.last(), Some(&Decision::Continue), "in the order of the page");
        }
        let records = leaves(context, "job.unknown").await;
        assert_eq!(records.len(), 1, "{records:?}");
        let told = &records[0];
        assert_eq!(told.object, "node/fw-1");
        assert!(told.reason.contains("255 in number") && told.reason.contains("and 251 more"), "{told:?}");
        assert!(told.reason.contains(&RunId::from_number(1).to_string()), "{told:?}");
        // One more of them, and another attempt, are news.
        reconcile(context, &a, &[said(300, 1, JobState::Accepted), said(1, 2, JobState::Accepted)])
            .await
            .unwrap();
        let records = leaves(context, "job.unknown").await;
        assert_eq!(records.len(), 2);
        assert!(records[1].reason.contains("2 in number") && records[1].reason.contains("attempt 2"));
    }
}
