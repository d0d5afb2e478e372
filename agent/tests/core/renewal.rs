//! Stories of renewal: the new certificate over the live link, deaths and lost answers in between, answers that
//! are of no use, and a new certificate that nobody accepts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleet_agent::clock;
use fleet_agent::core::identity::OwnIdentity;
use fleet_certs::csr::RequestedKey;
use fleet_certs::issue::Issued;
use fleet_certs::revoke::{Denied, DenyList};
use fleet_certs::{Role, rejoin};
use fleet_proto::pb;
use fleet_proto::pb::agent_message;
use fleet_types::id::NodeId;
use tempfile::TempDir;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use uuid::Uuid;

use crate::agent::{Agent, config};
use crate::controller::Controller;
use crate::fleet::Fleet;
use crate::wait::within;

/// A life in which a try that failed is made again after tens of milliseconds.
const LIFE: Duration = Duration::from_mins(1);
/// Past the moment of renewal of such a life.
const AGE: Duration = Duration::from_secs(46);
const DAY: Duration = Duration::from_hours(24);

/// A node whose certificate is due for renewal, and its controller.
struct Due {
    fleet: Fleet,
    node: NodeId,
    folder: Arc<TempDir>,
    controller: Controller,
}

impl Due {
    async fn denying(denied: Arc<DenyList>) -> Self {
        let fleet = Fleet::new();
        let controller = Controller::start(fleet.agent_server_denying(denied)).await;
        let folder = Arc::new(TempDir::new().unwrap());
        let directory = config(&folder, controller.address, &[]).identity_directory;
        let node = fleet.store_identity_for(&directory, clock::now().minus(AGE), LIFE);
        Self { fleet, node, folder, controller }
    }

    async fn new() -> Self {
        Self::denying(DenyList::new(Denied::default())).await
    }

    fn address(&self) -> SocketAddr {
        self.controller.address
    }

    fn directory(&self) -> PathBuf {
        config(&self.folder, self.address(), &[]).identity_directory
    }

    fn identity(&self) -> OwnIdentity {
        OwnIdentity::load(&self.directory()).unwrap()
    }

    async fn start(&self) -> Agent {
        Agent::start_in(Arc::clone(&self.folder), self.address(), &[]).await
    }

    /// The next link, up to the node's list; beats until its end.
    async fn linked(&mut self, agent: &mut Agent, epoch: u64) -> AbortOnDropHandle<bool> {
        let mut session = self.controller.welcomed(epoch).await;
        agent.executor.link_up(vec![]).await;
        assert!(matches!(session.next().await, agent_message::Body::Reconcile(page) if page.last));
        session.beating()
    }

    fn issue(&self, csr: &[u8]) -> Issued {
        self.fleet.issue_agent_at(self.node, &key(csr), clock::now(), DAY)
    }
}

/// The agent leaves a link in good order.
async fn left(session: AbortOnDropHandle<bool>) {
    assert!(within("the agent leaves", session).await.unwrap(), "the link broke instead of being closed");
}

fn key(csr: &[u8]) -> RequestedKey {
    RequestedKey::from_request(csr).unwrap()
}

