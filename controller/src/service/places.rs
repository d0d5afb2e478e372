//! Places of the limits of sites and fleet for jobs that were offered when there was no such limit yet.
//!
//! Called at a start, before anybody is served. What is stopped half way is done at the next one. Nothing is to be done
//! where there is no limit, and the cost is that of the jobs in flight. More places may come to be taken than the limit
//! has: then nothing new starts until so many jobs have ended.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use fleet_rollout::{Holds, Limits, Scope};
use fleet_store::Direction;
use fleet_types::job::JobState;

use crate::context::Storage;
use crate::error::Result;
use crate::repo::holds::{self, HoldRecord};
use crate::repo::jobs::{self, InboxRecord, JobRecord};
use crate::repo::reader::BatchExt as _;
use crate::repo::runs::{self, RunRecord};
use crate::settings::Settings;

/// Jobs a commit: three writes each, of the store's 1,024.
const A_COMMIT: usize = 300;

/// Takes what is lacking for every job that may be changing its node: one that is offered, and one that got lost and
/// whose node has not answered. Both have an entry in their node's inbox.
pub async fn take(storage: &Storage, settings: &Settings) -> Result<()> {
    let limits = settings.changing;
    if limits == Limits::default() {
        return Ok(());
    }
    let mut holds = Holds::default();
    holds.set_all(holds::holds(&storage.repo).await?);
    let (mut changes, mut after) = (HashMap::new(), None);
    loop {
        let page = storage
            .repo
            .page::<InboxRecord>(jobs::INBOXES, after.as_ref(), A_COMMIT, Direction::Ascending)
            .await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        let (mut batch, mut taken) = (storage.audited.batch().using_reserve(), 0);
        for (node, run) in page.iter().filter_map(|(key, _)| jobs::inbox_entry_in(key)) {
            let changes = match changes.entry(run) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => {
                    let stored = storage.repo.get::<RunRecord>(&runs::key(run)?).await?;
                    *unknown.insert(stored.is_some_and(|stored| stored.record.changes))
                }
            };
            let key = jobs::key(run, node)?;
            let Some(job) = storage.repo.get::<JobRecord>(&key).await? else { continue };
            if !changes || job.record.state == JobState::Queued {
                continue;
            }
            let has = job.record.may_hold();
            let site = limits.site.map(|_| Scope::Site(job.record.site.clone()));
            let scopes = site.into_iter().chain(limits.fleet.map(|_| Scope::Fleet));
            let lacking = scopes.filter(|scope| has.iter().all(|place| place.scope != *scope));
            let lacking: Vec<_> = lacking.map(|scope| holds.lowest_free(&scope)).collect();
            let hold = HoldRecord::of(&job.record);
            for place in &lacking {
                holds.set(place, Some(hold.holder()));
                batch = batch.create_record(holds::key(place)?, &hold)?;
                taken += 1;
            }
            if !lacking.is_empty() {
                let record = JobRecord { places: [has, lacking].concat(), ..job.record };
                batch = batch.replace_record(key, job.write_id, &record)?;
            }
        }
        if taken > 0 {
            tracing::info!(places = taken, "jobs in flight count against limits that are new");
            storage.audited.commit(batch, vec![]).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fleet_rollout::Place;
    use fleet_store::MemoryStore;
    use fleet_types::authority::Authority;
    use fleet_types::digest::Digest;
    use fleet_types::id::{Attempt, RunId, Stage};
    use fleet_types::job::Outcome;

    use super::*;
    use crate::clock::Clock;
    use crate::testing::{TestContext, agent, job_record, run_record};

    #[tokio::test]
    async fn jobs_in_flight_count_against_a_limit_that_is_new() {
        let more = "[limits]\nmax_changing_per_site = 1\nmax_changing_per_fleet = 9";
        let test = TestContext::configured(Arc::new(MemoryStore::new()), Clock::system(), more).await;
        let context = &test.context;
        let lost = JobState::ended(Outcome::Lost, "");
        let jobs_of = [
            (1, true, JobState::Offered, Some("edge")),
            (2, true, lost, None),
            (3, false, JobState::Offered, None),
            (4, true, JobState::Queued, None),
        ];
        for (n, changes, state, pair) in jobs_of {
            let (run, agent) = (RunId::from_number(n), agent(n.into()));
            let record = RunRecord { changes, ..run_record(run, context.storage.clock.now()) };
            let job = JobRecord { state, pair: pair.map(str::to_owned), ..job_record(run, &agent) };
            let authority = Authority::Request(Digest::of(b"x"));
            let (stage, attempt) = (Stage::FIRST, Attempt(1));
            let entry = InboxRecord { stage, attempt, authority, node_index: 0, node_path: vec![] };
            let mut batch =
                context.storage.audited.batch().put_record(runs::key(run).unwrap(), &record).unwrap();
            batch = batch.put_record(jobs::key(run, agent.node).unwrap(), &job).unwrap();
            batch = batch.put_record(jobs::inbox_entry(agent.node, run).unwrap(), &entry).unwrap();
            context.storage.audited.commit(batch, vec![]).await.unwrap();
        }
        let place = |scope: &Scope, number| Place { scope: scope.clone(), number };
        let (site, fleet) = (Scope::Site("-".to_owned()), Scope::Fleet);
        for _ in 0..2 {
            take(&context.storage, &context.settings).await.unwrap();
            let held = holds::holds(&context.storage.repo).await.unwrap();
            let held: Vec<_> = held.into_iter().map(|(place, holder)| (place, holder.name)).collect();
            let both =
                |scope: &Scope| [(place(scope, 0), "fw-1".to_owned()), (place(scope, 1), "fw-2".to_owned())];
            assert_eq!(held, [both(&site), both(&fleet)].concat(), "two of one, and nobody twice");
        }
        let key = jobs::key(RunId::from_number(1), agent(1).node).unwrap();
        let job = context.storage.repo.get::<JobRecord>(&key).await.unwrap().unwrap().record;
        assert_eq!(job.places, [Place::pair("edge".to_owned()), place(&site, 0), place(&fleet, 0)]);
        let batch = jobs::settle(&context.storage.repo, context.storage.audited.batch(), &job).await.unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        assert_eq!(holds::holds(&context.storage.repo).await.unwrap().len(), 2, "its end gives them back");
    }
}
