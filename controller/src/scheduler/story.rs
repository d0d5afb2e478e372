//! The scheduler over a store and a clock that stands still until a test moves it.

use std::sync::Arc;
use std::time::Duration;

use fleet_store::MemoryStore;
use fleet_types::id::{NodeId, RunId};
use fleet_types::job::{JobState, Outcome};
use fleet_types::label::Labels;
use fleet_types::run::RunState;
use fleet_types::seal::Kind as SealKind;
use fleet_types::time::Timestamp;
use fleet_types::trust::OperatorRole;
use fleet_types::view::{NotFired, ScheduleItem, ScheduleState, TickItem};
use serde_json::{Value, json};

use super::turn::Scheduler;
use crate::clock::Clock;
use crate::context::Context;
use crate::repo::jobs::{self, JobRecord};
use crate::repo::nodes::{self, NodeRecord, NodeState};
use crate::repo::reader::BatchExt as _;
use crate::repo::runs::{self, RunRecord};
use crate::service::schedules::{self, Steer, Which};
use crate::service::standing_orders::{Call, authorise};
use crate::testing::{Applied, Signer, TestContext, agent, leaves};

struct World {
    test: TestContext,
    signer: Signer,
    scheduler: Scheduler,
}

/// 2027-01-15 08:00 UTC, a Friday; the schedule ticks at 02:00.
const START: i64 = 1_800_000_000_000;

fn hours(hours: u64) -> Timestamp {
    Timestamp::clamped(START).plus(Duration::from_hours(hours))
}

/// The first tick is 18 hours after the start, the others a day apart.
fn tick(day: u64) -> Timestamp {
    hours(18 + 24 * day)
}

impl World {
    /// Somebody has applied and signed the schedule `edge/daily`.
    async fn new(more: Value) -> Self {
        let clock = Clock::manual(hours(0));
        let test = TestContext::at(Arc::new(MemoryStore::new()), clock).await;
        let signer = Signer::listed(&test.context, OperatorRole::Operator);
        let scheduler = Scheduler::new(&test.context.storage.clock);
        let world = Self { test, signer, scheduler };
        world.sign(more).await;
        world
    }

    async fn sign(&self, more: Value) {
        let mut one = json!({"id": "daily"});
        one.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let context = self.context();
        let applied = Applied::new(context, &self.signer, &[one]).await;
        let order = applied.order(context, "daily");
        let sealed = [self.signer.seal(context, SealKind::StandingOrder, &order)];
        let call = Call { file: &"edge".parse().unwrap(), orders: &sealed, idempotency_key: "" };
        authorise(context, &self.signer.caller, call).await.unwrap();
    }

    fn context(&self) -> &Context {
        &self.test.context
    }

    async fn node(&self, n: u128) -> NodeId {
        let context = self.context();
        let agent = agent(n);
        let labels = Labels::new([("site".to_owned(), "ams2".to_owned())]).unwrap();
        let now = context.storage.clock.now();
        let record =
            NodeRecord::pending(agent.node, agent.name.clone(), labels, now).with_state(NodeState::Active);
        let batch = nodes::create(context.storage.audited.batch(), &record).unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        context.memory.node_cache.advance(record);
        agent.node
    }

    /// A turn at an instant; when it wants to look again.
    async fn at(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.test.context.storage.clock.set(now);
        self.scheduler.turn(&self.test.context).await.unwrap()
    }

    /// The controller was away meanwhile.
    fn restart(&mut self) {
        self.scheduler = Scheduler::new(&self.test.context.storage.clock);
    }

    async fn runs(&self) -> Vec<RunRecord> {
        let all = self.context().storage.repo.all::<RunRecord>(runs::ALL).await.unwrap();
        all.into_iter().map(|(_, stored)| stored.record).collect()
    }

    async fn history(&self) -> Vec<TickItem> {
        schedules::history(self.context(), &daily(), 100).await.unwrap().items
    }

    async fn item(&self) -> ScheduleItem {
        schedules::list(self.context(), &daily(), 0).await.unwrap().items.remove(0)
    }

