//! Holds, releases and removals, and what gives rise to a hold at a connect.

use fleet_types::digest::Digest;
use fleet_types::facts::NodeFacts;
use fleet_types::id::{Attempt, LinkEpoch, RunId, Stage};
use fleet_types::job::{JobState, Outcome};
use fleet_types::run::RunState;
use fleet_types::view::Presence;

use super::*;
use crate::rebuild;
use crate::repo;
use crate::repo::codec::Mark;
use crate::repo::jobs::{self, InboxRecord, JobRecord};
use crate::repo::nodes;
use crate::repo::runs::RunRecord;
use crate::runner::deliver;
use crate::service::caller::Agent;
use crate::service::inventory::{HelloFacts, check_active, connect};
use crate::service::runs;
use crate::testing::{TestContext, enrolled, job_record, leaves, operator, run_record};

fn hello(journal_sequence: u64, start: &str) -> HelloFacts {
    HelloFacts {
        agent_version: "0.1.0".to_owned(),
        actions: vec![],
        policy_mode: "enforce".to_owned(),
        journal_sequence,
        safe_mode: String::new(),
        start: Digest::of(start.as_bytes()),
        facts: NodeFacts::default(),
    }
}

/// An open run with one job in this state.
async fn job_in(context: &Context, agent: &Agent, number: u64, state: JobState) -> RunId {
    let run = RunId::from_number(number);
    let authority = fleet_types::authority::Authority::Request(Digest::of(b"x"));
    let record =
        RunRecord { authority, state: RunState::Running, ..run_record(run, context.storage.clock.now()) };
    let job = JobRecord { state, ..job_record(run, agent) };
    let entry =
        InboxRecord { stage: Stage::FIRST, attempt: Attempt(1), authority, node_index: 0, node_path: vec![] };
    let mut batch = context.storage.audited.batch();
    batch = batch.put_record(repo::runs::key(run).unwrap(), &record).unwrap();
    batch = batch.put_record(repo::runs::open(run).unwrap(), &Mark {}).unwrap();
    batch = batch.put_record(jobs::inbox_entry(agent.node, run).unwrap(), &entry).unwrap();
    batch = batch.put_record(jobs::key(run, agent.node).unwrap(), &job).unwrap();
    context.storage.audited.commit(batch, vec![]).await.unwrap();
    run
}

async fn job_state(context: &Context, agent: &Agent, run: RunId) -> JobState {
    let key = jobs::key(run, agent.node).unwrap();
    context.storage.repo.get::<JobRecord>(&key).await.unwrap().unwrap().record.state
}

async fn has_inbox(context: &Context, agent: &Agent, run: RunId) -> bool {
    let key = jobs::inbox_entry(agent.node, run).unwrap();
    context.storage.repo.get::<InboxRecord>(&key).await.unwrap().is_some()
}

fn order<'a>(caller: &'a Operator, name: &'a str, reason: &'a str) -> Order<'a> {
    Order { caller, name, reason, idempotency_key: "" }
}

/// The disk image is younger than the newest connect and older than what the node has told of since.
#[tokio::test]
async fn an_old_image_is_held_told_once_and_taken_as_it_is_when_it_is_released() {
    let test = TestContext::new().await;
    let context = &test.context;
    let agent = enrolled(context, 1).await;
    assert_eq!(connect(context, &agent, &hello(10, "a")).await.unwrap(), LinkEpoch(1));
    context.memory.node_cache.raise_sequence(agent.node, 14);
    let offered = job_in(context, &agent, 1, JobState::Offered).await;
    let queued = job_in(context, &agent, 2, JobState::Queued).await;
    // The link ends, and the controller is started anew: it knows only what was stored.
    inventory::disconnected(&context.storage, &context.memory, agent.node, false).await;
    context.memory.node_cache.update(agent.node, |known| known.journal_sequence = None);

    for _ in 0..3 {
        let error = connect(context, &agent, &hello(12, "b")).await.unwrap_err();
        assert_eq!((error.kind, error.detail.code.as_str()), (Kind::Blocked, HELD));
        assert!(error.detail.message.contains("ends at 12, and was at 14"), "{error}");
        assert!(error.detail.retry_after_ms >= 60_000, "nobody is to dial every second");
    }
    let told = leaves(context, "node.hold").await;
    assert_eq!(told.len(), 1, "told once: {told:?}");
    assert!(matches!(
        job_state(context, &agent, offered).await,
        JobState::Ended { outcome: Outcome::Lost, .. }
    ));
    let JobState::Ended { outcome: Outcome::Cancelled, reason, .. } =
        job_state(context, &agent, queued).await
    else {
        panic!("what it never had does not stay open")
    };
    assert!(reason.contains("restored from an image"), "{reason}");
    assert!(has_inbox(context, &agent, offered).await, "a machine that has it is told to stop");
    assert_eq!(leaves(context, "job.end").await.len(), 2);

    let caller = operator();
    let status = views::status(context).await.unwrap();
    assert_eq!(status.sites[0].held, 1);
    assert!(status.attention[0].message.starts_with("held: its journal ends at 12"), "{status:?}");
    assert_eq!(
        release(&context.storage, &context.memory, &order(&caller, "fw-1", " "))
            .await
            .unwrap_err()
            .detail
            .code,
        "invalid-argument",
        "a reason is wanted"
    );
    release(&context.storage, &context.memory, &order(&caller, "fw-1", "looked at")).await.unwrap();
    assert_eq!(connect(context, &agent, &hello(12, "b")).await.unwrap(), LinkEpoch(2));
    assert_eq!(context.memory.node_cache.get(agent.node).unwrap().record.chain, 1);
    let released = leaves(context, "node.release").await;
    assert!(released[0].reason.contains("its reports begin chain 1"), "{released:?}");
    let again =
        release(&context.storage, &context.memory, &order(&caller, "fw-1", "twice")).await.unwrap_err();
    assert_eq!(again.detail.code, "node-not-held");
}

