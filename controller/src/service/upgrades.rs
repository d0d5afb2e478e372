//! What stores of earlier releases lack: made at a start, each once in the life of a store.
//!
//! Called before anybody is served. A step that was stopped half way is done again.

use std::collections::BTreeMap;

use fleet_rollout::Place;
use fleet_store::{Direction, Key};
use fleet_types::job::{JobState, Outcome};

use crate::context::Storage;
use crate::error::Result;
use crate::repo::codec::Mark;
use crate::repo::holds::{self, HoldRecord};
use crate::repo::jobs::{self, InboxRecord, JobRecord};
use crate::repo::reader::BatchExt as _;
use crate::repo::runs::{self, RunRecord};

/// Records a commit, half of the store's 1,024 operations a batch.
const A_COMMIT: usize = 500;

/// Does what was not done over this store.
pub async fn run(storage: &Storage) -> Result<()> {
    if is_due(storage, &runs::by_time_made()?).await? {
        index_by_time(storage).await?;
        done(storage, runs::by_time_made()?).await?;
    }
    if is_due(storage, &holds::pairs_made()?).await? {
        hold_pairs(storage).await?;
        done(storage, holds::pairs_made()?).await?;
    }
    Ok(())
}

async fn is_due(storage: &Storage, mark: &Key) -> Result<bool> {
    Ok(storage.repo.get::<Mark>(mark).await?.is_none())
}

async fn done(storage: &Storage, mark: Key) -> Result<()> {
    storage.audited.commit(storage.audited.batch().put_record(mark, &Mark {})?, vec![]).await?;
    Ok(())
}

/// Gives every run its entry by time.
async fn index_by_time(storage: &Storage) -> Result<()> {
    let mut after: Option<Key> = None;
    loop {
        let page = storage.repo.page(runs::ALL, after.as_ref(), A_COMMIT, Direction::Ascending).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        let mut batch = storage.audited.batch();
        for (_, stored) in page {
            let RunRecord { started, run, .. } = stored.record;
            batch = batch.put_record(runs::by_time(started, run)?, &Mark {})?;
        }
        storage.audited.commit(batch, vec![]).await?;
    }
}

/// Holds the pair of every job that may be changing its node: one that is offered, and one that got lost and whose node
/// has not answered.
async fn hold_pairs(storage: &Storage) -> Result<()> {
    let mut holds: BTreeMap<Key, HoldRecord> = BTreeMap::new();
    for (_, run) in storage.repo.all::<RunRecord>(runs::ALL).await? {
        let RunRecord { run, changes, tally, state, .. } = run.record;
        if !changes || (state.is_terminal() && tally.count(&[Outcome::Lost]) == 0) {
            continue;
        }
        for (_, job) in storage.repo.all::<JobRecord>(&jobs::of_run(run)).await? {
            let job = job.record;
            let Some(pair) = job.pair.clone().filter(|_| job.state != JobState::Queued) else { continue };
            // The entry goes when the node has answered.
            let entry = storage.repo.get::<InboxRecord>(&jobs::inbox_entry(job.node, run)?).await?;
            if entry.is_some() {
                holds.entry(holds::key(&Place::pair(pair))?).or_insert_with(|| HoldRecord::of(&job));
            }
        }
    }
    for (key, hold) in holds {
        if storage.repo.get::<HoldRecord>(&key).await?.is_none() {
            storage.audited.commit(storage.audited.batch().create_record(key, &hold)?, vec![]).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fleet_types::authority::Authority;
    use fleet_types::digest::Digest;
    use fleet_types::id::{Attempt, RunId, Stage};
    use fleet_types::run::{RunState, Tally};

    use super::*;
    use crate::testing::{TestContext, agent, job_record, run_record};

    #[tokio::test]
    async fn jobs_in_flight_of_an_earlier_release_hold_their_pairs() {
        let test = TestContext::new().await;
        let context = &test.context;
        let ended = |outcome| JobState::ended(outcome, "");
        let authority = Authority::Request(Digest::of(b"x"));
        let entry = InboxRecord {
            stage: Stage::FIRST,
            attempt: Attempt(1),
            authority,
            node_index: 0,
            node_path: vec![],
        };
        let mut batch = context.storage.audited.batch().delete(holds::pairs_made().unwrap());
        let jobs = [
            (1, "offered", true, RunState::Running, JobState::Offered, true),
            (2, "reads", false, RunState::Running, JobState::Offered, true),
            (3, "queued", true, RunState::Running, JobState::Queued, false),
            (4, "lost", true, RunState::Failed, ended(Outcome::Lost), true),
            (5, "answered", true, RunState::Failed, ended(Outcome::Lost), false),
            (6, "offered", true, RunState::Running, JobState::Queued, false),
        ];
        for (number, pair, changes, run_state, state, in_inbox) in jobs {
            let (run, agent) = (RunId::from_number(number), agent(number.into()));
            let mut tally = Tally::new(1);
            state.outcome().into_iter().for_each(|outcome| tally.add(outcome));
            let record = RunRecord {
                changes,
                state: run_state,
                tally,
                ..run_record(run, context.storage.clock.now())
            };
            let job = JobRecord { pair: Some(pair.to_owned()), state, ..job_record(run, &agent) };
            batch = batch.put_record(runs::key(run).unwrap(), &record).unwrap();
            batch = batch.put_record(jobs::key(run, agent.node).unwrap(), &job).unwrap();
            if in_inbox {
                batch = batch.put_record(jobs::inbox_entry(agent.node, run).unwrap(), &entry).unwrap();
            }
        }
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        run(&context.storage).await.unwrap();
        let held = holds::holds(&context.storage.repo).await.unwrap();
        let pair = |name: &str| Place::pair(name.to_owned());
        let held: Vec<_> = held.into_iter().map(|(place, holder)| (place, holder.name)).collect();
        assert_eq!(held, [(pair("lost"), "fw-4".to_owned()), (pair("offered"), "fw-1".to_owned())]);
        // Not again: holds come and go with jobs from now on.
        let key = holds::key(&pair("lost")).unwrap();
        context.storage.audited.commit(context.storage.audited.batch().delete(key), vec![]).await.unwrap();
        run(&context.storage).await.unwrap();
        assert_eq!(holds::holds(&context.storage.repo).await.unwrap().len(), 1);
    }
}
