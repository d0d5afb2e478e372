//! Runs over one pair, driven pass by pass on a clock that the test moves: holds over runs, lost jobs and their
//! late answers, a machine that stood still.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fleet_rollout::{Holds, LOST_GRACE, Place, Presence};
use fleet_store::MemoryStore;
use fleet_types::id::{Attempt, NodeId, RunId};
use fleet_types::job::{JobLimits, JobState, Outcome};
use fleet_types::request::NodeList;
use fleet_types::run::{RunState, Tally};
use fleet_types::time::Timestamp;

use super::active::Active;
use super::cancel_retries::CancelRetries;
use super::{deliver, pass, unloadable};
use crate::clock::Clock;
use crate::context::Context;
use crate::rebuild::Known;
use crate::repo::codec::Mark;
use crate::repo::holds;
use crate::repo::jobs::{self, InboxRecord, JobRecord};
use crate::repo::reader::BatchExt as _;
use crate::repo::runs::{self, RunRecord};
use crate::service::run_views;
use crate::testing::{TestContext, agent, job_record, run_record};

const START: i64 = 1_800_000_000_000;
const PAIR: &str = "ams2-edge";

mod gates;
mod limits;
mod rings;

/// A controller on a manual clock, and what its loop holds.
struct World {
    test: TestContext,
    holds: Holds,
    now: Timestamp,
}

impl World {
    async fn new() -> Self {
        Self::configured("").await
    }

    async fn configured(more: &str) -> Self {
        let now = Timestamp::clamped(START);
        let test = TestContext::configured(Arc::new(MemoryStore::new()), Clock::manual(now), more).await;
        Self { test, holds: Holds::default(), now }
    }

    fn context(&self) -> &Context {
        &self.test.context
    }

    fn advance(&mut self, by: Duration) {
        self.now = self.now.plus(by);
        self.context().storage.clock.set(self.now);
    }

    /// Writes a changing run over the given nodes of the pair, valid for an hour, ten minutes a job.
    async fn run(&self, number: u64, nodes: &[u128]) -> RunId {
        self.run_of(number, nodes, 9, Some(PAIR)).await
    }

    async fn run_of(&self, number: u64, nodes: &[u128], max_parallel: u32, pair: Option<&str>) -> RunId {
        let run = RunId::from_number(number);
        let ids: Vec<NodeId> = nodes.iter().map(|n| agent(*n).node).collect();
        let list = NodeList::of(&ids);
        let record = RunRecord {
            changes: true,
            job_limit_ms: 600_000,
            max_parallel,
            nodes_root: list.root,
            tally: Tally::new(list.count),
            ..run_record(run, self.now)
        };
        let context = self.context();
        let mut batch = context.storage.audited.batch().put_record(runs::key(run).unwrap(), &record).unwrap();
        batch = batch.put_record(runs::open(run).unwrap(), &Mark {}).unwrap();
        for (index, n) in (0..).zip(nodes) {
            let job = JobRecord { index, pair: pair.map(str::to_owned), ..job_record(run, &agent(*n)) };
            batch = batch.put_record(jobs::key(run, job.node).unwrap(), &job).unwrap();
        }
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        run
    }

    /// The run as after a start, with all its nodes online.
    async fn load(&mut self, run: RunId) -> Active {
        self.holds.set_all(holds::holds(&self.test.context.storage.repo).await.unwrap());
        let listening_since = self.context().storage.clock.moment().mono;
        let known = Known { before: None, listening_since };
        let active = Active::load(&self.test.context, run, &known, &self.holds).await.unwrap();
        let now = self.context().storage.clock.moment();
        let nodes: Vec<NodeId> = active.open.read().nodes().collect();
        for node in nodes {
            active.open.write().apply(now, &fleet_rollout::Event::presence(node, Presence::Online)).unwrap();
        }
        active
    }

