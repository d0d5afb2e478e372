//! Ends the open jobs of a node that gets no work any more. Called when it is held or removed, and again at starts.

use fleet_store::{Batch, Direction};
use fleet_types::id::{NodeId, RunId};
use fleet_types::job::{JobState, Outcome};
use fleet_types::view::Hold;

use crate::context::{Memory, Storage};
use crate::error::{Kind, Result};
use crate::repo::audited::AuditEntry;
use crate::repo::codec::Mark;
use crate::repo::jobs::{self, JobRecord};
use crate::repo::nodes::{self, NodeRecord};
use crate::repo::reader::PAGE;
use crate::repo::runs::{self, RunRecord};

/// Which of a node's open jobs end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Those that were not offered.
    Unbegun,
    /// All: nobody knows what the machine is doing.
    All,
}

impl Ends {
    /// Those that a hold ends.
    pub const fn of(hold: &Hold) -> Self {
        if hold.keeps_link() { Self::Unbegun } else { Self::All }
    }

    /// Does the node's record still say that these end?
    fn is_due(self, node: &NodeRecord) -> bool {
        node.hold().is_some_and(|hold| self == Self::Unbegun || Self::of(hold) == Self::All)
    }
}

/// Ends a node's jobs in open runs, each in a commit of its own: there are a few at most. Once the node may have work
/// again nothing more ends.
pub async fn end_jobs(
    storage: &Storage,
    memory: &Memory,
    node: NodeId,
    reason: &str,
    ends: Ends,
) -> Result<()> {
    let mut after = None;
    loop {
        let page = storage.repo.page::<Mark>(runs::OPEN, after.as_ref(), PAGE, Direction::Ascending).await?;
        let is_last = page.len() < PAGE;
        for (key, _) in page {
            let run = runs::run_in(&key, runs::OPEN);
            after = Some(key);
            let Some(run) = run else { continue };
            while let Some((batch, leaf)) = ending(storage, run, node, reason, ends).await? {
                if committed(storage.audited.commit(batch, vec![leaf]).await)? {
                    memory.sessions.clear_live(node, run);
                    memory.notifier.job_changed(run, node);
                    break;
                }
            }
        }
        if is_last {
            return Ok(());
        }
    }
}

/// The end of one job, as long as job and node are as they are now; `None` when there is nothing to end.
async fn ending(
    storage: &Storage,
    run: RunId,
    node: NodeId,
    reason: &str,
    ends: Ends,
) -> Result<Option<(Batch, AuditEntry)>> {
    let (node_key, batch) = (nodes::key(node)?, storage.audited.batch().using_reserve());
    let batch = match storage.repo.get::<NodeRecord>(&node_key).await? {
        // It was removed.
        None => batch.if_absent(node_key),
        Some(stored) if ends.is_due(&stored.record) => batch.if_write_id(node_key, stored.write_id),
        Some(_) => return Ok(None),
    };
    let Some(stored) = storage.repo.get::<JobRecord>(&jobs::key(run, node)?).await? else { return Ok(None) };
    let outcome = match stored.record.state {
        JobState::Ended { .. } => return Ok(None),
        JobState::Queued => Outcome::Cancelled,
        _ if ends == Ends::All => Outcome::Lost,
        _ => return Ok(None),
    };
    let Some(run) = storage.repo.get::<RunRecord>(&runs::key(run)?).await? else { return Ok(None) };
    let record = JobRecord {
        state: JobState::ended(outcome, reason),
        ended: Some(storage.clock.now()),
        summary: reason.chars().take(200).collect(),
        ..stored.record.clone()
    };
    let batch = jobs::end(&storage.repo, batch, &stored, &record).await?;
    let leaf = AuditEntry::new(storage.audited.actor(), "job.end", format!("run/{}", run.record.run))
        .job(record.id(), record.attempt)
        .subject(run.record.authority.digest())
        .outcome(outcome)
        .because(record.summary.as_str());
    Ok(Some((batch, leaf)))
}

/// Did it go through? Not after a conflict: then the caller looks again.
pub fn committed<T>(outcome: Result<T>) -> Result<bool> {
    match outcome {
        Ok(_) => Ok(true),
        Err(error) if error.kind == Kind::Conflict => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use fleet_types::id::{Attempt, Stage};
    use fleet_types::view::Hold;

    use super::*;
    use crate::repo::nodes::NodeState;
    use crate::repo::reader::BatchExt as _;
    use crate::testing::{TestContext, enrolled, job_record, leaves, run_record};

    #[tokio::test]
    async fn jobs_end_at_their_stage_and_only_while_the_node_gets_no_work() {
        let test = TestContext::new().await;
        let context = &test.context;
        let agent = enrolled(context, 1).await;
        let (node, run) = (agent.node, RunId::from_number(1));
        let (stage, attempt) = (Stage(1), Attempt(2));
        let job = JobRecord { stage, attempt, ..job_record(run, &agent) };
        let key = jobs::key(run, node).unwrap();
        let mut batch = context.storage.audited.batch().put_record(key.clone(), &job).unwrap();
        batch =
            batch.put_record(runs::key(run).unwrap(), &run_record(run, context.storage.clock.now())).unwrap();
        batch = batch.put_record(runs::open(run).unwrap(), &Mark {}).unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        let put_node = async |state: NodeState| {
            let record =
                NodeRecord::clone(&context.memory.node_cache.get(node).unwrap().record).with_state(state);
            let batch =
                context.storage.audited.batch().put_record(nodes::key(node).unwrap(), &record).unwrap();
            context.storage.audited.commit(batch, vec![]).await.unwrap();
        };
        let found = async || context.storage.repo.get::<JobRecord>(&key).await.unwrap().unwrap().record.state;
        let hold = |by: Option<&str>| {
            let by = by.map(|by| by.parse().unwrap());
            NodeState::Held(Hold { reason: "why".to_owned(), since: None, by })
        };
        // It is held, and released before its jobs are ended.
        put_node(hold(Some("ada"))).await;
        let (batch, leaf) =
            ending(&context.storage, run, node, "held", Ends::Unbegun).await.unwrap().unwrap();
        put_node(NodeState::Active).await;
        assert!(!committed(context.storage.audited.commit(batch, vec![leaf]).await).unwrap());
        end_jobs(&context.storage, &context.memory, node, "held", Ends::Unbegun).await.unwrap();
        assert_eq!(found().await, JobState::Queued);
        // An operator's hold does not end what a shut-out would.
        put_node(hold(Some("ada"))).await;
        end_jobs(&context.storage, &context.memory, node, "shut out", Ends::All).await.unwrap();
        assert_eq!(found().await, JobState::Queued);
        put_node(hold(None)).await;
        end_jobs(&context.storage, &context.memory, node, "shut out", Ends::All).await.unwrap();
        assert_eq!(found().await.outcome(), Some(Outcome::Cancelled));
        let told = leaves(context, "job.end").await;
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].job.unwrap().stage, told[0].attempt), (stage, Some(attempt)));
    }
}
