//! Runs over one pair, driven pass by pass on a clock that the test moves: holds over runs, lost jobs and their
//! late answers, a machine that stood still.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fleet_rollout::LOST_GRACE;
use fleet_store::MemoryStore;
use fleet_types::id::{Attempt, NodeId, RunId};
use fleet_types::job::{JobLimits, JobState, Outcome};
use fleet_types::request::NodeList;
use fleet_types::run::{RunState, Tally};
use fleet_types::time::Timestamp;

use super::active::Active;
use super::cancel_retries::CancelRetries;
use super::pair_holds::PairHolds;
use super::{deliver, pass};
use crate::clock::Clock;
use crate::context::Context;
use crate::rebuild::Known;
use crate::repo::reader::BatchExt as _;
use crate::repo::records::{InboxRecord, JobRecord, Mark, RunRecord};
use crate::repo::{jobs, keys};
use crate::testing::{TestContext, agent, job_record, run_record};

const START: i64 = 1_800_000_000_000;
const PAIR: &str = "ams2-edge";

/// A controller on a manual clock, and what its loop holds.
struct World {
    test: TestContext,
    holds: PairHolds,
    now: Timestamp,
}

impl World {
    async fn new() -> Self {
        let now = Timestamp::clamped(START);
        let test = TestContext::at(Arc::new(MemoryStore::new()), Clock::manual(now)).await;
        Self { test, holds: PairHolds::default(), now }
    }

    fn context(&self) -> &Context {
        &self.test.context
    }

    fn advance(&mut self, by: Duration) {
        self.now = self.now.plus(by);
        self.context().clock.set(self.now);
    }

    /// Writes a changing run over the given nodes of the pair, valid for an hour, ten minutes a job.
    async fn run(&self, number: u64, nodes: &[u128]) -> RunId {
        let run = RunId::from_number(number);
        let ids: Vec<NodeId> = nodes.iter().map(|n| agent(*n).node).collect();
        let list = NodeList::of(&ids);
        let record = RunRecord {
            changes: true,
            job_limit_ms: 600_000,
            max_parallel: 9,
            nodes_root: list.root,
            tally: Tally::new(list.count),
            ..run_record(run, self.now)
        };
        let context = self.context();
        let mut batch = context.audited.batch().put_record(keys::run(run).unwrap(), &record).unwrap();
        batch = batch.put_record(keys::open_run(run).unwrap(), &Mark {}).unwrap();
        for (index, n) in (0..).zip(nodes) {
            let job = JobRecord { index, pair: Some(PAIR.to_owned()), ..job_record(run, &agent(*n)) };
            batch = batch.put_record(keys::job(run, job.node).unwrap(), &job).unwrap();
        }
        context.audited.commit(batch, vec![]).await.unwrap();
        run
    }

    /// The run as after a start, with all its nodes online.
    async fn load(&mut self, run: RunId) -> Active {
        self.holds.read_all(&self.test.context).await.unwrap();
        let listening_since = self.context().clock.moment().mono;
        let known = Known { before: None, listening_since };
        let active = Active::load(&self.test.context, run, &known, &self.holds).await.unwrap();
        let now = self.context().clock.moment();
        for node in active.jobs.keys().copied().collect::<Vec<_>>() {
            active.rollout.write().apply(now, &fleet_rollout::Event::online(node)).unwrap();
        }
        active
    }

    /// One pass, as the loop makes it; true when the run has ended.
    async fn pass(&mut self, active: &mut Active, changed: &[u128]) -> bool {
        let context = Arc::clone(&self.test.context);
        let changed: BTreeSet<NodeId> = changed.iter().map(|n| agent(*n).node).collect();
        let none = BTreeSet::new();
        pass::refresh(&context, active, &mut self.holds, &changed, &none).await.unwrap();
        for pair in self.holds.take_changed() {
            pass::tell_hold(&context, active, &self.holds, &pair).unwrap();
        }
        pass::settle(&context, active, &mut self.holds, &mut CancelRetries::default()).await.unwrap()
    }

    /// A node ends its job, as the service that takes reports writes it.
    async fn end(&self, run: RunId, n: u128, outcome: Outcome) {
        let context = self.context();
        let key = keys::job(run, agent(n).node).unwrap();
        let known = context.repo.get::<JobRecord>(&key).await.unwrap().unwrap();
        let state = JobState::ended(outcome, "");
        let ended = JobRecord { state, ..known.record.clone() };
        let batch = jobs::end(&context.repo, context.audited.batch(), &known, &ended).await.unwrap();
        context.audited.commit(batch, vec![]).await.unwrap();
    }

    async fn state(&self, run: RunId, n: u128) -> JobState {
        let key = keys::job(run, agent(n).node).unwrap();
        self.context().repo.get::<JobRecord>(&key).await.unwrap().unwrap().record.state
    }

    async fn outcome(&self, run: RunId, n: u128) -> Option<Outcome> {
        self.state(run, n).await.outcome()
    }
}