fn reply(issued: &Issued) -> pb::RenewReply {
    pb::RenewReply { certificate_chain: issued.chain.iter().map(|der| der.to_vec()).collect() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_over_the_live_link_and_used_by_the_next() {
    let mut due = Due::new().await;
    let before = due.identity();
    let mut agent = due.start().await;
    let session = due.linked(&mut agent, 7).await;
    let call = due.controller.renewal().await;
    let issued = due.issue(&call.csr);
    call.answer.send(Ok(reply(&issued))).unwrap();
    // It leaves in good order and comes back by itself, with the one before to go back to.
    left(session).await;
    let _session = due.linked(&mut agent, 8).await;
    let now = due.identity();
    assert_eq!(now.present.certificate.serial, issued.serial);
    assert_ne!(now.present.stored.key_pem, before.present.stored.key_pem, "the key is new");
    assert_eq!(now.before.unwrap().certificate.serial, before.present.certificate.serial);
    assert_eq!(now.present.stored.controller_authorities, before.present.stored.controller_authorities);
    assert!(!due.directory().join("pending.pem").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_before_its_answer_asks_again_with_the_same_key() {
    let mut due = Due::new().await;
    let first = due.identity().present.certificate.serial;
    let mut agent = due.start().await;
    let session = due.linked(&mut agent, 7).await;
    // The answer is lost with the agent; the first certificate is the one that the next start comes with.
    let call = due.controller.renewal().await;
    drop(agent);
    drop((session, call.answer));
    assert_eq!(due.identity().present.certificate.serial, first);
    let mut agent = due.start().await;
    let session = due.linked(&mut agent, 8).await;
    let again = due.controller.renewal().await;
    assert_eq!(key(&again.csr).digest(), key(&call.csr).digest());
    let issued = due.issue(&again.csr);
    again.answer.send(Ok(reply(&issued))).unwrap();
    left(session).await;
    // Dead again, before the first connection with it: the next start uses it.
    drop(agent);
    let mut agent = due.start().await;
    let _session = due.linked(&mut agent, 9).await;
    assert_eq!(due.identity().present.certificate.serial, issued.serial);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_answers_of_no_use_change_nothing_and_it_asks_again() {
    let mut due = Due::new().await;
    let first = due.identity().present.certificate;
    let mut agent = due.start().await;
    let session = due.linked(&mut agent, 7).await;
    let call = due.controller.renewal().await;
    let asked = key(&call.csr);
    let of_another = due.fleet.issue_agent(NodeId::from_uuid(Uuid::new_v4()), &asked);
    let other_key = due
        .fleet
        .issue_agent(due.node, &key(&fleet_certs::csr::PrivateKey::generate().unwrap().request().unwrap()));
    let no_longer = due.fleet.issue_agent_at(due.node, &asked, first.not_after.minus(LIFE), LIFE);
    let early = due.fleet.issue_agent_at(due.node, &asked, clock::now().plus(DAY), DAY);
    let stranger = Fleet::new();
    let of_another_fleet = stranger.issue_agent(due.node, &asked);
    let mut answers = vec![
        Err(Status::unimplemented("an earlier release")),
        Err(Status::unavailable("the store is busy")),
        Ok(pb::RenewReply::default()),
        Ok(pb::RenewReply { certificate_chain: vec![b"no certificate".to_vec()] }),
    ];
    answers.extend(
        [of_another, other_key, no_longer, early, of_another_fleet].iter().map(|issued| Ok(reply(issued))),
    );
    let mut call = call;
    for answer in answers {
        call.answer.send(answer).unwrap();
        call = due.controller.renewal().await;
        assert_eq!(key(&call.csr).digest(), asked.digest(), "the same request again");
        assert_eq!(due.identity().present.certificate.serial, first.serial);
    }
    // All over one link.
    let issued = due.issue(&call.csr);
    call.answer.send(Ok(reply(&issued))).unwrap();
    left(session).await;
    let _session = due.linked(&mut agent, 8).await;
    assert_eq!(due.identity().present.certificate.serial, issued.serial);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_that_nobody_accepts_is_given_up_for_the_one_before() {
    let denied = DenyList::new(Denied::default());
    let mut due = Due::denying(denied.clone()).await;
    let first = due.identity().present.certificate.serial;
    let mut agent = due.start().await;
    let session = due.linked(&mut agent, 7).await;
    let call = due.controller.renewal().await;
    let refused = due.issue(&call.csr);
    denied
        .replace(Denied { version: 1, serials: [refused.serial.clone()].into(), ..Denied::default() })
        .unwrap();
    call.answer.send(Ok(reply(&refused))).unwrap();
    left(session).await;
    let session = due.linked(&mut agent, 8).await;
    assert_eq!(due.identity().present.certificate.serial, first, "it is in its place again");
    // And renewed at once, with another key.
    let again = due.controller.renewal().await;
    assert_ne!(key(&again.csr).digest(), key(&call.csr).digest());
    let issued = due.issue(&again.csr);
    again.answer.send(Ok(reply(&issued))).unwrap();
    left(session).await;
    let _session = due.linked(&mut agent, 9).await;
    assert_eq!(due.identity().present.certificate.serial, issued.serial);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_new_certificate_that_nobody_accepts_uses_the_one_before() {
    let denied = DenyList::new(Denied::default());
    let mut due = Due::denying(denied.clone()).await;
    let first = due.identity().present.certificate.serial;
    let mut agent = due.start().await;
    let session = due.linked(&mut agent, 7).await;
    let call = due.controller.renewal().await;
    let refused = due.issue(&call.csr);
    denied
        .replace(Denied { version: 1, serials: [refused.serial.clone()].into(), ..Denied::default() })
        .unwrap();
    call.answer.send(Ok(reply(&refused))).unwrap();
    left(session).await;
    // Dead between the pointer's flip and the first connection.
    drop(agent);
    assert_eq!(due.identity().present.certificate.serial, refused.serial);
    let mut agent = due.start().await;
    let _session = due.linked(&mut agent, 8).await;
    assert_eq!(due.identity().present.certificate.serial, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_certificate_has_ended_comes_back_with_proof_by_its_key() {
    let mut due = Due::new().await;
    due.node = due.fleet.store_identity_for(&due.directory(), clock::now().minus(DAY), LIFE);
    let last = due.identity().present;
    assert!(!last.lasts(clock::now()));
    let mut enrolment = Controller::start(due.fleet.enrolment_server()).await;
    let at = format!("controller.enrol={}", enrolment.address);
    let mut agent = Agent::start_in(Arc::clone(&due.folder), due.address(), &[&at]).await;
    // The first answer is lost; the second try is for the same key.
    let first = enrolment.rejoin().await;
    drop(first.answer);
    let call = enrolment.rejoin().await;
    let request = call.request;
    assert_eq!(key(&request.csr).digest(), key(&first.request.csr).digest());
    assert_eq!(request.certificate, last.stored.chain[0].as_ref());
    let agents = [due.fleet.agents.certificate().clone()];
    let subject = rejoin::subject(due.fleet.id, &request.certificate, &request.csr);
    let proof = (subject, request.signature.as_slice());
    let issuers = [(Role::Agent, &agents[..])];
    let proved = rejoin::verify(due.fleet.id, &issuers, &last.stored.chain[0], proof).unwrap();
    assert_eq!(proved.identity.node(), Some(due.node));
    let issued = due.issue(&request.csr);
    call.answer.send(Ok(reply(&issued))).unwrap();
    let _session = due.linked(&mut agent, 7).await;
    assert_eq!(due.identity().present.certificate.serial, issued.serial);
}
