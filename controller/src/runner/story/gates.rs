//! A ring that is judged, driven pass by pass: whom it asks, what an answer, silence, a restart and an end do.

use fleet_rollout::RingProgress;
use fleet_types::authority::Authority;
use fleet_types::digest::Digest;
use fleet_types::id::Stage;
use fleet_types::run::{RingState, Verdict};

use super::rings::ring;
use super::*;
use crate::repo::jobs::{GatesAnswer, GatesRecord};
use crate::repo::reports::StoredReport;
use crate::repo::rollouts::{RingRecord, RolloutRecord};
use crate::service::rollouts::Steer;
use crate::testing::leaves;

impl World {
    /// Node 1 is the canary, which does not soak and is judged for at most twenty minutes.
    async fn judged(&mut self, nodes: &[u128]) -> (RunId, Active) {
        let run = self.run_of(1, nodes, 9, None).await;
        let mut canary = RingRecord { is_manual: false, ..ring(0, "canary", 0) };
        canary.note(&RingProgress::begin(0));
        let rollout = RolloutRecord {
            policy: "careful".to_owned(),
            policy_digest: Digest::of(b"policy"),
            max_failed_nodes: Some(0),
            max_failed_percent: None,
            goes_on: false,
            max_per_site: None,
            gates: vec!["health".to_owned()],
            judging_ms: Some(1_200_000),
            rings: vec![canary, ring(1, "rest", 0)],
        };
        self.follow(run, nodes, rollout).await;
        let active = self.load(run).await;
        self.pass(&active, &[]).await;
        self.end(run, 1, Outcome::Succeeded).await;
        self.pass(&active, &[1]).await;
        assert_eq!(self.rings(run).await, [RingState::Judging, RingState::Pending]);
        (run, active)
    }

    async fn job(&self, run: RunId, n: u128) -> crate::repo::reader::Stored<JobRecord> {
        let key = jobs::key(run, agent(n).node).unwrap();
        self.context().storage.repo.get::<JobRecord>(&key).await.unwrap().unwrap()
    }

    async fn inbox(&self, run: RunId, n: u128) -> Option<InboxRecord> {
        let entry = jobs::inbox_entry(agent(n).node, run).unwrap();
        Some(self.context().storage.repo.get::<InboxRecord>(&entry).await.unwrap()?.record)
    }

    /// A node answers, as the service that takes reports writes it.
    async fn answer(&self, run: RunId, n: u128, verdict: Verdict, because: &str) {
        let job = self.job(run, n).await;
        let report = StoredReport { chain: 0, sequence: 1, digest: Digest::of(because.as_bytes()) };
        let answer = GatesAnswer { verdict, because: because.to_owned(), report };
        let gates = GatesRecord { answer: Some(answer), ..job.record.gates.clone().unwrap() };
        let answered = JobRecord { gates: Some(gates), ..job.record };
        let audited = &self.context().storage.audited;
        let batch = jobs::answer(audited.batch(), job.write_id, &answered).unwrap();
        audited.commit(batch, vec![]).await.unwrap();
    }

    async fn stop_reason(&self, run: RunId, n: u128) -> Option<String> {
        let context = self.context();
        deliver::stop_reason(&context.storage, &context.memory, agent(n).node, run).await.unwrap()
    }
}

#[tokio::test]
async fn a_ring_is_asked_once_over_a_restart_and_the_next_begins_when_all_hold() {
    let mut world = World::new().await;
    let (run, _) = world.judged(&[1, 2]).await;
    let asked = world.inbox(run, 1).await.unwrap();
    let request = Digest::of(b"request");
    assert_eq!(
        (asked.stage, asked.attempt, asked.authority),
        (Stage(1), Attempt(2), Authority::Gates(request))
    );
    let job = world.job(run, 1).await.record;
    assert_eq!((job.stage, job.attempt), (Stage::FIRST, Attempt(1)), "its own end stays what it was");
    assert_eq!(world.stop_reason(run, 1).await, None);
    // The controller dies: it asks nobody again, and the time of the judging counts from then on.
    world.advance(Duration::from_mins(19));
    let active = world.load(run).await;
    world.advance(Duration::from_mins(19));
    world.pass(&active, &[]).await;
    assert_eq!(world.inbox(run, 1).await, Some(asked));
    assert_eq!(leaves(world.context(), "rollout.gates").await.len(), 1);
    world.answer(run, 1, Verdict::Pass, "").await;
    world.pass(&active, &[1]).await;
    assert_eq!(world.rings(run).await, [RingState::Done, RingState::Open]);
    assert_eq!((world.inbox(run, 1).await, world.state(run, 2).await), (None, JobState::Offered));
    let told = leaves(world.context(), "rollout.ring").await;
    assert!(told.iter().any(|leaf| leaf.reason == "canary: gates pass"), "{told:?}");
    let shown = run_views::brief(&world.context().storage, &world.context().memory, run).await.unwrap();
    let gates: Vec<_> =
        shown.rings.iter().map(|ring| ring.gates.as_ref().map(|gates| gates.verdict)).collect();
    assert_eq!(gates, [Some(Some(Verdict::Pass)), None], "nothing waits for the gates of the last ring");
}