#[tokio::test]
async fn a_damaged_journal_is_not_believed_and_is_shown() {
    let test = TestContext::new().await;
    let context = &test.context;
    let agent = enrolled(context, 1).await;
    connect(context, &agent, &hello(10, "a")).await.unwrap();
    let damaged = HelloFacts { safe_mode: "journal: damaged at byte 1400".to_owned(), ..hello(81_193, "b") };
    connect(context, &agent, &damaged).await.unwrap();
    let status = views::status(context).await.unwrap();
    assert!(status.attention[0].message.contains("damaged at byte 1400"), "{status:?}");
    connect(context, &agent, &hello(11, "c")).await.expect("the repaired journal is no old image");
    assert!(views::status(context).await.unwrap().attention.is_empty());
}

#[tokio::test]
async fn two_machines_that_take_turns_are_held() {
    let test = TestContext::new().await;
    let context = &test.context;
    let agent = enrolled(context, 1).await;
    for start in ["a", "b", "a"] {
        connect(context, &agent, &hello(1, start)).await.unwrap();
    }
    let error = connect(context, &agent, &hello(1, "b")).await.unwrap_err();
    assert!(error.detail.message.contains("two machines"), "{error}");
    release(&context.storage, &context.memory, &order(&operator(), "fw-1", "the copy is off")).await.unwrap();
    connect(context, &agent, &hello(1, "b")).await.expect("the other one is gone");
}

#[tokio::test]
async fn an_operators_hold_keeps_the_link_and_what_has_begun_and_lets_nothing_begin() {
    let test = TestContext::new().await;
    let context = &test.context;
    let agent = enrolled(context, 1).await;
    connect(context, &agent, &hello(1, "a")).await.unwrap();
    let begun = job_in(context, &agent, 1, JobState::Offered).await;
    let queued = job_in(context, &agent, 2, JobState::Queued).await;
    let caller = operator();
    hold(context, &order(&caller, "fw-1", "disk is swapped")).await.unwrap();
    assert_eq!(job_state(context, &agent, begun).await, JobState::Offered);
    assert!(has_inbox(context, &agent, begun).await);
    let JobState::Ended { outcome: Outcome::Cancelled, reason, .. } =
        job_state(context, &agent, queued).await
    else {
        panic!("it must not wait")
    };
    assert_eq!(reason, "the node is held by ada: disk is swapped");
    check_active(&context.memory, &context.settings, agent.node).expect("its agent stays");
    assert_eq!(
        rebuild::presence(&context.memory, agent.node),
        fleet_rollout::Presence::Held,
        "there, and offered nothing"
    );
    // It never answered the offer, and must not begin it now; what it says it has goes on.
    let stop = deliver::stop_reason(&context.storage, &context.memory, agent.node, begun).await.unwrap();
    assert_eq!(stop.as_deref(), Some("the node is held by ada: disk is swapped"));
    let now = context.storage.clock.moment().mono;
    context.memory.sessions.set_live(agent.node, begun, Attempt(1), JobState::Accepted, None, now);
    assert_eq!(
        deliver::stop_reason(&context.storage, &context.memory, agent.node, begun).await.unwrap(),
        None
    );
    assert_eq!(context.memory.node_cache.get(agent.node).unwrap().presence, Presence::Online);
    let targets = runs::resolve(&context.storage, &context.memory, "", &[]).unwrap();
    assert!(targets.nodes.is_empty());
    assert_eq!(targets.skipped[0].to_string(), "fw-1 (held by ada: disk is swapped)");
    let twice = hold(context, &order(&caller, "fw-1", "again")).await.unwrap_err();
    assert_eq!(twice.detail.code, HELD);
    release(&context.storage, &context.memory, &order(&caller, "fw-1", "done")).await.unwrap();
    assert_eq!(rebuild::presence(&context.memory, agent.node), fleet_rollout::Presence::Online);
    assert_eq!(
        context.memory.node_cache.get(agent.node).unwrap().record.chain,
        0,
        "nobody doubted the machine"
    );
}