    /// The run ends, and so do its jobs.
    async fn end(&self, run: RunId, state: RunState, outcome: Outcome) {
        let storage = &self.context().storage;
        let stored = storage.repo.get::<RunRecord>(&runs::key(run).unwrap()).await.unwrap().unwrap();
        let record = RunRecord { state, ..stored.record };
        let mut batch = runs::save(storage.audited.batch(), stored.write_id, &record).unwrap();
        for (key, job) in storage.repo.all::<JobRecord>(&jobs::of_run(run)).await.unwrap() {
            let ended = JobRecord { state: JobState::ended(outcome, ""), ..job.record };
            batch = batch.replace_record(key, job.write_id, &ended).unwrap();
        }
        storage.audited.commit(batch, vec![]).await.unwrap();
    }

    async fn steer(&self, which: &Which, steer: Steer) -> String {
        schedules::steer(self.context(), &self.signer.caller, (which, steer), "because", "").await.unwrap()
    }
}

fn daily() -> Which {
    Which::parse(Some("edge/daily")).unwrap()
}

#[tokio::test]
async fn a_tick_fires_when_it_is_due_and_never_again() {
    let mut world = World::new(json!({})).await;
    world.node(1).await;
    assert_eq!(world.at(hours(0)).await, Some(tick(0)));
    assert_eq!(world.item().await.state, ScheduleState::New);
    assert_eq!(world.at(tick(0)).await, Some(tick(1)));
    let runs = world.runs().await;
    assert_eq!((runs.len(), runs[0].started_by.as_str()), (1, "schedule edge/daily"));
    assert_eq!((runs[0].not_before, runs[0].not_after), (tick(0), tick(0).plus(Duration::from_hours(2))));
    for _ in 0..3 {
        world.restart();
        assert_eq!(world.at(tick(0).plus(Duration::from_mins(1))).await, Some(tick(1)));
    }
    assert_eq!(world.runs().await.len(), 1);
    world.end(runs[0].run, RunState::Succeeded, Outcome::Succeeded).await;
    world.at(tick(1)).await;
    assert_eq!(world.runs().await.len(), 2);
    let item = world.item().await;
    assert_eq!((item.state, item.notes.len(), item.unseen), (ScheduleState::Up, 0, 0));
    assert_eq!(item.next[0].shown, "2027-01-18 02:00 UTC");
}

/// T17.
#[tokio::test]
async fn after_days_in_the_dark_one_run_is_made_and_the_misses_are_told_until_somebody_has_seen_them() {
    let mut world = World::new(json!({"catch_up": "5h"})).await;
    world.node(1).await;
    world.at(hours(0)).await;
    world.restart();
    world.at(tick(3).plus(Duration::from_hours(4))).await;
    let history = world.history().await;
    assert_eq!((history.len(), world.runs().await.len()), (2, 1));
    assert_eq!((history[0].at, history[0].not_fired), (tick(3), None));
    let missed = &history[1];
    assert_eq!((missed.at, missed.first, missed.count), (tick(2), Some(tick(0)), 3));
    assert_eq!((missed.not_fired, missed.unseen), (Some(NotFired::Missed), true));
    let lines = schedules::attention(world.context(), 20).await.unwrap();
    assert_eq!(lines[0].command, "fleetctl schedule history edge/daily --seen");
    world.steer(&daily(), Steer::Seen).await;
    assert_eq!(schedules::attention(world.context(), 20).await.unwrap(), []);
    assert_eq!(leaves(world.context(), "schedule.skip").await[0].detail["count"], "3");
}

#[tokio::test]
async fn a_run_that_is_refused_is_tried_again_until_it_is_too_late_and_is_then_a_miss_with_its_reason() {
    let mut world = World::new(json!({"window": "30m"})).await;
    let node = world.node(1).await;
    world
        .context()
        .memory
        .node_cache
        .update(node, |known| known.actions = ["other.action".to_owned()].into());
    let again = world.at(tick(0)).await.unwrap();
    assert_eq!(again, tick(0).plus(Duration::from_mins(1)));
    let item = world.item().await;
    assert_eq!(item.state, ScheduleState::Late);
    assert!(
        item.notes[0].contains("cannot carry out") || item.notes[0].contains("cannot take part"),
        "{item:?}"
    );
    assert_eq!(world.at(again).await, Some(again.plus(Duration::from_mins(2))), "not each minute for ever");
    world.at(tick(0).plus(Duration::from_mins(31))).await;
    let history = world.history().await;
    assert_eq!(history[0].not_fired, Some(NotFired::Refused));
    assert!(history[0].because.contains("cannot take part"), "{history:?}");
    assert_eq!((world.runs().await.len(), world.item().await.state), (0, ScheduleState::Down));
}

