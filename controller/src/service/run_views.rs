//! What operators see of runs and jobs. Stored records, with what is only known in memory laid over them.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_rollout::{BlockReason, Counts, RingStatus, Rollout};
use fleet_store::Direction;
use fleet_types::canonical;
use fleet_types::id::{NodeId, RunId};
use fleet_types::job::JobState;
use fleet_types::request::Request;
use fleet_types::run::{RunState, Tally};
use fleet_types::view::{
    GatesView, JobItem, JobView, Page, Presence, RingNodes, RingView, RunItem, RunView, TickView,
};

use super::{documents, reports, runs, views};
use crate::context::{Memory, Storage};
use crate::error::{ControllerError, Result};
use crate::fleet::open_runs::{OpenRun, RunModel};
use crate::repo;
use crate::repo::codec::Mark;
use crate::repo::jobs::{self, JobRecord};
use crate::repo::rollouts::{RingRecord, RolloutRecord};
use crate::repo::runs::RunRecord;

fn item(record: &RunRecord, tally: Tally) -> RunItem {
    RunItem {
        run: record.run,
        verb: record.verb,
        procedure: record.procedure.clone(),
        state: record.state,
        tally,
        started: record.started,
        ended: record.ended,
        started_by: record.started_by.clone(),
        reason: record.reason.clone(),
    }
}

/// For lists: an open run with how far it is now.
fn listed(storage: &Storage, memory: &Memory, record: &RunRecord) -> RunItem {
    let open = memory.open_runs.of(record.run);
    let tally = open.map(|open| open.read().rollout().summary(storage.clock.now()).tally);
    item(record, tally.unwrap_or_else(|| record.tally.clone()))
}

/// Runs that have not ended, newest first.
pub async fn open(storage: &Storage, memory: &Memory, limit: usize) -> Result<Vec<RunItem>> {
    let mut items = Vec::new();
    // All that are looked at on one screen, and a little more: ids follow the operators' clocks, time is ours.
    for (key, _) in
        storage.repo.page::<Mark>(repo::runs::OPEN, None, limit * 5, Direction::Descending).await?
    {
        if let Some(run) = repo::runs::run_in(&key, repo::runs::OPEN)
            && let Some(stored) = storage.repo.get::<RunRecord>(&repo::runs::key(run)?).await?
        {
            items.push(listed(storage, memory, &stored.record));
        }
    }
    items.sort_by_key(|item| std::cmp::Reverse(item.started));
    items.truncate(limit);
    Ok(items)
}

/// A page of runs, newest first by the time at which they were started here.
pub async fn list(storage: &Storage, memory: &Memory, after: &str, limit: usize) -> Result<Page<RunItem>> {
    let after = if after.is_empty() {
        None
    } else {
        let at = repo::runs::by_time_at(after);
        Some(at.ok_or_else(|| ControllerError::invalid("after", "not the end of a page of runs"))?)
    };
    let page =
        storage.repo.page::<Mark>(repo::runs::BY_TIME, after.as_ref(), limit, Direction::Descending).await?;
    let (mut items, mut last) = (Vec::new(), None);
    for (run, place) in page.iter().filter_map(|(key, _)| repo::runs::by_time_in(key)) {
        if let Some(stored) = storage.repo.get::<RunRecord>(&repo::runs::key(run)?).await? {
            items.push(listed(storage, memory, &stored.record));
        }
        last = Some(place);
    }
    let next = last.filter(|_| page.len() == limit);
    Ok(Page { schema: "fleet/v1/run-list".to_owned(), items, next })
}

/// Name of a run's procedure; empty when the run is not in this store.
pub async fn procedure_of(storage: &Storage, run: RunId) -> Result<String> {
    Ok(storage
        .repo
        .get::<RunRecord>(&repo::runs::key(run)?)
        .await?
        .map(|s| s.record.procedure)
        .unwrap_or_default())
}