    /// One pass, as the loop makes it; true when the run has ended.
    async fn pass(&mut self, active: &Active, changed: &[u128]) -> bool {
        let context = Arc::clone(&self.test.context);
        let changed: BTreeSet<NodeId> = changed.iter().map(|n| agent(*n).node).collect();
        let none = BTreeSet::new();
        pass::refresh(&context.storage, &context.memory, active, &mut self.holds, &changed, &none)
            .await
            .unwrap();
        for place in self.holds.take_changed() {
            pass::tell_hold(&context.storage, active, &self.holds, &place).unwrap();
        }
        pass::settle(&context, active, &mut self.holds, &mut CancelRetries::default()).await.unwrap()
    }

    /// A node ends its job, as the service that takes reports writes it.
    async fn end(&self, run: RunId, n: u128, outcome: Outcome) {
        let context = self.context();
        let key = jobs::key(run, agent(n).node).unwrap();
        let known = context.storage.repo.get::<JobRecord>(&key).await.unwrap().unwrap();
        let state = JobState::ended(outcome, "");
        let ended = JobRecord { state, ..known.record.clone() };
        let batch =
            jobs::end(&context.storage.repo, context.storage.audited.batch(), &known, &ended).await.unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
    }

    async fn state(&self, run: RunId, n: u128) -> JobState {
        let key = jobs::key(run, agent(n).node).unwrap();
        self.context().storage.repo.get::<JobRecord>(&key).await.unwrap().unwrap().record.state
    }

    async fn outcome(&self, run: RunId, n: u128) -> Option<Outcome> {
        self.state(run, n).await.outcome()
    }
}

#[tokio::test]
async fn two_runs_never_have_both_halves_of_a_pair() {
    let mut world = World::new().await;
    let (first, second) = (world.run(1, &[1]).await, world.run(2, &[2]).await);
    let (one, two) = (world.load(first).await, world.load(second).await);
    world.pass(&one, &[]).await;
    // The other run hears of it from the holds, also when it was read before.
    let pair = Place::pair(PAIR.to_owned());
    world.holds.set(&pair, holds::hold(&world.test.context.storage.repo, &pair).await.unwrap());
    pass::tell_hold(&world.test.context.storage, &two, &world.holds, &pair).unwrap();
    world.pass(&two, &[]).await;
    assert_eq!(
        (world.state(first, 1).await, world.state(second, 2).await),
        (JobState::Offered, JobState::Queued)
    );
    let why = two.open.read().rollout().blocked(agent(2).node, world.context().storage.clock.moment());
    assert_eq!(why[0].to_string(), format!("its pair is held for fw-1 in run {first}"));
    // A second controller, or one that missed the news, is stopped by the commit itself.
    let stale = world.load(second).await;
    let free = fleet_rollout::Event::Held { place: pair.clone(), holder: None };
    stale.open.write().apply(world.context().storage.clock.moment(), &free).unwrap();
    let mut nothing = Holds::default();
    let mut retries = CancelRetries::default();
    let error = pass::settle(&world.test.context, &stale, &mut nothing, &mut retries).await.unwrap_err();
    assert_eq!(error.kind, crate::error::Kind::Conflict);
    // The end frees it, in the same commit.
    world.end(first, 1, Outcome::Succeeded).await;
    assert!(world.pass(&one, &[1]).await, "the first run has ended");
    assert_eq!(holds::hold(&world.test.context.storage.repo, &pair).await.unwrap(), None);
    pass::tell_hold(&world.test.context.storage, &two, &world.holds, &pair).unwrap();
    world.pass(&two, &[]).await;
    assert_eq!(world.state(second, 2).await, JobState::Offered);
}

