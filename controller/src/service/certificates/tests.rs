//! Renewals of nodes over the service's own calls: what is given, what is refused, and what races with it.

use std::sync::Arc;

use fleet_certs::csr::PrivateKey;
use fleet_certs::token::{Token, TokenKind};
use fleet_types::digest::Digest;
use fleet_types::facts::NodeFacts;
use fleet_types::id::{LinkEpoch, Name};
use fleet_types::label::Labels;
use fleet_types::seal::SigningKey;

use super::*;
use crate::clock::Clock;
use crate::repo::nodes::NodeState;
use crate::service::enrolment::{self, EnrolmentRequest, JoinOrder};
use crate::service::holds::Order;
use crate::service::inventory::HelloFacts;
use crate::testing::{StagedStore, TestContext, leaves, operator};

/// A controller with a clock that the test moves, and one node that has joined.
struct Joined {
    test: TestContext,
    node: NodeId,
    name: Name,
    first: PeerIdentity,
}

fn begin() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn hours(count: u64) -> Timestamp {
    begin().plus(Duration::from_hours(count))
}

fn peer(chain: &[Vec<u8>]) -> PeerIdentity {
    verify::describe(&CertificateDer::from(chain[0].as_slice())).unwrap()
}

fn request(key: &PrivateKey) -> Vec<u8> {
    key.request().unwrap()
}

fn fresh() -> Vec<u8> {
    request(&PrivateKey::generate().unwrap())
}

impl Joined {
    async fn over(store: Arc<StagedStore>) -> Self {
        let test = TestContext::at(store, Clock::manual(begin())).await;
        let context = &test.context;
        let order = JoinOrder {
            name: "fw-a".parse().unwrap(),
            labels: Labels::default(),
            replace_labels: false,
            lifetime: Duration::ZERO,
        };
        let view = enrolment::create_join_token(context, &operator(), order, "").await.unwrap();
        let token = Token::parse(TokenKind::Node, &view.token).unwrap();
        let redemption = EnrolmentRequest {
            token_id: &token.id.to_string(),
            secret: token.secret.expose(),
            csr: &fresh(),
            second_key: SigningKey::generate().unwrap().0.public(),
            address: "127.0.0.1",
        };
        let enrolled = enrolment::enrol_node(context, &redemption).await.unwrap();
        let first = peer(&enrolled.chain);
        let (node, name) = (enrolled.node.id, enrolled.node.name.clone());
        let joined = Self { test, node, name, first };
        joined.connect(&joined.first).await.unwrap();
        joined
    }

    async fn new() -> Self {
        Self::over(Arc::default()).await
    }

    fn context(&self) -> &Context {
        &self.test.context
    }

    fn at(&self, hour: u64) {
        self.context().storage.clock.set(hours(hour));
    }

    /// The node's agent with this certificate.
    fn agent(&self, peer: &PeerIdentity) -> Agent {
        let (node, name, certificate) = (self.node, self.name.clone(), Arc::new(peer.clone()));
        Agent { node, name, certificate, address: "127.0.0.1".to_owned() }
    }

    async fn renew(&self, peer: &PeerIdentity, csr: &[u8]) -> Result<Vec<Vec<u8>>> {
        renew_node(self.context(), &self.agent(peer), csr, "node.renew").await
    }

    async fn connect(&self, peer: &PeerIdentity) -> Result<LinkEpoch> {
        check(&self.context().memory, self.node, peer)?;
        let hello = HelloFacts {
            agent_version: "0.1.0".to_owned(),
            actions: vec![],
            policy_mode: "enforce".to_owned(),
            journal_sequence: 0,
            safe_mode: String::new(),
            start: Digest::of(b"a start"),
            facts: NodeFacts::default(),
        };
        inventory::connect(self.context(), &self.agent(peer), &hello).await
    }

