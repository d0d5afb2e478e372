//! A rollout of two rings, driven pass by pass: order, a soak over a restart, a halt, and what operators say.

use fleet_rollout::RingProgress;
use fleet_types::digest::Digest;
use fleet_types::run::RingState;

use super::*;
use crate::repo::jobs;
use crate::repo::rollouts::{RingRecord, RolloutRecord};
use crate::repo::runs;
use crate::service::rollouts::{Steer, steer};
use crate::testing::operator;

pub(super) fn ring(number: usize, name: &str, soak_ms: u64) -> RingRecord {
    let mut ring = RingRecord {
        name: name.to_owned(),
        max_parallel: None,
        soak_ms,
        success_percent: 100,
        is_manual: number == 0,
        state: RingState::Pending,
        soaked_ms: 0,
        excused_failed: 0,
        excused: 0,
        because: String::new(),
        judgings: 0,
        verdict: None,
    };
    ring.note(&RingProgress::begin(number));
    ring
}

impl World {
    /// Node 1 is the canary, which soaks for ten minutes and is let on by an operator; the others are the rest.
    async fn rollout(&self, nodes: &[u128]) -> RunId {
        let run = self.run_of(1, nodes, 9, None).await;
        let rollout = RolloutRecord {
            policy: "careful".to_owned(),
            policy_digest: Digest::of(b"policy"),
            max_failed_nodes: Some(0),
            max_failed_percent: None,
            goes_on: false,
            max_per_site: None,
            gates: vec![],
            judging_ms: None,
            rings: vec![ring(0, "canary", 600_000), ring(1, "rest", 0)],
        };
        self.follow(run, nodes, rollout).await;
        run
    }

    /// The run follows these rings: node 1 is in the first, the others are in the second.
    pub(super) async fn follow(&self, run: RunId, nodes: &[u128], rollout: RolloutRecord) {
        let context = self.context();
        let stored = context.storage.repo.get::<RunRecord>(&runs::key(run).unwrap()).await.unwrap().unwrap();
        let record = RunRecord { rollout: Some(rollout), ..stored.record };
        let mut batch = context.storage.audited.batch().put_record(runs::key(run).unwrap(), &record).unwrap();
        for n in nodes.iter().filter(|n| **n > 1) {
            let key = jobs::key(run, agent(*n).node).unwrap();
            let job = context.storage.repo.get::<JobRecord>(&key).await.unwrap().unwrap().record;
            batch = batch.put_record(key, &JobRecord { ring: 1, ..job }).unwrap();
        }
        context.storage.audited.commit(batch, vec![]).await.unwrap();
    }

    pub(super) async fn rings(&self, run: RunId) -> Vec<RingState> {
        let stored =
            self.context().storage.repo.get::<RunRecord>(&runs::key(run).unwrap()).await.unwrap().unwrap();
        stored.record.rollout.unwrap().rings.iter().map(|ring| ring.state).collect()
    }

    pub(super) async fn say(&self, active: &Active, run: RunId, what: Steer) -> crate::error::Result<String> {
        self.context().memory.open_runs.publish(run, Arc::clone(&active.open));
        steer(&self.context().storage, &self.context().memory, &operator(), run, what, ("because", "")).await
    }
}

#[tokio::test]
async fn a_canary_soaks_over_a_restart_and_an_operator_lets_the_rest_begin() {
    let mut world = World::new().await;
    let run = world.rollout(&[1, 2, 3]).await;
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    assert_eq!((world.state(run, 1).await, world.state(run, 2).await), (JobState::Offered, JobState::Queued));
    world.end(run, 1, Outcome::Succeeded).await;
    world.pass(&active, &[1]).await;
    assert_eq!(world.rings(run).await, [RingState::Soaking, RingState::Pending]);
    world.advance(Duration::from_mins(4));
    world.pass(&active, &[]).await;
    // The controller is gone for an hour: what it watched counts, and nothing else.
    world.advance(Duration::from_mins(30));
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    world.advance(Duration::from_secs(359));
    world.pass(&active, &[]).await;
    assert_eq!(world.rings(run).await[0], RingState::Soaking);
    world.advance(Duration::from_secs(1));
    world.pass(&active, &[]).await;
    assert_eq!(world.rings(run).await, [RingState::AwaitingApproval, RingState::Pending]);
    let why = active.open.read().rollout().blocked(agent(2).node, world.context().storage.clock.moment());
    assert_eq!(why[0].to_string(), "waits for ring canary, which is awaiting approval");
    assert!(world.say(&active, run, Steer::Resume).await.is_err(), "nothing is paused");
    assert_eq!(
        world.say(&active, run, Steer::Promote).await.unwrap(),
        "ring canary is done; the next one begins"
    );
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    assert_eq!(world.rings(run).await, [RingState::Done, RingState::Open]);
    assert_eq!(
        (world.state(run, 2).await, world.state(run, 3).await),
        (JobState::Offered, JobState::Offered)
    );
}

#[tokio::test]
async fn a_failure_in_the_canary_starts_nothing_until_an_operator_excuses_it() {
    let mut world = World::new().await;
    let run = world.rollout(&[1, 2]).await;
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    world.end(run, 1, Outcome::RolledBack).await;
    world.pass(&active, &[1]).await;
    assert_eq!(world.rings(run).await, [RingState::Halted, RingState::Pending]);
    let shown = run_views::brief(&world.context().storage, &world.context().memory, run).await.unwrap();
    assert_eq!(shown.item.state, RunState::Paused);
    assert_eq!(shown.rings[0].because, "1 of 1 nodes failed, 0 may");
    // Whoever reads it sees the same.
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    assert_eq!(world.state(run, 2).await, JobState::Queued);
    let done = world.say(&active, run, Steer::Resume).await.unwrap();
    assert_eq!(done, "ring canary goes on with what has failed so far");
    assert_eq!(world.say(&active, run, Steer::Pause).await.unwrap(), "nothing new starts; what runs goes on");
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    let why = active.open.read().rollout().blocked(agent(2).node, world.context().storage.clock.moment());
    assert_eq!(why[0].to_string(), "rollout is paused: by ada: because");
    world.say(&active, run, Steer::Resume).await.unwrap();
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    assert_eq!(world.rings(run).await, [RingState::Soaking, RingState::Pending]);
}

#[tokio::test]
async fn a_run_of_the_store_before_rings_is_one_ring() {
    let mut world = World::new().await;
    let run = world.run(1, &[1]).await;
    let text = String::from_utf8(crate::repo::codec::encode(&run_record(run, world.now)).unwrap()).unwrap();
    assert!(!text.contains("rollout") && !text.contains("paused"), "plain runs are stored as before: {text}");
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    world.end(run, 1, Outcome::Succeeded).await;
    assert!(world.pass(&active, &[1]).await);
}
