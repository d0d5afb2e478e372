//! Nodes and operators who are shut out for good by a security-admin, and the list of all certificates
//! (security-and-delivery §1.10).
//!
//! A revocation is about the holder: it covers every certificate of theirs, also one that is issued at the same instant,
//! and is not taken back. The record is the truth, the deny list in memory is made from it at a start. A node comes back
//! as a new one (`node remove`, a new token), a person with a new invite.

use std::collections::VecDeque;

use fleet_certs::Role;
use fleet_types::id::{Name, NodeId, OperatorId};
use fleet_types::label::Selector;
use fleet_types::time::Timestamp;
use fleet_types::view::{CertificateItem, CertificateState, Done, Page};
use uuid::Uuid;

use super::caller::Operator;
use super::idempotency::Once;
use super::node_jobs::{Ends, committed, end_jobs};
use super::{holds, inventory, limits};
use crate::context::Context;
use crate::error::{ControllerError, Kind, Result};
use crate::repo::audited::AuditEntry;
use crate::repo::certificates::{self, Certificates, RevokedRecord};
use crate::repo::operators::{self, OperatorPointer};
use crate::repo::reader::BatchExt as _;

/// Whose certificates: `node/NAME` or `operator/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A node.
    Node(Name),
    /// A person.
    Operator(Name),
}

impl std::str::FromStr for Holder {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (kind, name) = text.split_once('/').unwrap_or_default();
        match (kind, name.parse()) {
            ("node", Ok(name)) => Ok(Self::Node(name)),
            ("operator", Ok(name)) => Ok(Self::Operator(name)),
            _ => Err("write node/NAME or operator/NAME"),
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Operator(name) => write!(f, "operator/{name}"),
        }
    }
}

/// A security-admin's word about one holder.
pub struct Order<'a> {
    /// Who says it.
    pub caller: &'a Operator,
    /// About whom.
    pub holder: &'a Holder,
    /// Why; never empty.
    pub reason: &'a str,
    /// The call's key.
    pub idempotency_key: &'a str,
}

/// Shuts a holder out for good: every certificate opens nothing from now on, what is open is closed.
pub async fn revoke(context: &Context, order: &Order<'_>) -> Result<Done> {
    limits::check_node_reason(order.reason)?;
    let holder = order.holder.to_string();
    let arguments = [holder.as_bytes(), order.reason.as_bytes()];
    let once = Once::new(order.caller, order.idempotency_key, "certificate.revoke", &arguments)?;
    let storage = &context.storage;
    loop {
        if let Some(answer) = once.answer(storage).await? {
            take_up_again(context).await?;
            return Ok(answer);
        }
        let (role, id, name) = find(context, order).await?;
        let record =
            RevokedRecord { id, name, by: order.caller.record.name.clone(), at: storage.clock.now() };
        let key = certificates::revoked(role, id)?;
        if let Some(before) = storage.repo.get::<RevokedRecord>(&key).await? {
            // Whoever made the commit may not have come to what follows from it.
            take_up_again(context).await?;
            let why = format!("{holder} was revoked by {} at {}", before.record.by, before.record.at);
            return Err(ControllerError::new(Kind::Conflict, "already-revoked", why));
        }
        let answer =
            Done::new(format!("{holder} is revoked: none of their certificates opens anything any more"));
        // Shutting out goes on from the reserve when space is short (security-and-delivery §3.4).
        let batch = storage.audited.batch().using_reserve().create_record(key, &record)?;
        let batch = once.store(storage, batch, &answer)?;
        let leaf = AuditEntry::new(order.caller.actor(), "certificate.revoke", holder.clone())
            .idempotency(order.idempotency_key)
            .text(order.reason);
        if committed(storage.audited.commit(batch, vec![leaf]).await)? {
            tracing::warn!(holder, by = %record.by, "revoked");
            shut_out(context, role, &record).await?;
            return Ok(answer);
        }
    }
}

/// Who it is. A node that has not come has no certificate, and nobody locks themselves out.
async fn find(context: &Context, order: &Order<'_>) -> Result<(Role, Uuid, Name)> {
    match order.holder {
        Holder::Node(name) => {
            let node = holds::find(&context.storage, name.as_str()).await?.record;
            if node.certificates == Certificates::default() {
                let why = format!("node \"{name}\" has no certificate");
                return Err(ControllerError::new(Kind::Conflict, "no-certificate", why)
                    .fix(format!("take its record and its join token away: fleetctl node remove {name}")));
            }
            Ok((Role::Agent, *node.id.as_uuid(), node.name))
        }
        Holder::Operator(name) => {
            let key = operators::name(name.as_str())?;
            let pointer = context.storage.repo.get::<OperatorPointer>(&key).await?;
            let id = pointer.ok_or_else(|| ControllerError::not_found("operator", name))?.record.operator;
            if id == order.caller.record.id {
                let why = "these are your own certificates: you would lock yourself out";
                return Err(ControllerError::new(Kind::Blocked, "own-certificate", why)
                    .fix("another security-admin does it"));
            }
            Ok((Role::Operator, *id.as_uuid(), name.clone()))
        }
    }
}