/// A run: as the runner has it while it is open here, else as its record says.
fn run_view(storage: &Storage, stored: RunRecord, open: Option<&RunModel>) -> RunView {
    let summary = open.map(|open| open.rollout().summary(storage.clock.now()));
    let mut run_item =
        item(&stored, summary.as_ref().map_or_else(|| stored.tally.clone(), |s| s.tally.clone()));
    // A run's phase is written when the runner gets to it; shown is what the jobs say. Ended for operators means that
    // the record says so: then its audit leaf is there, too.
    if let Some(summary) = summary.as_ref().filter(|_| stored.state != RunState::Halting) {
        let is_early = summary.state.is_terminal() && !stored.state.is_terminal();
        run_item.state = if is_early { RunState::Running } else { summary.state };
    }
    let now = storage.clock.moment();
    let rings = open
        .filter(|_| stored.rollout.is_some())
        .map(|open| open.rollout().rings(now).map(|ring| ring_view(&ring)).collect::<Vec<_>>());
    let ended_rings =
        || stored.rollout.iter().flat_map(|rollout| &rollout.rings).map(ended_ring_view).collect();
    let mut rings = rings.unwrap_or_else(ended_rings);
    name_gates(&mut rings, stored.rollout.as_ref());
    let counts = summary.map_or_else(Counts::default, |summary| summary.counts);
    let mut open: BTreeMap<String, u32> = counts.open().map(|(phase, n)| (phase.to_owned(), n)).collect();
    if stored.state == RunState::Planned && open.is_empty() {
        open.insert(JobState::Queued.as_str().to_owned(), stored.tally.nodes);
    }
    RunView {
        schema: "fleet/v1/run".to_owned(),
        item: run_item,
        selector: stored.selector,
        authority: stored.authority,
        schedule: stored.schedule.map(|tick| TickView { schedule: tick.schedule, at: tick.at }),
        procedure_digest: stored.procedure_digest,
        profile_digest: stored.profile_digest,
        procedure_revision: stored.procedure_revision,
        params: BTreeMap::new(),
        plan: None,
        max_failures: stored.max_failures,
        max_parallel: stored.max_parallel,
        policy: stored.rollout.map(|rollout| rollout.policy).unwrap_or_default(),
        rings,
        paused_because: stored.paused_because,
        not_before: Some(stored.not_before),
        not_after: stored.not_after,
        skipped: stored.skipped,
        skipped_count: stored.skipped_count,
        open,
        stopped_because: stored.stopped_because,
    }
}

fn ring_view(ring: &RingStatus<'_>) -> RingView {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    RingView {
        name: ring.plan.name.clone(),
        state: ring.state,
        nodes: Some(RingNodes {
            all: ring.plan.nodes,
            needed: ring.plan.needed,
            succeeded: ring.counts.succeeded,
            failed: ring.counts.failed,
            in_flight: ring.counts.in_flight,
            ended: ring.counts.ended,
        }),
        soak_ms: milliseconds(ring.plan.soak),
        soaked_ms: milliseconds(ring.soaked),
        is_manual: ring.plan.is_manual,
        because: ring.because.to_owned(),
        gates: Some(GatesView {
            ids: Vec::new(),
            verdict: ring.verdict,
            passed: ring.gates.map(|gates| gates.passed),
            awaited: ring.gates.map(|gates| gates.awaited),
        }),
    }
}

/// Says which gates they are; nothing of gates where there are none, and of the last ring.
fn name_gates(rings: &mut [RingView], rollout: Option<&RolloutRecord>) {
    let ids = rollout.map(|rollout| rollout.gates.as_slice()).unwrap_or_default();
    let last = rings.len().saturating_sub(1);
    for (number, ring) in rings.iter_mut().enumerate() {
        ring.gates = ring.gates.take().filter(|_| !ids.is_empty() && number < last);
        if let Some(gates) = &mut ring.gates {
            gates.ids = ids.to_vec();
        }
    }
}

/// Of a run that has ended, or that the runner has not read yet.
fn ended_ring_view(ring: &RingRecord) -> RingView {
    RingView {
        name: ring.name.clone(),
        state: ring.state,
        nodes: None,
        soak_ms: ring.soak_ms,
        soaked_ms: ring.soaked_ms,
        is_manual: ring.is_manual,
        because: ring.because.clone(),
        gates: Some(GatesView { ids: Vec::new(), verdict: ring.verdict, passed: None, awaited: None }),
    }
}

/// A run without what its signed request says.
pub async fn brief(storage: &Storage, memory: &Memory, run: RunId) -> Result<RunView> {
    if let Some(open) = memory.open_runs.of(run) {
        let model = open.read();
        return Ok(run_view(storage, model.run.record.clone(), Some(&model)));
    }
    Ok(run_view(storage, runs::load(storage, run).await?.record, None))
}

