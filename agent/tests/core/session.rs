//! Stories of the session: opening, faults of the controller, silence, coming back, stopping.

use fleet_agent::core::identity::OwnIdentity;
use fleet_agent::core::identity_in_use::IdentityInUse;
use fleet_proto::pb;
use fleet_proto::pb::{agent_message, controller_message, core_message, executor_message};
use fleet_types::digest::Digest;
use fleet_types::id::RunId;

use crate::agent::{Agent, hello};
use crate::controller::Controller;
use crate::fleet::Fleet;
use crate::proxy::Proxy;
use crate::wait::within;

pub fn run(n: u64) -> String {
    RunId::from_number(n).to_string()
}

fn assign(bytes: usize) -> controller_message::Body {
    controller_message::Body::Assign(pb::Assign { assignment: vec![b'a'; bytes], proof: vec![] })
}

fn update(n: u64, journal_sequence: u64) -> pb::JobUpdate {
    pb::JobUpdate { run: run(n), attempt: 1, journal_sequence, ..Default::default() }
}

/// A link that is up: controller, session after reconcile, agent.
pub async fn linked(epoch: u64) -> (Controller, crate::controller::Session, Agent, Fleet) {
    let fleet = Fleet::new();
    let mut controller = Controller::start(fleet.agent_server()).await;
    let mut agent = Agent::start(&fleet, controller.address).await;
    let mut session = controller.welcomed(epoch).await;
    agent.executor.link_up(vec![]).await;
    assert!(matches!(session.next().await, agent_message::Body::Reconcile(page) if page.last));
    (controller, session, agent, fleet)
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_welcome_reconcile_then_work_reaches_the_executor_unread() {
    let fleet = Fleet::new();
    let mut controller = Controller::start(fleet.agent_server()).await;
    let mut agent = Agent::start(&fleet, controller.address).await;
    let mut session = controller.session().await;
    let said = session.hello().await;
    assert!(!said.start_id.is_empty(), "the core says which start of it speaks");
    assert_eq!(pb::Hello { start_id: String::new(), ..said }, hello());
    session.welcome(7).await;
    let up = agent.executor.link_up(vec![update(1, 5)]).await;
    assert_eq!((up.link_epoch, up.generation), (7, 1));
    let agent_message::Body::Reconcile(page) = session.next().await else { panic!("no list") };
    assert_eq!((page.jobs, page.last), (vec![update(1, 5)], true));
    // A duplicate is the executor's to answer: both reach it.
    for _ in 0..2 {
        session.send(assign(100)).await;
        assert!(
            matches!(agent.executor.next().await, core_message::Body::Assign(a) if a.assignment.len() == 100)
        );
    }
    let cancel = pb::Cancel { run: run(1), attempt: 1, reason: "enough".to_owned() };
    session.send(controller_message::Body::Cancel(cancel.clone())).await;
    assert_eq!(agent.executor.next().await, core_message::Body::Cancel(cancel));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_another_epoch_ends_the_link_and_is_not_passed_on() {
    let (mut controller, mut session, mut agent, _fleet) = linked(7).await;
    session.send_raw(6, 2, assign(10)).await;
    session.ended().await;
    assert!(matches!(agent.executor.next().await, core_message::Body::LinkDown(_)));
    // It comes back by itself, and Hello names the epoch that the executor took.
    let mut again = controller.session().await;
    assert_eq!(again.hello().await.epoch_seen, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_the_numbers_ends_the_link() {
    let (_controller, mut session, mut agent, _fleet) = linked(7).await;
    session.send_raw(7, 5, assign(10)).await;
    session.ended().await;
    assert!(matches!(agent.executor.next().await, core_message::Body::LinkDown(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversize_message_is_refused_before_it_is_looked_at() {
    let (mut controller, mut session, mut agent, _fleet) = linked(7).await;
    session.send(assign(fleet_proto::MAX_CONTROL_BYTES + 1)).await;
    session.ended().await;
    assert!(matches!(agent.executor.next().await, core_message::Body::LinkDown(_)));
    controller.session().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_the_executor_refuses_gets_no_more() {
    let fleet = Fleet::new();
    let mut controller = Controller::start(fleet.agent_server()).await;
    let mut agent = Agent::start(&fleet, controller.address).await;
    let mut session = controller.welcomed(3).await;
    assert!(matches!(agent.executor.next().await, core_message::Body::LinkUp(_)));
    let refused = pb::LinkRefused { reason: "epoch 9 was seen before".to_owned() };
    agent.executor.send(executor_message::Body::LinkRefused(refused)).await;
    session.ended().await;
    // The refused epoch is not remembered as seen.
    assert_eq!(controller.session().await.hello().await.epoch_seen, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_in_mid_run_ends_in_a_new_list() {
    let (mut controller, session, mut agent, _fleet) = linked(7).await;
    agent.executor.send(executor_message::Body::Job(update(1, 4))).await;
    agent.executor.hello.journal_sequence = 4;
    drop(session);
    assert!(matches!(agent.executor.next().await, core_message::Body::LinkDown(_)));
    // Progress while no link is up is overtaken by the list.
    agent.executor.send(executor_message::Body::Job(update(1, 5))).await;
    let mut session = controller.session().await;
    assert!(session.hello().await.journal_sequence >= 4);
    session.welcome(8).await;
    agent.executor.link_up(vec![update(1, 6)]).await;
    let agent_message::Body::Reconcile(page) = session.next().await else { panic!("no list") };
    assert_eq!(page.jobs, [update(1, 6)]);
    let decision = pb::ReconcileDecision { run: run(1), attempt: 1, decision: 1 };
    let reply = pb::ReconcileReply { decisions: vec![decision] };
    session.send(controller_message::Body::Reconcile(reply.clone())).await;
    assert_eq!(agent.executor.next().await, core_message::Body::Reconcile(reply));
    agent.executor.send(executor_message::Body::Job(update(1, 7))).await;
    let agent_message::Body::Job(job) = session.next().await else { panic!("no progress") };
    assert_eq!(job, update(1, 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_stuck_is_noticed_by_its_missing_answers() {
    let (mut controller, mut session, _agent, _fleet) = linked(7).await;
    let mut beats = 0;
    // Pings are answered all the time: only the application is silent.
    within("the agent gives up", async {
        while let Some(message) = session.from_agent.recv().await {
            beats += u32::from(matches!(message.body, Some(agent_message::Body::Heartbeat(_))));
        }
    })
    .await;
    assert!((2..=3).contains(&beats), "{beats} heartbeats before the link was dropped");
    controller.session().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_half_open_link_is_noticed_by_pings() {
    let fleet = Fleet::new();
    let mut controller = Controller::start(fleet.agent_server()).await;
    let proxy = Proxy::start(controller.address).await;
    let mut agent = Agent::start(&fleet, proxy.address).await;
    let mut session = controller.session().await;
    session.hello().await;
    // Heartbeats so rare that only pings can notice.
    session.welcome_with(7, 60_000).await;
    agent.executor.link_up(vec![]).await;
    session.next().await;
    proxy.silence(1);
    assert!(matches!(agent.executor.next().await, core_message::Body::LinkDown(_)));
    controller.welcomed(8).await;
    assert_eq!(agent.executor.link_up(vec![]).await.link_epoch, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_is_honoured() {
    let (mut controller, mut session, mut agent, _fleet) = linked(7).await;
    let said = tokio::time::Instant::now();
    let goodbye = pb::Goodbye { reason: "restart".to_owned(), retry_after_ms: 700 };
    session.send(controller_message::Body::Goodbye(goodbye)).await;
    session.ended().await;
    assert!(matches!(agent.executor.next().await, core_message::Body::LinkDown(_)));
    controller.session().await;
    assert!(said.elapsed().as_millis() >= 700, "came back after {:?}", said.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_fetched_once_and_again_after_a_failure() {
    let (controller, _session, mut agent, _fleet) = linked(7).await;
    let digest = Digest::of(b"procedure").as_bytes().to_vec();
    let need = || executor_message::Body::NeedDocument(pb::NeedDocument { digest: digest.clone() });
    for _ in 0..3 {
        agent.executor.send(need()).await;
    }
    let failed = || controller.fetches.load(std::sync::atomic::Ordering::SeqCst) >= 2;
    within("the document is asked for again", async {
        while !failed() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    controller.documents.lock().unwrap().insert(digest.clone(), b"sealed".to_vec());
    let core_message::Body::Document(arrived) = agent.executor.next().await else { panic!("no document") };
    assert_eq!(
        (arrived.digest, arrived.envelope, arrived.error),
        (digest, b"sealed".to_vec(), String::new())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_flushes_what_the_executor_still_says() {
    let (_controller, mut session, mut agent, _fleet) = linked(7).await;
    agent.stop.cancel();
    // No new work from now on; the step that runs ends and its report goes out.
    let report = pb::SealedReport { run: run(1), attempt: 1, payload: b"{}".to_vec(), signature: vec![1] };
    agent.executor.send(executor_message::Body::Report(report.clone())).await;
    assert_eq!(session.next().await, agent_message::Body::Report(report));
    let ack = pb::ReportAck { run: run(1), attempt: 1, digest: Digest::of(b"{}").as_bytes().to_vec() };
    session.send(controller_message::Body::ReportAck(ack.clone())).await;
    assert_eq!(agent.executor.next().await, core_message::Body::ReportAck(ack));
    agent.executor.close();
    session.left().await;
    agent.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_goes_away_ends_the_core() {
    let (_controller, _session, mut agent, _fleet) = linked(7).await;
    agent.executor.close();
    assert!(agent.ended().await.unwrap_err().to_string().contains("executor is gone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_a_link_that_has_ended_is_not_taken_for_the_next_ones() {
    let fleet = Fleet::new();
    let mut controller = Controller::start(fleet.agent_server()).await;
    let mut agent = Agent::start(&fleet, controller.address).await;
    drop(controller.welcomed(7).await);
    let mut session = controller.welcomed(8).await;
    // The executor is slow: it answers the first link only now, then hears of its end and of the second.
    agent.executor.link_up(vec![update(1, 1)]).await;
    assert_eq!(agent.executor.link_up(vec![update(1, 2)]).await.link_epoch, 8);
    let agent_message::Body::Reconcile(page) = session.next().await else { panic!("no list") };
    assert_eq!(page.jobs, [update(1, 2)]);
}

/// Where there is no enrolment service to come back through.
#[test]
fn a_certificate_that_has_ended_is_told_before_anything_is_sent() {
    let (fleet, folder) = (Fleet::new(), tempfile::tempdir().unwrap());
    let config = crate::agent::config(&folder, ([127, 0, 0, 1], 1).into(), &[]);
    let issued = fleet_agent::clock::now().minus(std::time::Duration::from_hours(48));
    fleet.store_identity_of(&config.identity_directory, issued);
    let identity = OwnIdentity::load(&config.identity_directory).unwrap();
    let refused = IdentityInUse::new(&identity, Fleet::server_name(), None).unwrap_err();
    let said = fleet_agent::error::chain(&refused);
    assert!(said.contains("the certificate of this node ended"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_tried_in_order_and_strangers_are_passed_over() {
    let (fleet, other) = (Fleet::new(), Fleet::new());
    let stranger = Controller::start(other.agent_server()).await;
    let mut controller = Controller::start(fleet.agent_server()).await;
    let endpoints = format!(
        "controller.endpoints=[{{ address = \"127.0.0.1:1\" }}, {{ address = \"{}\" }}, {{ address = \"{}\" }}]",
        stranger.address, controller.address
    );
    let _agent = Agent::start_with(&fleet, controller.address, &[&endpoints]).await;
    controller.session().await;
    assert_eq!(stranger.handshakes.load(std::sync::atomic::Ordering::SeqCst), 0);
}