    async fn record(&self) -> NodeRecord {
        let stored = holds::load(&self.context().storage, self.node).await.unwrap().record;
        let known = self.context().memory.node_cache.record(self.node).unwrap();
        assert_eq!(*known, stored, "memory says what the store says");
        stored
    }
}

fn code<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().detail.code
}

#[tokio::test]
async fn both_certificates_are_good_until_the_new_one_has_come() {
    let joined = Joined::new().await;
    joined.at(48);
    let chain = joined.renew(&joined.first, &fresh()).await.unwrap();
    let second = peer(&chain);
    assert_eq!((second.identity, chain.len()), (joined.first.identity, 2));
    assert_eq!(second.not_after, hours(48 + 72));
    // An agent that died before it stored the new one comes with the first, as often as it likes.
    joined.connect(&joined.first).await.unwrap();
    joined.connect(&joined.first).await.unwrap();
    joined.connect(&second).await.unwrap();
    assert_eq!(code(joined.connect(&joined.first).await), RETIRED);
    let record = joined.record().await;
    assert_eq!(record.state, NodeState::Active, "a retired one that connects locks nobody out");
    assert_eq!(record.certificates.current.unwrap().serial, second.serial);
    joined.connect(&second).await.unwrap();
    let told = leaves(joined.context(), "node.renew").await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].subject_digest, Some(second.fingerprint));
    assert_eq!(told[0].actor.certificate, Some(joined.first.fingerprint));
}

#[tokio::test]
async fn the_same_request_again_gets_the_same_certificate_and_a_used_key_none() {
    let joined = Joined::new().await;
    joined.at(48);
    let csr = fresh();
    let chain = joined.renew(&joined.first, &csr).await.unwrap();
    assert_eq!(joined.renew(&joined.first, &csr).await.unwrap(), chain);
    joined.at(60);
    assert_eq!(joined.renew(&joined.first, &csr).await.unwrap(), chain, "hours later as well");
    assert_eq!(leaves(joined.context(), "node.renew").await.len(), 1);
    let second = peer(&chain);
    joined.connect(&second).await.unwrap();
    joined.at(100);
    let refused = joined.renew(&second, &csr).await.unwrap_err();
    assert!(refused.detail.message.contains("renew with a new key"), "{refused}");
    assert_eq!(code(joined.renew(&second, b"no request").await), "invalid-argument");
}

#[tokio::test]
async fn a_lost_key_gets_another_certificate_and_the_one_that_never_came_is_retired() {
    let joined = Joined::new().await;
    joined.at(48);
    let lost = peer(&joined.renew(&joined.first, &fresh()).await.unwrap());
    let refused = joined.renew(&joined.first, &fresh()).await.unwrap_err().detail;
    assert_eq!((refused.code.as_str(), refused.retry_after_ms), ("renewed-just-now", 90 * 60_000));
    joined.at(50);
    let second = peer(&joined.renew(&joined.first, &fresh()).await.unwrap());
    assert_eq!(code(joined.connect(&lost).await), RETIRED);
    joined.connect(&joined.first).await.unwrap();
    joined.connect(&second).await.unwrap();
}

#[tokio::test]
async fn a_retired_certificate_that_asks_to_be_renewed_locks_the_node() {
    let joined = Joined::new().await;
    joined.at(48);
    let second = peer(&joined.renew(&joined.first, &fresh()).await.unwrap());
    joined.connect(&second).await.unwrap();
    joined.at(60);
    assert_eq!(code(joined.renew(&joined.first, &fresh()).await), holds::HELD);
    assert!(joined.record().await.hold().is_some_and(|hold| hold.reason.contains("was replaced")));
    assert_eq!(leaves(joined.context(), "node.hold").await.len(), 1);
    // Nor is the other one renewed before somebody has looked.
    assert_eq!(code(joined.renew(&second, &fresh()).await), holds::HELD);
    let caller = operator();
    let order = Order { caller: &caller, name: "fw-a", reason: "the disk was cloned", idempotency_key: "" };
    holds::release(&joined.context().storage, &joined.context().memory, &order).await.unwrap();
    joined.renew(&second, &fresh()).await.unwrap();
}