#[tokio::test]
async fn two_runs_never_have_both_halves_of_a_pair() {
    let mut world = World::new().await;
    let (first, second) = (world.run(1, &[1]).await, world.run(2, &[2]).await);
    let (mut one, mut two) = (world.load(first).await, world.load(second).await);
    world.pass(&mut one, &[]).await;
    // The other run hears of it from the holds, also when it was read before.
    world.holds.set(PAIR, jobs::pair_hold(&world.test.context.repo, PAIR).await.unwrap());
    pass::tell_hold(&world.test.context, &mut two, &world.holds, PAIR).unwrap();
    world.pass(&mut two, &[]).await;
    assert_eq!(
        (world.state(first, 1).await, world.state(second, 2).await),
        (JobState::Offered, JobState::Queued)
    );
    let why = two.rollout.read().blocked(agent(2).node, world.context().clock.moment());
    assert_eq!(why[0].to_string(), format!("its pair is held for fw-1 in run {first}"));
    // A second controller, or one that missed the news, is stopped by the commit itself.
    let mut stale = world.load(second).await;
    let free = fleet_rollout::Event::PairHeld { pair: PAIR.to_owned(), holder: None };
    stale.rollout.write().apply(world.context().clock.moment(), &free).unwrap();
    let mut nothing = PairHolds::default();
    let mut retries = CancelRetries::default();
    let error = pass::settle(&world.test.context, &mut stale, &mut nothing, &mut retries).await.unwrap_err();
    assert_eq!(error.kind, crate::error::Kind::Conflict);
    // The end frees it, in the same commit.
    world.end(first, 1, Outcome::Succeeded).await;
    assert!(world.pass(&mut one, &[1]).await, "the first run has ended");
    assert_eq!(jobs::pair_hold(&world.test.context.repo, PAIR).await.unwrap(), None);
    pass::tell_hold(&world.test.context, &mut two, &world.holds, PAIR).unwrap();
    world.pass(&mut two, &[]).await;
    assert_eq!(world.state(second, 2).await, JobState::Offered);
}

#[tokio::test]
async fn a_lost_job_is_told_to_stop_and_keeps_its_pair_until_the_node_answers() {
    let mut world = World::new().await;
    let run = world.run(1, &[1, 2]).await;
    let mut active = world.load(run).await;
    world.pass(&mut active, &[]).await;
    let node = agent(1).node;
    // It says that it needs two minutes, and is not heard of any more.
    let limits =
        JobLimits { phase_left: Duration::from_mins(1), job_left: Duration::from_mins(2), behind: None };
    let state = JobState::Running { step: "s".to_owned(), since: world.now };
    let said = world.context().clock.moment().mono;
    world.context().sessions.set_live(node, run, Attempt(1), state, Some(limits), said);
    world.pass(&mut active, &[1]).await;
    active
        .rollout
        .write()
        .apply(world.context().clock.moment(), &fleet_rollout::Event::offline(node))
        .unwrap();
    world.advance(Duration::from_mins(2) + LOST_GRACE);
    world.pass(&mut active, &[]).await;
    assert_eq!(world.outcome(run, 1).await, Some(Outcome::Lost));
    // Its partner waits, whoever reads the run: the hold stands in the store.
    assert_eq!(world.state(run, 2).await, JobState::Queued);
    let mut again = world.load(run).await;
    world.pass(&mut again, &[]).await;
    assert_eq!(world.state(run, 2).await, JobState::Queued);
    // The node would be told to stop, by whatever controller it comes back to.
    let reason = deliver::stop_reason(world.context(), node, run).await.unwrap().unwrap();
    assert!(reason.starts_with("lost: nothing heard for 420 s"), "{reason}");
    let entry = keys::inbox_entry(node, run).unwrap();
    assert!(world.context().repo.get::<InboxRecord>(&entry).await.unwrap().is_some());
    // Its late answer frees the pair, and ends the word to stop.
    let key = keys::job(run, node).unwrap();
    let lost = world.context().repo.get::<JobRecord>(&key).await.unwrap().unwrap().record;
    let batch = jobs::settle(&world.context().repo, world.context().audited.batch(), &lost).await.unwrap();
    world.context().audited.commit(batch, vec![]).await.unwrap();
    assert!(world.context().repo.get::<InboxRecord>(&entry).await.unwrap().is_none());
    world.pass(&mut again, &[1]).await;
    assert_eq!(world.state(run, 2).await, JobState::Offered);
}

#[tokio::test]
async fn a_run_that_is_read_anew_gives_nobody_more_time() {
    let mut world = World::new().await;
    let run = world.run(1, &[1]).await;
    let mut active = world.load(run).await;
    world.pass(&mut active, &[]).await;
    let waits = |active: &Active, world: &World| {
        active.rollout.read().next_look(world.context().clock.moment()).unwrap()
    };
    let before = waits(&active, &world);
    // The last start comes and goes meanwhile: without what was known, its time would begin now.
    let passed = Duration::from_mins(65);
    world.advance(passed);
    let listening_since = active.rollout.read().listening_since();
    let known = Known { before: Some(active.rollout.clone()), listening_since };
    let again = Active::load(&world.test.context, run, &known, &world.holds).await.unwrap();
    assert_eq!(waits(&again, &world) + passed, before);
}

#[tokio::test]
async fn a_run_that_ends_tells_nodes_from_its_own_record() {
    let mut world = World::new().await;
    let run = world.run(1, &[1]).await;
    let mut active = world.load(run).await;
    world.pass(&mut active, &[]).await;
    assert_eq!(deliver::stop_reason(world.context(), agent(1).node, run).await.unwrap(), None);
    let halting = RunRecord {
        state: RunState::Halting,
        stopped_because: "wrong file".to_owned(),
        ..active.run.record.clone()
    };
    let batch = world.context().audited.batch().put_record(keys::run(run).unwrap(), &halting).unwrap();
    world.context().audited.commit(batch, vec![]).await.unwrap();
    let reason = deliver::stop_reason(world.context(), agent(1).node, run).await.unwrap();
    assert_eq!(reason.as_deref(), Some("wrong file"));
}