/// A run with what its signed request says.
pub async fn show(storage: &Storage, memory: &Memory, run: RunId) -> Result<RunView> {
    let mut view = brief(storage, memory, run).await?;
    let envelope = documents::envelope(storage, view.authority.digest()).await?;
    let request: Request = canonical::from_slice(&envelope.payload).map_err(ControllerError::internal)?;
    view.params = request.params;
    view.plan = request.plan.map(|plan| plan.run);
    Ok(view)
}

/// What changed of a run since a watcher looked last.
pub struct News {
    /// The run.
    pub view: RunView,
    /// Its changed jobs, worst first, then by name.
    pub jobs: Vec<JobItem>,
    /// The newest change that is in it.
    pub number: u64,
}

/// What changed of an open run since change `after`.
pub fn news(storage: &Storage, memory: &Memory, open: &OpenRun, after: u64) -> News {
    let model = open.read();
    let procedure = &model.run.record.procedure;
    let changed = model.changed_since(after).filter_map(|node| model.job(node));
    let mut jobs: Vec<JobItem> = changed
        .map(|job| job_item(storage, memory, job.record.clone(), procedure.clone(), Some(model.rollout())))
        .collect();
    worst_first(&mut jobs);
    let view = run_view(storage, model.run.record.clone(), Some(&model));
    News { view, jobs, number: model.number() }
}

fn worst_first(jobs: &mut [JobItem]) {
    let worst = fleet_types::view::WORST_FIRST;
    let rank = |job: &JobItem| {
        job.state.outcome().map_or(worst.len() - 2, |o| worst.iter().position(|w| *w == o).unwrap_or(0))
    };
    jobs.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.node_name.cmp(&b.node_name)));
}

/// Every reason why a queued job is not going.
fn blocked(storage: &Storage, rollout: &Rollout, node: NodeId) -> Vec<String> {
    let reasons = rollout.blocked(node, storage.clock.moment()).into_iter();
    let open = reasons.filter(|reason| !matches!(reason, BlockReason::AlreadyEnded { .. }));
    open.map(|reason| reason.to_string()).collect()
}

/// A job for lists: its record, with what the node said last laid over it, and why it waits where the engine of its
/// run is here.
pub fn job_item(
    storage: &Storage,
    memory: &Memory,
    record: JobRecord,
    procedure: String,
    rollout: Option<&Rollout>,
) -> JobItem {
    let rollout = rollout.filter(|_| record.state == JobState::Queued);
    let blocked = rollout.map(|rollout| blocked(storage, rollout, record.node)).unwrap_or_default();
    let live = memory.sessions.live(record.node, record.run).filter(|live| live.attempt == record.attempt);
    let behind = live.as_ref().and_then(|live| live.limits.as_ref()?.behind);
    let state = match (&record.state, live) {
        (JobState::Ended { .. }, _) | (_, None) => record.state.clone(),
        (_, Some(live)) => live.state,
    };
    let online = memory.node_cache.get(record.node).is_some_and(|known| known.presence == Presence::Online);
    JobItem {
        run: record.run,
        node: record.node,
        node_name: record.node_name,
        procedure,
        attempt: record.attempt,
        disconnected: !online && state.outcome().is_none() && state != JobState::Queued,
        blocked: match (&state, behind) {
            (JobState::Queued, _) => blocked,
            (JobState::Accepted, Some(run)) => vec![format!("waits on its node behind run {run}")],
            _ => Vec::new(),
        },
        state,
        took_ms: record.took_ms,
        summary: record.summary,
        plan: record.plan,
        late_report: record.late_report.map(|report| report.digest),
    }
}

/// The same where the run was not looked up.
pub fn with_rollout(storage: &Storage, memory: &Memory, record: JobRecord, procedure: String) -> JobItem {
    let open = memory.open_runs.of(record.run);
    let open = open.as_ref().map(|open| open.read());
    job_item(storage, memory, record, procedure, open.as_ref().map(|model| model.rollout()))
}

