//! Coming back with a certificate that has ended, on the enrolment port (security-and-delivery §1.9, docs/adr/0035).
//!
//! Whoever comes proves it with the key of the last certificate, a person with their content key as well. From there on it
//! is a renewal: the same rules, the same one answer to one key. A certificate that was replaced locks its node here, too.

use std::sync::Arc;
use std::time::Duration;

use fleet_certs::rejoin::{self, RejoinError};
use fleet_certs::{CertificateDer, Identity, PeerIdentity, Role};
use fleet_types::seal::Kind as Sealed;
use fleet_types::trust::Authority;

use super::caller::{Agent, Operator};
use super::{certificates, inventory};
use crate::context::Context;
use crate::error::{ControllerError, Kind, Result};

/// How long after its end a certificate still brings its holder back (§1.9).
const LATEST: Duration = Duration::from_hours(90 * 24);

/// What a caller of the enrolment port hands in.
pub struct RejoinRequest<'a> {
    /// The last certificate, DER.
    pub certificate: &'a [u8],
    /// PKCS#10 request of a new key, DER.
    pub csr: &'a [u8],
    /// By the key of the last certificate.
    pub signature: &'a [u8],
    /// By a person's content key.
    pub content_signature: &'a [u8],
    /// Where it comes from.
    pub address: &'a str,
}

/// Whose the certificate was, as far as its key proves it.
pub struct Holder(Arc<PeerIdentity>);

impl Holder {
    /// Their id, to limit them by.
    pub fn id(&self) -> String {
        self.0.identity.uuid().to_string()
    }
}

fn refused(why: &str) -> ControllerError {
    ControllerError::new(Kind::Unauthenticated, "rejoin-refused", why).fix(
        "a node joins anew with a token (fleet-agent enrol --replace), a person signs in with a new invite",
    )
}

/// Checks the proof. Says why it is none only as far as strangers may know.
pub fn prove(context: &Context, asked: &RejoinRequest<'_>) -> Result<Holder> {
    let identities = &context.identities;
    let trust = identities.trust.get();
    let list = |authorities: &[Authority]| -> Vec<CertificateDer<'static>> {
        authorities.iter().map(|authority| CertificateDer::from(authority.certificate.clone())).collect()
    };
    let (agents, operators) = (list(&trust.0.agent_authorities), list(&trust.0.operator_authorities));
    let issuers = [(Role::Agent, &agents[..]), (Role::Operator, &operators[..])];
    let fleet = identities.fleet.fleet;
    let subject = rejoin::subject(fleet, asked.certificate, asked.csr);
    let certificate = CertificateDer::from(asked.certificate);
    match rejoin::verify(fleet, &issuers, &certificate, (subject, asked.signature)) {
        Ok(peer) => Ok(Holder(Arc::new(peer))),
        Err(RejoinError::Authorities(error)) => Err(ControllerError::internal(error)),
        Err(_) => Err(refused("no certificate of this fleet with a signature by its key")),
    }
}

/// Gives a holder who has proved it another certificate; leaf first, DER.
pub async fn give(context: &Context, holder: &Holder, asked: &RejoinRequest<'_>) -> Result<Vec<Vec<u8>>> {
    let peer = &holder.0;
    if let Err(revoked) = context.identities.denied.check(peer) {
        return Err(ControllerError::new(Kind::Refused, "revoked", revoked.to_string()));
    }
    if context.storage.clock.now() >= peer.not_after.plus(LATEST) {
        return Err(refused("the certificate ended more than 90 days ago"));
    }
    match peer.identity {
        Identity::Agent(_, node) => {
            let known = inventory::check_active(&context.memory, &context.settings, node)?;
            let (name, certificate) = (known.record.name.clone(), Arc::clone(peer));
            let agent = Agent { node, name, certificate, address: asked.address.to_owned() };
            certificates::renew_node(context, &agent, asked.csr, "node.rejoin").await
        }
        Identity::Operator(fleet, id) => {
            let record = context.identities.operators.get(id);
            let record = record.ok_or_else(|| refused("this controller does not know you"))?;
            let subject = rejoin::subject(fleet, asked.certificate, asked.csr);
            record
                .content_key
                .verify(Sealed::Rejoin, fleet, subject, asked.content_signature)
                .map_err(|_| refused("the request is not signed with your content key"))?;
            let certificate = Arc::clone(peer);
            let caller = Operator { record, certificate, address: asked.address.to_owned() };
            certificates::renew_operator(context, &caller, asked.csr, "operator.rejoin").await
        }
        Identity::Controller(..) => Err(refused("controllers do not come back like this")),
    }
}

#[cfg(test)]
mod tests {
    use fleet_certs::csr::{PrivateKey, RequestedKey};
    use fleet_certs::{issue, verify};
    use fleet_store::MemoryStore;
    use fleet_types::seal::SigningKey;
    use fleet_types::time::Timestamp;

    use super::*;
    use crate::clock::Clock;
    use crate::repo::certificates::Certificates;
    use crate::repo::nodes;
    use crate::repo::operators::{self, OperatorRecord};
    use crate::service::holds;
    use crate::testing::{TestContext, enrolled, leaves, operator};

    /// Somebody whose certificate lasted three days from the beginning.
    struct Away {
        key: PrivateKey,
        leaf: Vec<u8>,
        content_key: Option<SigningKey>,
    }