#[tokio::test]
async fn no_node_and_a_run_that_still_goes_are_reasons() {
    let mut world = World::new(json!({})).await;
    world.at(tick(0)).await;
    assert_eq!(world.history().await[0].not_fired, Some(NotFired::NoNodes));
    world.node(1).await;
    world.at(tick(1)).await;
    world.at(tick(2)).await;
    let history = world.history().await;
    assert_eq!((history[1].not_fired, history[0].not_fired), (None, Some(NotFired::Overlap)));
}

#[tokio::test]
async fn a_run_that_still_goes_is_cancelled_where_the_file_says_so() {
    let mut world = World::new(json!({"overlap": "cancel_running"})).await;
    world.node(1).await;
    world.at(tick(0)).await;
    world.at(tick(1)).await;
    let runs = world.runs().await;
    assert_eq!((runs.len(), runs[0].state), (1, RunState::Halting));
    assert_eq!(world.item().await.state, ScheduleState::Late);
    world.end(runs[0].run, RunState::Cancelled, Outcome::Cancelled).await;
    world.at(tick(1).plus(Duration::from_mins(1))).await;
    assert_eq!(world.runs().await.len(), 2);
}

#[tokio::test]
async fn a_pause_stops_ticks_and_what_came_due_is_no_miss() {
    let mut world = World::new(json!({"catch_up": "20h"})).await;
    world.node(1).await;
    for which in [daily(), Which::All] {
        let before = world.history().await.len() as u64;
        world.steer(&which, Steer::Pause).await;
        world.at(tick(before)).await;
        assert_eq!(world.history().await[0].not_fired, Some(NotFired::Paused));
        let item = world.item().await;
        assert_eq!((item.state, item.unseen), (ScheduleState::Paused, 0));
        assert!(item.notes[0].contains("paused by ada") && item.notes[0].ends_with("because"), "{item:?}");
        world.steer(&which, Steer::Resume).await;
        world.at(tick(before).plus(Duration::from_hours(1))).await;
        assert_eq!(world.runs().await.len(), 0, "nothing is made up for");
    }
    let again =
        schedules::steer(world.context(), &world.signer.caller, (&daily(), Steer::Resume), "", "").await;
    assert_eq!(again.unwrap_err().detail.code, "not-paused");
    world.at(tick(2)).await;
    assert_eq!(world.runs().await.len(), 1);
    assert_eq!(leaves(world.context(), "schedule.pause").await.len(), 2);
}

/// T15: what a clock that was ahead has decided neither fires again nor keeps the days to come from firing.
#[tokio::test]
async fn a_clock_that_is_set_back_pauses_everything_until_somebody_resumes() {
    let mut world = World::new(json!({})).await;
    world.node(1).await;
    world.at(tick(1)).await;
    let ahead = world.history().await.len();
    assert_eq!(world.at(tick(0).minus(Duration::from_hours(1))).await, None);
    let lines = schedules::attention(world.context(), 20).await.unwrap();
    assert_eq!(
        (lines[0].subject.as_str(), lines[0].command.as_str()),
        ("scheduler", "fleetctl schedule resume --all")
    );
    assert!(lines[0].message.contains("the clock of the controller jumped by -"), "{lines:?}");
    assert_eq!(world.at(tick(0)).await, None, "nothing is decided");
    assert_eq!(world.history().await.len(), ahead);
    world.steer(&Which::All, Steer::Resume).await;
    world.end(world.runs().await[0].run, RunState::Succeeded, Outcome::Succeeded).await;
    for now in [tick(0), tick(1), tick(2)] {
        world.at(now).await;
    }
    let mut at: Vec<Timestamp> = world.history().await.iter().map(|tick| tick.at).collect();
    at.dedup();
    assert_eq!(at, [tick(2), tick(1), tick(0)], "each once");
    assert_eq!(leaves(world.context(), "schedule.pause").await[0].actor.role, "controller");
}