#[tokio::test]
async fn a_removed_node_is_shut_out_its_jobs_end_and_its_name_is_free() {
    let test = TestContext::new().await;
    let context = &test.context;
    let agent = enrolled(context, 1).await;
    connect(context, &agent, &hello(1, "a")).await.unwrap();
    let run = job_in(context, &agent, 1, JobState::Offered).await;
    remove(context, &order(&operator(), "fw-1", "scrapped")).await.unwrap();
    assert_eq!(
        check_active(&context.memory, &context.settings, agent.node).unwrap_err().detail.code,
        "node-unknown"
    );
    assert!(context.identities.denied.subscribe().borrow().nodes.contains(&agent.node));
    assert!(matches!(job_state(context, &agent, run).await, JobState::Ended { outcome: Outcome::Lost, .. }));
    assert_eq!(
        crate::service::run_views::node_in(&context.storage, &context.memory, run, "fw-1").await.unwrap(),
        agent.node,
        "what it did is found by the name that it had"
    );
    assert!(context.storage.repo.get::<NodePointer>(&nodes::name("fw-1").unwrap()).await.unwrap().is_none());
    assert!(!has_inbox(context, &agent, run).await, "nobody comes for it");
    let unknown = remove(context, &order(&operator(), "fw-1", "again")).await.unwrap_err();
    assert_eq!(unknown.kind, Kind::NotFound);
}

/// The commit was made, and the store failed before the node's jobs had ended.
#[tokio::test]
async fn what_is_asked_once_more_finishes_what_was_left() {
    let test = TestContext::new().await;
    let context = &test.context;
    let is_lost = async |agent: &Agent, run| {
        matches!(job_state(context, agent, run).await, JobState::Ended { outcome: Outcome::Lost, .. })
    };
    let shut = enrolled(context, 1).await;
    for number in [1, 2] {
        let left = job_in(context, &shut, number, JobState::Offered).await;
        shut_out(context, shut.actor(), shut.node, "a reason").await.unwrap();
        assert!(is_lost(&shut, left).await);
    }
    assert_eq!(leaves(context, "node.hold").await.len(), 1);
    let (caller, kept) = (operator(), enrolled(context, 2).await);
    let keyed = |name| Order { idempotency_key: "a key", ..order(&caller, name, "a reason") };
    for number in [3, 4] {
        let left = job_in(context, &kept, number, JobState::Queued).await;
        hold(context, &keyed("fw-2")).await.unwrap();
        let state = job_state(context, &kept, left).await;
        assert!(matches!(state, JobState::Ended { outcome: Outcome::Cancelled, .. }), "{state:?}");
    }
    let gone = enrolled(context, 3).await;
    let keyed = Order { idempotency_key: "another", ..order(&caller, "fw-3", "a reason") };
    for number in [5, 6] {
        let left = job_in(context, &gone, number, JobState::Offered).await;
        remove(context, &keyed).await.unwrap();
        assert!(is_lost(&gone, left).await && !has_inbox(context, &gone, left).await);
    }
}

/// A controller that was killed between the hold and the end of the jobs.
#[tokio::test]
async fn what_a_hold_means_for_jobs_is_taken_up_again_at_a_start() {
    let test = TestContext::new().await;
    let context = &test.context;
    let agent = enrolled(context, 1).await;
    shut_out(context, agent.actor(), agent.node, "a reason").await.unwrap();
    let run = job_in(context, &agent, 1, JobState::Offered).await;
    take_up_again(context).await.unwrap();
    assert!(matches!(job_state(context, &agent, run).await, JobState::Ended { outcome: Outcome::Lost, .. }));
}
