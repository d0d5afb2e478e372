//! What a node keeps over replacement, a wrong clock, changed policy files and halves that hang.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use fleet_agent::clock;
use fleet_agent::core::identity::OwnIdentity;
use fleet_agent::core::link::LinkError;
use fleet_agent::core::start::{Core, CoreError};
use fleet_executor::socket::{self, ExecutorPort};
use fleet_proto::pb;
use fleet_proto::pb::{core_message, executor_message};
use fleet_types::id::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::agent::{Agent, config, hello};
use crate::controller::{Controller, Session};
use crate::enrolment::reply;
use crate::fleet::Fleet;
use crate::node::{ENFORCE, Node, code, enrolled_with, linked, terminate};
use crate::wait::within;

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// The first session whose Hello says so: one that is dialled at once may still say what was so before.
async fn said(
    controller: &mut Controller,
    fleet: &Fleet,
    first_epoch: u64,
    is_so: impl Fn(&pb::Hello) -> bool,
) -> Session {
    for epoch in first_epoch..first_epoch + 10 {
        let (hello, _, session) = linked(controller, fleet, epoch).await;
        if is_so(&hello) {
            return session;
        }
    }
    panic!("ten links, and none says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_node_starts_clean_and_not_under_a_running_agent() {
    let fleet = Arc::new(Fleet::new());
    let theirs = Arc::clone(&fleet);
    let mut agents = Controller::start(fleet.agent_server()).await;
    let enrol = Controller::answering(fleet.enrolment_server(), move |request| {
        Ok(reply(&theirs, NodeId::from_uuid(Uuid::new_v4()), &request))
    })
    .await;
    let node = Node::new(&agents.address.to_string(), &enrol.address.to_string(), "");
    assert_eq!(code(&node.enrol(&fleet.token().expose(), &[]).await).0, 0);
    let old = node.id();
    let child = node.start();
    let (first, _, session) = linked(&mut agents, &fleet, 67).await;
    let again = fleet.token().expose();
    let (exit, said) = code(&node.enrol(&again, &["--replace"]).await);
    assert_eq!(exit, 10, "{said}");
    assert!(said.contains("stop it first"), "{said}");
    let (exit, ()) = tokio::join!(terminate(child), session.left());
    assert_eq!(exit, Some(0));
    let key = fs::read(node.state().join("report.key")).unwrap();

    let (exit, said) = code(&node.enrol(&again, &["--replace"]).await);
    assert_eq!(exit, 0, "{said}");
    assert_ne!(node.id(), old);
    assert_ne!(fs::read(node.state().join("report.key")).unwrap(), key);
    assert_eq!(fs::read(node.state().join("replaced/report.key")).unwrap(), key);
    // The epochs of the new node begin far below those of the old one.
    let child = node.start();
    let (hello, jobs, session) = linked(&mut agents, &fleet, 1).await;
    assert_eq!((hello.epoch_seen, hello.safe_mode.as_str(), jobs.len()), (0, "", 0));
    assert!(hello.journal_sequence <= first.journal_sequence);
    let (exit, ()) = tokio::join!(terminate(child), session.left());
    assert_eq!(exit, Some(0));
    // The same command again is harmless.
    assert_eq!(code(&node.enrol(&again, &["--replace"]).await).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_replacement_starts_no_agent() {
    let (node, _controller, _fleet, _token) = enrolled_with("").await;
    fs::write(node.state().join("replacing"), "").unwrap();
    let (exit, said) = code(&node.call(&["run"]).await);
    assert_eq!(exit, 10, "{said}");
    assert!(said.contains("same command again"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_file_counts_while_the_agent_runs_and_a_hangup_ends_nothing() {
    let (node, mut controller, fleet, _token) = enrolled_with(ENFORCE).await;
    let child = node.start();
    let (hello, _, session) = linked(&mut controller, &fleet, 5).await;
    assert_eq!((hello.policy_mode.as_str(), hello.safe_mode.as_str()), ("enforce", ""));
    signal(&child, Signal::HUP);
    let text = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), text.replace("\"enforce\"", "\"locked\"")).unwrap();
    drop(session);
    let session = said(&mut controller, &fleet, 6, |hello| hello.policy_mode == "locked").await;
    // A file that others may write is not the owner's word any more.
    fs::set_permissions(node.config(), Permissions::from_mode(0o666)).unwrap();
    drop(session);
    let is_refused = |hello: &pb::Hello| hello.safe_mode.contains("may be written by others");
    let session = said(&mut controller, &fleet, 20, is_refused).await;
    let status = node.call(&["status"]).await;
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("NOT USED") && status.contains("SAFE MODE"), "{status}");
    let (exit, ()) = tokio::join!(terminate(child), session.left());
    assert_eq!(exit, Some(0));
    let (exit, said) = code(&node.call(&["run"]).await);
    assert_eq!(exit, 2, "{said}");
    assert!(said.contains("chmod go-w"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_lost_is_told_and_accepted_by_a_person() {
    let (node, mut controller, fleet, _token) = enrolled_with(ENFORCE).await;
    let child = node.start();
    let (_, _, session) = linked(&mut controller, &fleet, 5).await;
    let (exit, ()) = tokio::join!(terminate(child), session.left());
    assert_eq!(exit, Some(0));
    fs::remove_file(node.state().join("journal")).unwrap();
    let status = String::from_utf8(node.call(&["status"]).await.stdout).unwrap();
    assert!(status.contains("journal is missing"), "{status}");
    let child = node.start();
    let (hello, _, session) = linked(&mut controller, &fleet, 6).await;
    assert!(hello.safe_mode.contains("journal is missing"), "{}", hello.safe_mode);
    assert_eq!(code(&node.call(&["accept-damage"]).await).0, 75, "not while it runs");
    let (exit, ()) = tokio::join!(terminate(child), session.left());
    assert_eq!(exit, Some(0));
    let accepted = node.call(&["accept-damage"]).await;
    assert!(String::from_utf8(accepted.stdout).unwrap().contains("accepted: journal is missing"));
    let child = node.start();
    let (hello, _, session) = linked(&mut controller, &fleet, 7).await;
    assert_eq!(hello.safe_mode, "");
    let (exit, ()) = tokio::join!(terminate(child), session.left());
    assert_eq!(exit, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_before_the_certificate_is_waited_for() {
    let fleet = Fleet::new();
    let controller = Controller::start(fleet.agent_server()).await;
    let folder = TempDir::new().unwrap();
    let config = config(&folder, controller.address, &["timers.halves=20ms"]);
    fleet.store_identity_of(&config.identity_directory, clock::now().plus(Duration::from_hours(48)));
    let identity = OwnIdentity::load(&config.identity_directory).unwrap();
    let core = Core::new(&config, &identity).unwrap();
    let (theirs, ours) = socket::pair().unwrap();
    let mut port = ExecutorPort::bind(ours).unwrap();
    let running = AbortOnDropHandle::new(tokio::spawn(core.run(theirs, CancellationToken::new())));
    let ready = executor_message::Body::Ready(pb::Ready { hello: Some(hello()) });
    port.sender.send(&pb::ExecutorMessage { body: Some(ready) }).await.unwrap();
    // It lives through a dozen tries and speaks to nobody.
    for _ in 0..10 {
        let message = within("the core says that it is alive", port.receiver.receive()).await.unwrap();
        assert!(matches!(message.unwrap().body, Some(core_message::Body::Alive(_))));
        port.sender
            .send(&pb::ExecutorMessage { body: Some(executor_message::Body::Alive(pb::Alive {})) })
            .await
            .unwrap();
    }
    assert!(!running.is_finished());
    assert_eq!(controller.handshakes.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_hangs_ends_the_core() {
    let fleet = Fleet::new();
    let controller = Controller::start(fleet.agent_server()).await;
    // It has said that it is ready and says nothing any more.
    let agent = Agent::start_with(&fleet, controller.address, &["timers.halves=20ms"]).await;
    let ended = agent.ended().await;
    assert!(matches!(ended, Err(CoreError::Link(LinkError::ExecutorStuck))), "{ended:?}");
}