#[tokio::test]
async fn a_gate_that_does_not_hold_halts_and_is_asked_anew_when_an_operator_goes_on() {
    let mut world = World::new().await;
    let (run, active) = world.judged(&[1, 2]).await;
    world.answer(run, 1, Verdict::Fail, "gate health: check disk: 97 % are used").await;
    world.pass(&active, &[1]).await;
    assert_eq!(world.rings(run).await, [RingState::Halted, RingState::Pending]);
    let shown = run_views::brief(&world.context().storage, &world.context().memory, run).await.unwrap();
    assert_eq!(shown.rings[0].because, "fw-1: gate health: check disk: 97 % are used");
    assert_eq!(shown.rings[0].gates.as_ref().unwrap().verdict, Some(Verdict::Fail));
    assert_eq!((shown.item.state, world.state(run, 2).await), (RunState::Paused, JobState::Queued));
    world.say(&active, run, Steer::Resume).await.unwrap();
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    let asked = world.inbox(run, 1).await.unwrap();
    assert_eq!((asked.stage, asked.attempt), (Stage(2), Attempt(3)), "what it said before is no answer now");
    assert_eq!(world.rings(run).await[0], RingState::Judging);
    world.answer(run, 1, Verdict::Pass, "").await;
    world.pass(&active, &[1]).await;
    assert_eq!(world.state(run, 2).await, JobState::Offered);
}

#[tokio::test]
async fn silence_is_inconclusive_and_an_answer_to_an_earlier_question_is_none_to_the_next() {
    let mut world = World::new().await;
    let (run, active) = world.judged(&[1, 2]).await;
    world.advance(Duration::from_secs(1_199));
    world.pass(&active, &[]).await;
    assert_eq!(world.rings(run).await[0], RingState::Judging);
    world.advance(Duration::from_secs(1));
    world.pass(&active, &[]).await;
    assert_eq!(world.rings(run).await[0], RingState::Halted);
    let shown = run_views::brief(&world.context().storage, &world.context().memory, run).await.unwrap();
    assert_eq!(shown.rings[0].because, "gates: no answer within 20 minutes from fw-1");
    world.say(&active, run, Steer::Resume).await.unwrap();
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    // It is busy with the first question: the second one is asked when it has answered that.
    assert_eq!(world.inbox(run, 1).await.unwrap().stage, Stage(1));
    world.answer(run, 1, Verdict::Pass, "").await;
    world.pass(&active, &[1]).await;
    assert_eq!(world.rings(run).await[0], RingState::Judging);
    assert_eq!(world.inbox(run, 1).await.unwrap().stage, Stage(2));
}

#[tokio::test]
async fn a_run_that_ends_while_it_is_judged_asks_the_node_to_stop() {
    let mut world = World::new().await;
    let (run, active) = world.judged(&[1, 2]).await;
    world.advance(Duration::from_hours(1));
    assert!(world.pass(&active, &[]).await, "its request is over, and with it the run");
    assert_eq!(world.outcome(run, 2).await, Some(Outcome::Expired));
    assert_eq!(world.stop_reason(run, 1).await.as_deref(), Some("the run has ended"));
    // The answer takes the question away, whatever it says.
    world.answer(run, 1, Verdict::Inconclusive, "cancelled").await;
    assert_eq!(world.inbox(run, 1).await, None);
}
