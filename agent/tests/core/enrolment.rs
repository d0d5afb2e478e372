//! Redeeming a join token: the good way, the wrong controller, the lost answer, lying replies.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use fleet_agent::core::enrol::{EnrolError, Enrolled, redeem};
use fleet_certs::csr::{PrivateKey, RequestedKey};
use fleet_certs::token::{Token, TokenKind};
use fleet_proto::{convert, pb};
use fleet_types::digest::Digest;
use fleet_types::id::NodeId;
use fleet_types::seal::SigningKey;
use tempfile::TempDir;
use tonic::Status;
use uuid::Uuid;

use crate::agent::config;
use crate::controller::Controller;
use crate::fleet::Fleet;

pub fn reply(fleet: &Fleet, node: NodeId, request: &pb::EnrolRequest) -> pb::EnrolReply {
    let key = RequestedKey::from_request(&request.csr).unwrap();
    pb::EnrolReply {
        fleet_id: fleet.id.to_string(),
        node_id: node.to_string(),
        node_name: "fw-1".to_owned(),
        certificate_chain: fleet.issue_agent(node, &key).chain.iter().map(|der| der.to_vec()).collect(),
        root_keys: convert::to_json(&fleet.roots),
        trust_bundle: convert::to_json(&fleet.bundle()),
        labels: [("site".to_owned(), "fra1".to_owned())].into(),
    }
}

async fn try_redeem(
    controller: &Controller,
    token: &Token,
    key: &PrivateKey,
) -> Result<Enrolled, EnrolError> {
    let folder = TempDir::new().unwrap();
    let config = config(&folder, controller.address, &["timers.document=5s"]);
    let report_key = SigningKey::generate().unwrap().0.public();
    let address = config.enrol.as_deref().unwrap();
    redeem(address, Fleet::server_name(), token, key, &report_key, &config.timers).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_brings_an_identity_that_fits_the_key() {
    let fleet = Arc::new(Fleet::new());
    let node = NodeId::from_uuid(Uuid::new_v4());
    let theirs = Arc::clone(&fleet);
    let controller =
        Controller::answering(fleet.enrolment_server(), move |request| Ok(reply(&theirs, node, &request)))
            .await;
    let key = PrivateKey::generate().unwrap();
    let enrolled = try_redeem(&controller, &fleet.token(), &key).await.unwrap();
    assert_eq!((enrolled.record.node, enrolled.record.fleet), (node, fleet.id));
    assert_eq!(enrolled.record.labels.get("site"), Some("fra1"));
    assert_eq!(enrolled.identity.key_pem, key.to_pem());
    assert_eq!(enrolled.identity.controller_authorities, [fleet.controllers.certificate().clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_the_token_does_not_name_gets_no_byte() {
    let (fleet, other) = (Fleet::new(), Fleet::new());
    let controller =
        Controller::answering(fleet.enrolment_server(), |_| panic!("the request was sent to a stranger"))
            .await;
    let key = PrivateKey::generate().unwrap();
    let error = try_redeem(&controller, &other.token(), &key).await.unwrap_err();
    assert!(matches!(error, EnrolError::WrongController(_)), "{error}");
    // The handshake itself failed: there was never a connection to send over.
    assert_eq!(controller.handshakes.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_answer_the_same_token_and_key_are_sent_again() {
    let fleet = Arc::new(Fleet::new());
    let node = NodeId::from_uuid(Uuid::new_v4());
    let seen: Arc<Mutex<Vec<(String, Digest)>>> = Arc::default();
    let (theirs, noted) = (Arc::clone(&fleet), Arc::clone(&seen));
    let controller = Controller::answering(fleet.enrolment_server(), move |request| {
        let key = RequestedKey::from_request(&request.csr).unwrap().digest();
        let mut noted = noted.lock().unwrap();
        noted.push((request.token_id.clone(), key));
        if noted.len() == 1 {
            Err(Status::unavailable("restarting"))
        } else {
            Ok(reply(&theirs, node, &request))
        }
    })
    .await;
    let folder = TempDir::new().unwrap();
    let slots = fleet_certs::slots::IdentityDir::open(folder.path()).unwrap();
    let token = fleet.token();
    let lost = try_redeem(&controller, &token, &slots.pending_key().unwrap()).await.unwrap_err();
    assert!(matches!(lost, EnrolError::Lost(_)) && lost.to_string().contains("same command again"), "{lost}");
    // As a new process would: the key comes from the disk.
    let enrolled = try_redeem(&controller, &token, &slots.pending_key().unwrap()).await.unwrap();
    slots.store(&enrolled.identity).unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!((seen.len(), &seen[0]), (2, &seen[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_does_not_fit_is_refused_by_reason() {
    type Change = fn(&mut pb::EnrolReply, &Fleet);
    let changes: [(&str, Change); 7] = [
        ("root keys", |reply, _| {
            let root = SigningKey::generate().unwrap().0;
            let roots = fleet_types::trust::RootKeys { keys: vec![root.public()], threshold: 1 };
            reply.root_keys = convert::to_json(&roots);
        }),
        ("trust bundle", |reply, _| reply.trust_bundle = convert::to_json(&Fleet::new().bundle())),
        ("another node's name", |reply, _| reply.node_id = Uuid::new_v4().to_string()),
        ("another key's certificate", |reply, fleet| {
            let stranger = RequestedKey::of(&PrivateKey::generate().unwrap()).unwrap();
            let node = reply.node_id.parse().unwrap();
            reply.certificate_chain =
                fleet.issue_agent(node, &stranger).chain.iter().map(|der| der.to_vec()).collect();
        }),
        ("no certificate", |reply, _| reply.certificate_chain.clear()),
        ("a hostile name", |reply, _| reply.node_name = "-V; rm".to_owned()),
        ("a hostile label", |reply, _| drop(reply.labels.insert("site".to_owned(), "$(x)".to_owned()))),
    ];
    for (what, change) in changes {
        let fleet = Arc::new(Fleet::new());
        let node = NodeId::from_uuid(Uuid::new_v4());
        let theirs = Arc::clone(&fleet);
        let controller = Controller::answering(fleet.enrolment_server(), move |request| {
            let mut reply = reply(&theirs, node, &request);
            change(&mut reply, &theirs);
            Ok(reply)
        })
        .await;
        let key = PrivateKey::generate().unwrap();
        let token =
            Token::generate(TokenKind::Node, vec![fleet.controllers.pin()], fleet.roots.pin()).unwrap();
        let result = try_redeem(&controller, &token, &key).await;
        assert!(result.is_err(), "{what} is accepted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_as_one() {
    let fleet = Fleet::new();
    let controller =
        Controller::answering(fleet.enrolment_server(), |_| Err(Status::permission_denied("token was used")))
            .await;
    let key = PrivateKey::generate().unwrap();
    let error = try_redeem(&controller, &fleet.token(), &key).await.unwrap_err();
    assert!(matches!(&error, EnrolError::Refused(why) if why == "token was used"), "{error}");
}