/// What follows from a revocation: the deny list, which closes streams and refuses calls, and the end of a node's work.
async fn shut_out(context: &Context, role: Role, record: &RevokedRecord) -> Result<()> {
    if role == Role::Operator {
        context.identities.denied.deny_operator(OperatorId::from_uuid(record.id));
        return Ok(());
    }
    let node = NodeId::from_uuid(record.id);
    context.identities.denied.deny_node(node);
    if context.memory.sessions.close(node) {
        inventory::disconnected(&context.storage, &context.memory, node, false).await;
    }
    let reason = format!("its certificates were revoked by {}", record.by);
    end_jobs(&context.storage, &context.memory, node, &reason, Ends::All).await
}

/// Makes the deny list at a start, and goes on with what was not finished behind a revocation.
pub async fn take_up_again(context: &Context) -> Result<()> {
    for role in [Role::Agent, Role::Operator] {
        let prefix = certificates::all_revoked(role);
        for (_, stored) in context.storage.repo.all::<RevokedRecord>(&prefix).await? {
            shut_out(context, role, &stored.record).await?;
        }
    }
    Ok(())
}

/// A page of certificates: operators by name, then nodes by name. From memory.
pub fn list(context: &Context, after: &str, limit: usize) -> Result<Page<CertificateItem>> {
    let after: Option<Holder> = match after {
        "" => None,
        text => Some(text.parse().map_err(|error| ControllerError::invalid("after", error))?),
    };
    let (now, denied) = (context.storage.clock.now(), context.identities.denied.get());
    // A holder's certificates stand on one page.
    let mut holders: VecDeque<(Holder, Uuid, bool, Certificates)> = VecDeque::new();
    if !matches!(after, Some(Holder::Node(_))) {
        let is_next = |name: &Name| !matches!(&after, Some(Holder::Operator(last)) if name <= last);
        for record in context.identities.operators.all().into_iter().filter(|record| is_next(&record.name)) {
            let is_denied = denied.operators.contains(&record.id);
            let holder = Holder::Operator(record.name.clone());
            holders.push_back((holder, *record.id.as_uuid(), is_denied, record.certificates.clone()));
        }
    }
    let last = match &after {
        Some(Holder::Node(name)) => Some(name),
        _ => None,
    };
    for known in context.memory.node_cache.page(&Selector::all(), last, limit + 1) {
        let record = known.record;
        let is_denied = denied.nodes.contains(&record.id);
        let holder = Holder::Node(record.name.clone());
        holders.push_back((holder, *record.id.as_uuid(), is_denied, record.certificates.clone()));
    }
    let next = holders.len() > limit;
    holders.truncate(limit);
    let next = holders.back().filter(|_| next).map(|(holder, ..)| holder.to_string());
    let items = holders.iter().flat_map(|(holder, id, is_denied, known)| {
        items(holder, *id, known, |end| state_of(*is_denied, end, now))
    });
    Ok(Page { schema: "fleet/v1/certificate-list".to_owned(), items: items.collect(), next })
}

fn items(
    holder: &Holder,
    id: Uuid,
    known: &Certificates,
    state: impl Fn(Option<Timestamp>) -> Option<CertificateState>,
) -> Vec<CertificateItem> {
    let named = [(&known.current, CertificateState::InUse), (&known.next, CertificateState::Awaited)];
    named
        .into_iter()
        .filter_map(|(certificate, usual)| {
            let certificate = certificate.as_ref()?;
            Some(CertificateItem {
                holder: holder.to_string(),
                id,
                serial: certificate.serial.to_string(),
                not_after: certificate.not_after,
                state: state(certificate.not_after).unwrap_or(usual),
            })
        })
        .collect()
}

