//! The binary itself, with the real executor below a private root, against the scripted controller.

use std::fs;
use std::sync::Arc;

use fleet_types::facts::NodeFacts;
use fleet_types::id::NodeId;
use tonic::Status;
use uuid::Uuid;

use crate::controller::Controller;
use crate::enrolment::reply;
use crate::fleet::Fleet;
use crate::node::{CALM_MS, Node, code, enrolled, linked, terminate};
use crate::wait::within;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_runs_and_stops() {
    let (node, mut controller, fleet, token) = enrolled().await;
    // The same command again is harmless even though nobody answers there any more.
    assert_eq!(code(&node.enrol(&token, &[]).await).0, 0);
    let (exit, said) = code(&node.enrol(&fleet.token().expose(), &[]).await);
    assert_eq!(exit, 10, "{said}");
    assert!(said.contains("--replace"), "{said}");

    let child = node.start();
    let (hello, _, session) = linked(&mut controller, &fleet, 5).await;
    assert_eq!((hello.policy_mode.as_str(), hello.epoch_seen), ("read_only", 0));
    assert!(hello.actions.iter().any(|action| action == "health.check"), "{:?}", hello.actions);
    let facts: NodeFacts = serde_json::from_slice(&hello.facts).unwrap();
    assert!(!facts.simulated.is_empty(), "a development root is said to be one");
    // A second agent on the same state is turned away before it opens a link.
    let (exit, said) = code(&node.call(&["run"]).await);
    assert_eq!(exit, 75, "{said}");
    assert!(said.contains("held by another executor"), "{said}");
    let (exit, ()) = tokio::join!(terminate(child), session.left());
    assert_eq!(exit, Some(0));

    let status = node.call(&["status", "--output", "json"]).await;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["name"], &status["jobs"]["open"]), (&"fw-1".into(), &0.into()));
    let journal = node.call(&["journal", "-o", "json"]).await;
    let journal: serde_json::Value = serde_json::from_slice(&journal.stdout).unwrap();
    assert_eq!(journal["jobs"], serde_json::json!([]));
    assert!(node.call(&["stop-units"]).await.status.success());

    fs::write(node.state().join("state.json"), "{}").unwrap();
    let (exit, said) = code(&node.call(&["run"]).await);
    assert_eq!(exit, 75, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_time_is_survived_and_the_fence_is_remembered() {
    let (node, mut controller, fleet, _token) = enrolled().await;
    for epoch in 5..8 {
        let mut child = node.start();
        let (hello, _, mut session) = linked(&mut controller, &fleet, epoch).await;
        assert_eq!(hello.epoch_seen, if epoch == 5 { 0 } else { epoch - 1 });
        within("the agent dies", child.kill()).await.unwrap();
        session.ended().await;
    }
    // A controller with an older epoch is refused by the executor and comes no further than Welcome.
    let child = node.start();
    let mut session = controller.session().await;
    session.hello().await;
    session.welcome_signed(3, fleet.dispatch(), CALM_MS).await;
    session.ended().await;
    assert_eq!(terminate(child).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_exit_codes_and_say_what_to_do() {
    // Port 1 of loopback: nobody listens there.
    let node = Node::new("127.0.0.1:1", "127.0.0.1:1", "");
    let (exit, said) = code(&node.call(&["run"]).await);
    assert_eq!(exit, 10, "{said}");
    assert!(said.contains("join with a token first"), "{said}");

    let (exit, said) = code(&node.enrol(&Fleet::new().token().expose(), &[]).await);
    assert_eq!(exit, 9, "{said}");
    assert!(said.contains("127.0.0.1:1 refused the connection"), "{said}");

    let (exit, said) = code(&node.enrol("ft1.nonsense", &[]).await);
    assert_eq!(exit, 2, "{said}");
    assert!(!said.contains("nonsense"), "a token is never repeated: {said}");

    fs::write(node.config(), "kind = \"agent\"\n[log]\nlevl = \"info\"\n").unwrap();
    let (exit, said) = code(&node.call(&["run"]).await);
    assert_eq!(exit, 2, "{said}");
    assert!(said.contains("agent.toml:3:1: unknown key \"log.levl\", did you mean \"log.level\"?"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_made_up_for_by_the_same_command() {
    let fleet = Arc::new(Fleet::new());
    let (node, theirs) = (NodeId::from_uuid(Uuid::new_v4()), Arc::clone(&fleet));
    let mut keys = Vec::new();
    let controller = Controller::answering(fleet.enrolment_server(), move |request| {
        // One key and one token for ever: another key would freeze the node's record.
        let csr = fleet_certs::csr::RequestedKey::from_request(&request.csr).unwrap().digest();
        keys.push((csr, request.report_key.clone()));
        assert!(keys.iter().all(|key| *key == keys[0]));
        if keys.len() < 3 {
            Err(Status::unavailable("restarting"))
        } else {
            Ok(reply(&theirs, node, &request))
        }
    })
    .await;
    let at = Node::new("127.0.0.1:1", &controller.address.to_string(), "");
    let token = fleet.token().expose();
    for expected in [9, 9, 0, 0] {
        let (exit, said) = code(&at.enrol(&token, &[]).await);
        assert_eq!(exit, expected, "{said}");
    }
}