#[tokio::test]
async fn a_node_that_an_operator_holds_is_renewed_and_one_that_was_removed_is_not() {
    let joined = Joined::new().await;
    let caller = operator();
    let order = Order { caller: &caller, name: "fw-a", reason: "look at it", idempotency_key: "" };
    holds::hold(joined.context(), &order).await.unwrap();
    joined.at(48);
    let second = peer(&joined.renew(&joined.first, &fresh()).await.unwrap());
    holds::remove(joined.context(), &order).await.unwrap();
    assert_eq!(code(joined.renew(&joined.first, &fresh()).await), "not-found");
    // Both open nothing for as long as the later one lasts.
    joined.at(72 + 24);
    holds::take_up_again(joined.context()).await.unwrap();
    assert!(joined.context().identities.denied.check(&second).is_err());
}

#[tokio::test]
async fn two_at_once_with_one_key_get_one_certificate() {
    let store = Arc::new(StagedStore::default());
    let joined = Joined::over(store.clone()).await;
    joined.at(48);
    let csr = fresh();
    store.meet(2);
    let pair = async { tokio::join!(joined.renew(&joined.first, &csr), joined.renew(&joined.first, &csr)) };
    let (one, other) = pair.await;
    assert_eq!(one.unwrap(), other.unwrap());
    assert!(joined.record().await.certificates.next.unwrap().key.is_some());
}

#[tokio::test]
async fn a_renewal_whose_answer_is_lost_behind_its_commit_is_found_again() {
    let store = Arc::new(StagedStore::default());
    let joined = Joined::over(store.clone()).await;
    joined.at(48);
    let csr = fresh();
    let held = store.hold_next();
    let (context, agent) = (Arc::clone(&joined.test.context), joined.agent(&joined.first));
    let asked = csr.clone();
    let dying = tokio::spawn(async move { renew_node(&context, &agent, &asked, "node.renew").await });
    held.written.await.unwrap();
    dying.abort();
    assert!(dying.await.unwrap_err().is_cancelled());
    let second = peer(&joined.renew(&joined.first, &csr).await.unwrap());
    assert_eq!(leaves(joined.context(), "node.renew").await.len(), 1);
    assert_eq!(joined.record().await.certificates.next.unwrap().serial, second.serial);
    joined.connect(&second).await.unwrap();
}

#[tokio::test]
async fn a_renewal_is_given_from_the_reserve_when_space_is_short() {
    let store = Arc::new(StagedStore::default());
    let joined = Joined::over(store.clone()).await;
    joined.at(48);
    store.run_short();
    let second = peer(&joined.renew(&joined.first, &fresh()).await.unwrap());
    joined.connect(&second).await.unwrap();
}

#[tokio::test]
async fn a_clock_that_was_wrong_for_an_hour_delays_nobody() {
    let joined = Joined::new().await;
    // The controller's clock is five days ahead, and is then set right.
    joined.at(48 + 120);
    let csr = fresh();
    let early = peer(&joined.renew(&joined.first, &csr).await.unwrap());
    assert!(early.not_before > hours(100));
    joined.at(48);
    let good = peer(&joined.renew(&joined.first, &csr).await.unwrap());
    assert_eq!(good.not_after, hours(48 + 72), "the same key gets one that is good now");
    joined.connect(&good).await.unwrap();
    assert_eq!(code(joined.connect(&early).await), RETIRED);
}