#[tokio::test]
async fn a_lost_job_is_told_to_stop_and_keeps_its_pair_until_the_node_answers() {
    let mut world = World::new().await;
    let run = world.run(1, &[1, 2]).await;
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    let node = agent(1).node;
    // It says that it needs two minutes, and is not heard of any more.
    let limits =
        JobLimits { phase_left: Duration::from_mins(1), job_left: Duration::from_mins(2), behind: None };
    let state = JobState::Running { step: "s".to_owned(), since: world.now };
    let said = world.context().storage.clock.moment().mono;
    world.context().memory.sessions.set_live(node, run, Attempt(1), state, Some(limits), said);
    world.pass(&active, &[1]).await;
    active
        .open
        .write()
        .apply(
            world.context().storage.clock.moment(),
            &fleet_rollout::Event::presence(node, Presence::Offline),
        )
        .unwrap();
    world.advance(Duration::from_mins(2) + LOST_GRACE);
    world.pass(&active, &[]).await;
    assert_eq!(world.outcome(run, 1).await, Some(Outcome::Lost));
    // Its partner waits, whoever reads the run: the hold stands in the store.
    assert_eq!(world.state(run, 2).await, JobState::Queued);
    let again = world.load(run).await;
    world.pass(&again, &[]).await;
    assert_eq!(world.state(run, 2).await, JobState::Queued);
    // The node would be told to stop, by whatever controller it comes back to.
    let reason = deliver::stop_reason(&world.context().storage, &world.context().memory, node, run)
        .await
        .unwrap()
        .unwrap();
    assert!(reason.starts_with("lost: nothing heard for 420 s"), "{reason}");
    let entry = jobs::inbox_entry(node, run).unwrap();
    assert!(world.context().storage.repo.get::<InboxRecord>(&entry).await.unwrap().is_some());
    // Its late answer frees the pair, and ends the word to stop.
    let key = jobs::key(run, node).unwrap();
    let lost = world.context().storage.repo.get::<JobRecord>(&key).await.unwrap().unwrap().record;
    let batch = jobs::settle(&world.context().storage.repo, world.context().storage.audited.batch(), &lost)
        .await
        .unwrap();
    world.context().storage.audited.commit(batch, vec![]).await.unwrap();
    assert!(world.context().storage.repo.get::<InboxRecord>(&entry).await.unwrap().is_none());
    world.pass(&again, &[1]).await;
    assert_eq!(world.state(run, 2).await, JobState::Offered);
}

#[tokio::test]
async fn a_run_that_is_read_anew_gives_nobody_more_time() {
    let mut world = World::new().await;
    let run = world.run(1, &[1]).await;
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    let waits = |active: &Active, world: &World| {
        active.open.read().rollout().next_look(world.context().storage.clock.moment()).unwrap()
    };
    let before = waits(&active, &world);
    // The last start comes and goes meanwhile: without what was known, its time would begin now.
    let passed = Duration::from_mins(65);
    world.advance(passed);
    let listening_since = active.open.read().rollout().listening_since();
    let known = Known { before: Some(Arc::clone(&active.open)), listening_since };
    let again = Active::load(&world.test.context, run, &known, &world.holds).await.unwrap();
    assert_eq!(waits(&again, &world) + passed, before);
}

#[tokio::test]
async fn a_run_that_ends_tells_nodes_from_its_own_record() {
    let mut world = World::new().await;
    let run = world.run(1, &[1]).await;
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    assert_eq!(
        deliver::stop_reason(&world.context().storage, &world.context().memory, agent(1).node, run)
            .await
            .unwrap(),
        None
    );
    let halting = RunRecord {
        state: RunState::Halting,
        stopped_because: "wrong file".to_owned(),
        ..active.run().record
    };
    let batch =
        world.context().storage.audited.batch().put_record(runs::key(run).unwrap(), &halting).unwrap();
    world.context().storage.audited.commit(batch, vec![]).await.unwrap();
    let reason = deliver::stop_reason(&world.context().storage, &world.context().memory, agent(1).node, run)
        .await
        .unwrap();
    assert_eq!(reason.as_deref(), Some("wrong file"));
}

/// Numbers of the nodes whose jobs a watcher is told of, and the newest change.
fn news(world: &World, active: &Active, after: u64) -> (Vec<NodeId>, u64) {
    active.open.tell(world.context().storage.clock.moment());
    let news = run_views::news(&world.context().storage, &world.context().memory, &active.open, after);
    (news.jobs.iter().map(|job| job.node).collect(), news.number)
}