/// T15: a clock that goes a day ahead fires nothing of that day. A machine that slept for as long has lived through it.
#[tokio::test]
async fn a_clock_that_is_set_ahead_pauses_everything_and_a_machine_that_slept_goes_on() {
    let mut world = World::new(json!({"catch_up": "20h"})).await;
    world.node(1).await;
    world.at(hours(0)).await;
    world.context().storage.clock.jump(tick(0));
    assert_eq!(world.scheduler.turn(&world.test.context).await.unwrap(), None);
    assert_eq!(world.runs().await.len(), 0);
    let lines = schedules::attention(world.context(), 20).await.unwrap();
    assert!(lines[0].message.contains("jumped by 64800 s"), "{lines:?}");
    world.steer(&Which::All, Steer::Resume).await;
    assert_eq!(world.at(tick(0)).await, Some(tick(1)));
    assert_eq!(world.runs().await.len(), 1, "the clock is right, says an operator");
    let run = world.runs().await[0].run;
    world.end(run, RunState::Succeeded, Outcome::Succeeded).await;
    world.at(tick(1).plus(Duration::from_hours(10))).await;
    assert_eq!(world.runs().await.len(), 2, "it slept over its tick, and catches up");
}

#[tokio::test]
async fn nodes_that_were_offline_get_another_run_of_the_same_tick() {
    let mut world = World::new(json!({"late_nodes": "when_online", "catch_up": "12h"})).await;
    world.node(1).await;
    world.at(tick(0)).await;
    let first = world.runs().await[0].run;
    world.end(first, RunState::Failed, Outcome::Expired).await;
    world.restart();
    world.at(tick(0).plus(Duration::from_hours(2))).await;
    let runs = world.runs().await;
    assert_eq!(runs.len(), 2);
    let second = runs.iter().find(|run| run.run != first).unwrap();
    assert_eq!(second.not_after, tick(0).plus(Duration::from_hours(14)));
    assert_eq!(world.history().await[0].runs, [first, second.run]);
    world.end(second.run, RunState::Failed, Outcome::Expired).await;
    world.restart();
    world.at(tick(0).plus(Duration::from_hours(3))).await;
    assert_eq!(world.runs().await.len(), 2, "once");
}

/// Said before the night in which it would not fire.
#[tokio::test]
async fn a_schedule_whose_signer_is_gone_is_down_at_once() {
    let world = World::new(json!({})).await;
    world.node(1).await;
    assert_eq!(world.item().await.state, ScheduleState::New);
    let (bundle, signed) = (*world.context().identities.trust.get()).clone();
    let next = bundle.clone().with_content_keys(vec![], bundle.issued);
    world.context().identities.trust.set(next, signed);
    let item = world.item().await;
    assert_eq!((item.state, item.next.len()), (ScheduleState::Down, 0));
    assert!(item.notes[0].contains("nodes do not take what ada signed"), "{item:?}");
    let lines = schedules::attention(world.context(), 20).await.unwrap();
    assert!(lines.len() == 1 && lines[0].message.contains("do not take"), "{lines:?}");
}

#[tokio::test]
async fn a_file_that_is_applied_again_fires_nothing_until_it_is_signed_and_nothing_from_before() {
    let mut world = World::new(json!({"catch_up": "20h"})).await;
    world.node(1).await;
    world.at(hours(0)).await;
    let newer = crate::testing::file(&[json!({"id": "daily", "window": "3h"})]);
    world.signer.apply(world.context(), newer).await;
    world.at(tick(0).plus(Duration::from_hours(1))).await;
    assert_eq!(world.runs().await.len(), 0);
    let item = world.item().await;
    assert_eq!(item.state, ScheduleState::Down);
    assert!(item.notes[0].contains("newer than what was signed"), "{item:?}");
    world.sign(json!({"catch_up": "20h"})).await;
    world.at(tick(0).plus(Duration::from_hours(2))).await;
    assert_eq!(world.runs().await.len(), 0, "it was signed after that tick");
    world.at(tick(1)).await;
    assert_eq!(world.runs().await.len(), 1);
}