/// The store was put back from a backup that was made before the renewal.
#[tokio::test]
async fn a_newer_certificate_than_a_restored_store_knows_is_taken() {
    let joined = Joined::new().await;
    let before = joined.record().await;
    joined.at(48);
    let second = peer(&joined.renew(&joined.first, &fresh()).await.unwrap());
    joined.connect(&second).await.unwrap();
    let stored = holds::load(&joined.context().storage, joined.node).await.unwrap();
    let restored = NodeRecord { revision: stored.record.revision + 1, ..before };
    let batch = nodes::save(joined.context().storage.audited.batch(), stored.write_id, &restored).unwrap();
    joined.context().storage.audited.commit(batch, vec![]).await.unwrap();
    joined.context().memory.node_cache.advance(restored);
    joined.connect(&second).await.unwrap();
    assert_eq!(code(joined.connect(&joined.first).await), RETIRED);
}

/// An operator with a certificate of the fleet's authority.
async fn operator_of(context: &Context) -> (Operator, PeerIdentity) {
    let requested = RequestedKey::of(&PrivateKey::generate().unwrap()).unwrap();
    let base = OperatorRecord::clone(&operator().record);
    let identities = &context.identities;
    let issued = issue::operator(
        &identities.keyring.operator_ca,
        identities.fleet.fleet,
        base.id,
        &requested,
        context.storage.clock.now(),
        context.settings.operator_certificate,
    )
    .unwrap();
    let name = "eve".parse().unwrap();
    let record = OperatorRecord {
        name,
        certificates: Certificates::of_enrolment(&issued, requested.digest()),
        ..base
    };
    let batch = operators::create(context.storage.audited.batch(), None, &record).unwrap();
    context.storage.audited.commit(batch, vec![]).await.unwrap();
    identities.operators.put(record.clone());
    let first = verify::describe(&issued.chain[0]).unwrap();
    (caller(&record, &first), first)
}

fn caller(record: &OperatorRecord, peer: &PeerIdentity) -> Operator {
    let (record, certificate) = (Arc::new(record.clone()), Arc::new(peer.clone()));
    Operator { record, certificate, address: "127.0.0.1".to_owned() }
}

#[tokio::test]
async fn an_operators_certificate_is_renewed_and_the_one_before_has_a_minute_of_grace() {
    let test = TestContext::at(Arc::new(StagedStore::default()), Clock::manual(begin())).await;
    let context = &test.context;
    let (ada, first) = operator_of(context).await;
    let clock = &context.storage.clock;
    let record = || context.identities.operators.get(ada.record.id).unwrap();
    let is_let_in = |peer: &PeerIdentity| check_operator(&record(), peer, clock.now()).is_ok();
    clock.set(hours(8));
    let csr = fresh();
    let chain = renew_operator(context, &ada, &csr, "operator.renew").await.unwrap();
    assert_eq!(renew_operator(context, &ada, &csr, "operator.renew").await.unwrap(), chain);
    let second = peer(&chain);
    assert_eq!((second.identity, second.not_after), (first.identity, hours(8 + 12)));
    assert!(is_let_in(&first) && is_let_in(&second));
    assert!(is_new_of_operator(&record(), &second) && !is_new_of_operator(&record(), &first));
    seen_of_operator(context, ada.record.id, &second).await;
    assert!(!is_new_of_operator(&record(), &second));
    // Whoever had read the first one a moment before is let in, and no later.
    clock.set(hours(8).plus(Duration::from_secs(59)));
    assert!(is_let_in(&first) && is_let_in(&second));
    clock.set(hours(8).plus(Duration::from_mins(1)));
    assert!(!is_let_in(&first) && is_let_in(&second));
    // A copy of it renews nothing, grace or not.
    let refused = renew_operator(context, &caller(&record(), &first), &fresh(), "operator.renew").await;
    assert_eq!(code(refused), RETIRED);
    let told = leaves(context, "operator.renew").await;
    assert_eq!((told.len(), told[0].object.as_str()), (1, "operator/eve"));
    // As the store has it, after a restart.
    let stored = context.storage.repo.get::<OperatorRecord>(&operators::key(ada.record.id).unwrap()).await;
    assert_eq!(stored.unwrap().unwrap().record, *record());
}