fn state_of(is_denied: bool, end: Option<Timestamp>, now: Timestamp) -> Option<CertificateState> {
    if is_denied {
        Some(CertificateState::Revoked)
    } else if end.is_some_and(|end| end <= now) {
        Some(CertificateState::Ended)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleet_certs::PeerIdentity;
    use fleet_types::id::LinkEpoch;
    use fleet_types::seal::SigningKey;

    use super::*;
    use crate::repo::certificates::Certificate;
    use crate::repo::nodes::{self, NodeRecord};
    use crate::repo::operators::OperatorRecord;
    use crate::testing::{TestContext, enrolled, leaves, operator};

    fn certificates(peer: &PeerIdentity) -> Certificates {
        let (serial, not_after) = (peer.serial.clone(), Some(peer.not_after));
        Certificates {
            current: Some(Certificate { serial, not_after, key: None }),
            ..Certificates::default()
        }
    }

    /// A node with a certificate and a live link, and two security-admins.
    async fn fleet() -> (TestContext, Operator, PeerIdentity) {
        let test = TestContext::new().await;
        let context = &test.context;
        let agent = enrolled(context, 1).await;
        let stored = holds::load(&context.storage, agent.node).await.unwrap();
        let record = stored.record.with_certificates(certificates(&agent.certificate));
        save(context, stored.write_id, &record).await;
        for (n, name) in [(7, "ada"), (8, "eve")] {
            let record = OperatorRecord {
                id: OperatorId::from_uuid(Uuid::from_u128(n)),
                name: name.parse().unwrap(),
                content_key: SigningKey::generate().unwrap().0.public(),
                certificates: certificates(&operator().certificate),
                ..OperatorRecord::clone(&operator().record)
            };
            let batch = operators::create(context.storage.audited.batch(), None, &record).unwrap();
            context.storage.audited.commit(batch, vec![]).await.unwrap();
            context.identities.operators.put(record);
        }
        let peer = PeerIdentity::clone(&agent.certificate);
        (test, operator(), peer)
    }

    async fn save(context: &Context, seen: fleet_store::WriteId, record: &NodeRecord) {
        let batch = nodes::save(context.storage.audited.batch(), seen, record).unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        context.memory.node_cache.advance(record.clone());
    }

    async fn ask(context: &Context, caller: &Operator, holder: &str, key: &str) -> Result<Done> {
        let holder = holder.parse().unwrap();
        revoke(context, &Order { caller, holder: &holder, reason: "lost", idempotency_key: key }).await
    }

    fn listed(context: &Context) -> Vec<(String, &'static str)> {
        let page = list(context, "", 100).unwrap();
        page.items.into_iter().map(|item| (item.holder, item.state.as_str())).collect()
    }

    #[tokio::test]
    async fn a_node_that_is_revoked_is_shut_out_once_and_for_good() {
        let (test, ada, peer) = fleet().await;
        let (context, node) = (&test.context, peer.identity.node().unwrap());
        let mut link = context.memory.sessions.register(node, LinkEpoch(1)).unwrap();
        let answer = ask(context, &ada, "node/fw-1", "once").await.unwrap();
        assert!(context.identities.denied.check(&peer).is_err());
        assert!(link.recv().await.is_none(), "its link is closed");
        // The same call again, and another about the same.
        assert_eq!(ask(context, &ada, "node/fw-1", "once").await.unwrap(), answer);
        let again = ask(context, &ada, "node/fw-1", "twice").await.unwrap_err();
        assert_eq!(again.detail.code, "already-revoked");
        assert_eq!(leaves(context, "certificate.revoke").await.len(), 1);
        let state = [("operator/ada", "in_use"), ("operator/eve", "in_use"), ("node/fw-1", "revoked")];
        assert_eq!(listed(context), state.map(|(holder, state)| (holder.to_owned(), state)));
    }

    #[tokio::test]
    async fn an_operator_is_shut_out_by_another_one_and_nobody_by_themselves() {
        let (test, ada, _) = fleet().await;
        let context = &test.context;
        assert_eq!(ask(context, &ada, "operator/ada", "").await.unwrap_err().detail.code, "own-certificate");
        assert_eq!(ask(context, &ada, "operator/bob", "").await.unwrap_err().detail.code, "not-found");
        ask(context, &ada, "operator/eve", "").await.unwrap();
        let eve = OperatorId::from_uuid(Uuid::from_u128(8));
        assert!(context.identities.denied.get().operators.contains(&eve));
        assert_eq!(listed(context)[1], ("operator/eve".to_owned(), "revoked"));
        // A start makes the list anew from what is stored.
        let prefix = certificates::all_revoked(Role::Operator);
        assert_eq!(context.storage.repo.all::<RevokedRecord>(&prefix).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn the_list_has_pages_and_says_what_has_ended() {
        let (test, _, peer) = fleet().await;
        let context = &test.context;
        let mut seen = Vec::new();
        let mut after = String::new();
        loop {
            let page = list(context, &after, 1).unwrap();
            seen.extend(page.items.into_iter().map(|item| item.holder));
            let Some(next) = page.next else { break };
            after = next;
        }
        assert_eq!(seen, ["operator/ada", "operator/eve", "node/fw-1"]);
        let now = context.storage.clock.now();
        let node = holds::load(&context.storage, peer.identity.node().unwrap()).await.unwrap();
        let ended = PeerIdentity { not_after: now.minus(Duration::from_secs(1)), ..peer };
        let record = node.record.with_certificates(certificates(&ended));
        save(context, node.write_id, &record).await;
        assert_eq!(listed(context)[2], ("node/fw-1".to_owned(), "ended"));
        assert!(list(context, "fw-1", 10).is_err());
    }
}