    impl Away {
        /// Asks with a key; signed with `key`.
        async fn ask(&self, context: &Context, csr: &[u8], key: &PrivateKey) -> Result<PeerIdentity> {
            let fleet = context.identities.fleet.fleet;
            let subject = rejoin::subject(fleet, &self.leaf, csr);
            let by_person = self.content_key.as_ref().map(|key| key.sign(Sealed::Rejoin, fleet, subject));
            let asked = RejoinRequest {
                certificate: &self.leaf,
                csr,
                signature: &rejoin::sign(key, subject).unwrap(),
                content_signature: &by_person.unwrap_or_default(),
                address: "127.0.0.1",
            };
            let holder = prove(context, &asked)?;
            let chain = give(context, &holder, &asked).await?;
            Ok(verify::describe(&CertificateDer::from(chain[0].as_slice())).unwrap())
        }

        async fn comes(&self, context: &Context) -> Result<PeerIdentity> {
            let csr = PrivateKey::generate().unwrap().request().unwrap();
            self.ask(context, &csr, &self.key).await
        }
    }

    fn begin() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn day(count: u64) -> Timestamp {
        begin().plus(Duration::from_hours(24 * count))
    }

    async fn fleet() -> TestContext {
        TestContext::at(Arc::new(MemoryStore::new()), Clock::manual(begin())).await
    }

    async fn node(context: &Context) -> Away {
        let (key, agent) = (PrivateKey::generate().unwrap(), enrolled(context, 1).await);
        let requested = RequestedKey::of(&key).unwrap();
        let (identities, life) = (&context.identities, issue::AGENT_LIFETIME);
        let fleet = identities.fleet.fleet;
        let issued = issue::agent(&identities.keyring.agent_ca, fleet, agent.node, &requested, begin(), life);
        let issued = issued.unwrap();
        let stored = holds::load(&context.storage, agent.node).await.unwrap();
        let certificates = Certificates::of_enrolment(&issued, requested.digest());
        let record = stored.record.with_certificates(certificates);
        let batch = nodes::save(context.storage.audited.batch(), stored.write_id, &record).unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        context.memory.node_cache.advance(record);
        Away { key, leaf: issued.chain[0].to_vec(), content_key: None }
    }

    async fn person(context: &Context) -> Away {
        let (key, (content_key, _)) = (PrivateKey::generate().unwrap(), SigningKey::generate().unwrap());
        let requested = RequestedKey::of(&key).unwrap();
        let (identities, life) = (&context.identities, issue::OPERATOR_LIFETIME);
        let record = OperatorRecord::clone(&operator().record);
        let fleet = identities.fleet.fleet;
        let issued =
            issue::operator(&identities.keyring.operator_ca, fleet, record.id, &requested, begin(), life)
                .unwrap();
        let certificates = Certificates::of_enrolment(&issued, requested.digest());
        let record = OperatorRecord { certificates, content_key: content_key.public(), ..record };
        let batch = operators::create(context.storage.audited.batch(), None, &record).unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        identities.operators.put(record);
        Away { key, leaf: issued.chain[0].to_vec(), content_key: Some(content_key) }
    }

    fn code(result: Result<PeerIdentity>) -> String {
        result.unwrap_err().detail.code
    }

    #[tokio::test]
    async fn a_node_comes_back_within_ninety_days_by_its_key() {
        let test = fleet().await;
        let (context, away) = (&test.context, node(&test.context).await);
        context.storage.clock.set(day(40));
        let stranger = PrivateKey::generate().unwrap();
        let csr = stranger.request().unwrap();
        assert_eq!(code(away.ask(context, &csr, &stranger).await), "rejoin-refused");
        let back = away.ask(context, &csr, &away.key).await.unwrap();
        assert_eq!(back.not_after, day(43));
        assert_eq!(away.ask(context, &csr, &away.key).await.unwrap(), back, "a lost answer");
        assert_eq!(leaves(context, "node.rejoin").await.len(), 1);
        context.storage.clock.set(day(93));
        assert_eq!(code(away.comes(context).await), "rejoin-refused");
    }

    #[tokio::test]
    async fn nobody_comes_back_who_is_shut_out_or_was_replaced() {
        let test = fleet().await;
        let (context, away) = (&test.context, node(&test.context).await);
        context.storage.clock.set(day(4));
        let back = away.comes(context).await.unwrap();
        // The new one has come; a copy of the disk comes with the old one.
        let id = back.identity.node().unwrap();
        let stored = holds::load(&context.storage, id).await.unwrap();
        let certificates = stored.record.certificates.clone().seen(&back, day(4));
        let record = stored.record.with_certificates(certificates);
        let batch = nodes::save(context.storage.audited.batch(), stored.write_id, &record).unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        context.memory.node_cache.advance(record);
        assert_eq!(code(away.comes(context).await), holds::HELD);
        assert_eq!(leaves(context, "node.hold").await.len(), 1);
        context.identities.denied.deny_node(id);
        assert_eq!(code(away.comes(context).await), "revoked");
    }

    #[tokio::test]
    async fn a_person_comes_back_with_the_content_key_as_well() {
        let test = fleet().await;
        let (context, mut away) = (&test.context, person(&test.context).await);
        context.storage.clock.set(day(3));
        let content_key = away.content_key.replace(SigningKey::generate().unwrap().0);
        assert_eq!(code(away.comes(context).await), "rejoin-refused");
        away.content_key = None;
        assert_eq!(code(away.comes(context).await), "rejoin-refused");
        away.content_key = content_key;
        let back = away.comes(context).await.unwrap();
        assert_eq!(back.not_after, day(3).plus(issue::OPERATOR_LIFETIME));
        assert_eq!(leaves(context, "operator.rejoin").await.len(), 1);
    }
}