#[tokio::test]
async fn a_watcher_is_told_of_what_changed_alone() {
    let mut world = World::new().await;
    let run = world.run_of(1, &[1, 2, 3, 4], 2, None).await;
    let active = world.load(run).await;
    let (all, seen) = news(&world, &active, 0);
    assert_eq!(all.len(), 4, "the first look shows all");
    assert_eq!(news(&world, &active, seen), (vec![], seen), "nothing moved");
    // Two go; the other two wait for a slot now.
    world.pass(&active, &[]).await;
    let (all, seen) = news(&world, &active, seen);
    assert_eq!(all.len(), 4);
    // One of those that go says how far it is; nobody else looks otherwise.
    let node = agent(1).node;
    let state = JobState::Running { step: "s".to_owned(), since: world.now };
    let said = world.context().storage.clock.moment().mono;
    world.context().memory.sessions.set_live(node, run, Attempt(1), state, None, said);
    world.pass(&active, &[1]).await;
    let (one, seen) = news(&world, &active, seen);
    assert_eq!(one, [node]);
    // It ends and another takes its place: these two, and not the one that waits on.
    world.end(run, 1, Outcome::Succeeded).await;
    world.pass(&active, &[1]).await;
    let (two, seen) = news(&world, &active, seen);
    assert_eq!(two, [agent(3).node, node]);
    // Read anew, after a conflict: what is the same as before is not told again.
    world.end(run, 2, Outcome::Failed).await;
    let listening_since = active.open.read().rollout().listening_since();
    let known = Known { before: Some(Arc::clone(&active.open)), listening_since };
    let active = Active::load(&world.test.context, run, &known, &world.holds).await.unwrap();
    assert_eq!(news(&world, &active, seen).0.first(), Some(&agent(2).node));
    assert!(!news(&world, &active, seen).0.contains(&node));
}

#[tokio::test]
async fn the_halves_of_a_pair_are_told_of_each_other() {
    let mut world = World::new().await;
    let run = world.run(1, &[1, 2]).await;
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    let (_, seen) = news(&world, &active, 0);
    let why = |active: &Active| {
        run_views::news(&world.context().storage, &world.context().memory, &active.open, 0)
            .jobs
            .iter()
            .find(|job| job.node == agent(2).node)
            .unwrap()
            .blocked
            .clone()
    };
    assert_eq!(why(&active), ["partner fw-1 is in flight"]);
    let offline = fleet_rollout::Event::presence(agent(1).node, Presence::Offline);
    active.open.write().apply(world.context().storage.clock.moment(), &offline).unwrap();
    assert_eq!(news(&world, &active, seen).0.len(), 2);
}

#[tokio::test]
async fn a_run_whose_records_contradict_each_other_ends_and_says_why() {
    let mut world = World::new().await;
    let run = world.run(1, &[1, 2]).await;
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    let third = JobRecord { index: 2, ..job_record(run, &agent(3)) };
    let batch = world
        .context()
        .storage
        .audited
        .batch()
        .put_record(jobs::key(run, third.node).unwrap(), &third)
        .unwrap();
    world.context().storage.audited.commit(batch, vec![]).await.unwrap();
    let error = Active::load(world.context(), run, &Known::default(), &world.holds).await.err().unwrap();
    assert_eq!(error.detail.code, crate::rebuild::UNLOADABLE);
    unloadable::end(&world.context().storage, &world.context().memory, run, &error.detail.message)
        .await
        .unwrap();
    // What was offered may be going on: its pair stays taken, and its node is told to stop.
    assert_eq!(world.outcome(run, 1).await, Some(Outcome::Lost));
    assert!(
        holds::hold(&world.context().storage.repo, &Place::pair(PAIR.to_owned())).await.unwrap().is_some()
    );
    assert!(
        deliver::stop_reason(&world.context().storage, &world.context().memory, agent(1).node, run)
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(world.outcome(run, 2).await, Some(Outcome::Cancelled));
    let stored = world
        .context()
        .storage
        .repo
        .get::<RunRecord>(&runs::key(run).unwrap())
        .await
        .unwrap()
        .unwrap()
        .record;
    assert_eq!((stored.state, stored.tally.total_ended()), (RunState::Failed, 3));
    assert_eq!(
        stored.stopped_because,
        "the run cannot be carried out: its jobs are not those of its request"
    );
    assert!(world.context().storage.repo.get::<Mark>(&runs::open(run).unwrap()).await.unwrap().is_none());
}