/// A page of a run's jobs by node id.
pub async fn jobs_page(
    storage: &Storage,
    memory: &Memory,
    run: RunId,
    after: &str,
    limit: usize,
) -> Result<Page<JobItem>> {
    let run_record = runs::load(storage, run).await?.record;
    let prefix = jobs::of_run(run);
    let after = if after.is_empty() {
        None
    } else {
        let node: NodeId = after.parse().map_err(|error| ControllerError::invalid("after", error))?;
        Some(jobs::key(run, node)?)
    };
    let page = storage.repo.page::<JobRecord>(&prefix, after.as_ref(), limit, Direction::Ascending).await?;
    let next = (page.len() == limit)
        .then(|| page.last().map(|(_, stored)| stored.record.node.to_string()))
        .flatten();
    let open = memory.open_runs.of(run);
    let open = open.as_ref().map(|open| open.read());
    let rollout = open.as_ref().map(|model| model.rollout());
    let items = page
        .into_iter()
        .map(|(_, stored)| job_item(storage, memory, stored.record, run_record.procedure.clone(), rollout))
        .collect();
    Ok(Page { schema: "fleet/v1/job-list".to_owned(), items, next })
}

/// The node of this name in a run; also one that was removed since, or whose name another has now.
pub async fn node_in(storage: &Storage, memory: &Memory, run: RunId, name: &str) -> Result<NodeId> {
    let present = views::find(memory, name);
    if let Ok(known) = &present
        && storage.repo.get::<JobRecord>(&jobs::key(run, known.record.id)?).await?.is_some()
    {
        return Ok(known.record.id);
    }
    let jobs = storage.repo.all::<JobRecord>(&jobs::of_run(run)).await?;
    let then = jobs.iter().find(|(_, job)| job.record.node_name.as_str() == name);
    match (then, present) {
        (Some((_, job)), _) => Ok(job.record.node),
        (None, present) => present.map(|known| known.record.id),
    }
}

/// One job with its report.
pub async fn job(storage: &Storage, memory: &Memory, run: RunId, node_name: &str) -> Result<JobView> {
    let run_record = runs::load(storage, run).await?.record;
    let node = node_in(storage, memory, run, node_name).await?;
    let record = storage
        .repo
        .get::<JobRecord>(&jobs::key(run, node)?)
        .await?
        .ok_or_else(|| ControllerError::not_found("job", format!("{run}/{node_name}")))?
        .record;
    let report = match record.report {
        Some(at) => reports::stored_report(storage, node, at.chain, at.sequence).await?,
        None => None,
    };
    let (report, report_digest) =
        report.map_or((None, None), |(report, digest)| (Some(report), Some(digest)));
    Ok(JobView {
        schema: "fleet/v1/job".to_owned(),
        item: with_rollout(storage, memory, record, run_record.procedure),
        report,
        report_digest,
    })
}

#[cfg(test)]
mod tests {
    use fleet_types::time::Timestamp;

    use super::*;
    use crate::repo::reader::BatchExt as _;
    use crate::service::upgrades;
    use crate::testing::{TestContext, run_record};

    /// No clock of ours was ever before this.
    const THEN: i64 = 1_790_000_000_000;

    fn record(number: u64, started: i64) -> RunRecord {
        let started = Timestamp::clamped(THEN + started);
        RunRecord { state: RunState::Succeeded, ..run_record(RunId::from_number(number), started) }
    }

    async fn listed_in_pages(test: &TestContext, limit: usize) -> Vec<i64> {
        let (mut started, mut after) = (Vec::new(), String::new());
        loop {
            let page = list(&test.context.storage, &test.context.memory, &after, limit).await.unwrap();
            started.extend(page.items.iter().map(|item| item.started.as_millis() - THEN));
            match page.next {
                Some(next) => after = next,
                None => return started,
            }
        }
    }

    #[tokio::test]
    async fn the_newest_run_is_first_whatever_the_operators_clocks_said() {
        let test = TestContext::new().await;
        let context = &test.context;
        // A store of an older release: runs without entries by time, their ids in another order than their times.
        let mut batch = context.storage.audited.batch();
        for (number, started) in [(9, 1000), (3, 3000), (7, 2000), (1, 4000), (5, 2000)] {
            let record = record(number, started);
            batch = batch.put_record(repo::runs::key(record.run).unwrap(), &record).unwrap();
        }
        batch = batch.delete(repo::runs::by_time_made().unwrap());
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        assert_eq!(listed_in_pages(&test, 10).await, [0; 0]);
        upgrades::run(&context.storage).await.unwrap();
        for limit in [1, 2, 5, 10] {
            assert_eq!(
                listed_in_pages(&test, limit).await,
                [4000, 3000, 2000, 2000, 1000],
                "pages of {limit}"
            );
        }
        assert!(
            list(&context.storage, &context.memory, "r-0000000001", 10).await.is_err(),
            "no place that a page ended at"
        );
    }
}
