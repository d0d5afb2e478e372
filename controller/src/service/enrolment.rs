//! How nodes and operators come into the fleet: join tokens, invites, certificates.
//!
//! Token use, activation and issue are one commit. The same token with the same key gives the same
//! certificate again (a lost reply); with another key it is refused, alarmed, and the node's record frozen
//! (security-and-delivery §1.6). Errors do not tell an unknown token from a wrong secret.

use std::time::Duration;

use fleet_certs::csr::RequestedKey;
use fleet_certs::issue;
use fleet_certs::token::{Token, TokenId, TokenKind, TokenSecret};
use fleet_types::audit::Actor;
use fleet_types::digest::{Digest, hex};
use fleet_types::id::{Name, NodeId, OperatorId};
use fleet_types::label::Labels;
use fleet_types::seal::PublicKey;
use fleet_types::view::JoinTokenView;

use super::caller::{Operator, nobody};
use super::idempotency::Once;
use super::inventory;
use crate::context::Context;
use crate::error::{ControllerError, Kind, Result};
use crate::repo::audited::AuditEntry;
use crate::repo::keys;
use crate::repo::reader::{BatchExt as _, Stored};
use crate::repo::records::{
    Bytes, InviteRecord, NodePointer, NodeRecord, NodeState, OperatorPointer, OperatorRecord, TokenRecord,
    UsedToken,
};

/// A join token lives at most this long (§1.6).
const MAX_TOKEN_LIFE: Duration = Duration::from_hours(24);
const DEFAULT_TOKEN_LIFE: Duration = Duration::from_hours(1);

/// A redeemed token: what the edge needs for its reply.
#[derive(Debug, Clone)]
pub struct EnrolledNode {
    /// The node's record.
    pub node: NodeRecord,
    /// AuditEntry first, DER.
    pub chain: Vec<Vec<u8>>,
}

/// A redeemed invite.
#[derive(Debug, Clone)]
pub struct EnrolledOperator {
    /// The operator's record.
    pub operator: OperatorRecord,
    /// AuditEntry first, DER.
    pub chain: Vec<Vec<u8>>,
}

fn refused() -> ControllerError {
    ControllerError::new(Kind::Unauthenticated, "token-refused", "this token is unknown, used or expired")
        .fix("ask for a new one: an operator makes join tokens (fleetctl join-token create NAME), a security-admin invites")
}

/// Makes a node record with its join token.
pub async fn create_join_token(
    context: &Context,
    caller: &Operator,
    name: Name,
    labels: Labels,
    lifetime: Duration,
    idempotency_key: &str,
) -> Result<JoinTokenView> {
    let lifetime = if lifetime.is_zero() { DEFAULT_TOKEN_LIFE } else { lifetime };
    if lifetime > MAX_TOKEN_LIFE {
        return Err(ControllerError::invalid("lifetime", "a join token lives at most 24h"));
    }
    let labels_json = serde_json::to_vec(&labels).map_err(ControllerError::internal)?;
    let arguments: [&[u8]; 2] = [name.as_str().as_bytes(), &labels_json];
    let once = Once::new(caller, idempotency_key, "join-token.create", &arguments)?;
    if let Some(answer) = once.answer(context).await? {
        return Ok(answer);
    }
    let now = context.clock.now();
    let mut batch = context.audited.batch();
    let node = match context.repo.get::<NodePointer>(&keys::node_name(name.as_str())?).await? {
        None => {
            let node = NodeRecord {
                id: NodeId::from_uuid(context.clock.uuid()),
                name: name.clone(),
                labels,
                state: NodeState::Pending,
                report_key: None,
                serial: None,
                certificate_not_after: None,
                created: now,
            };
            batch = batch
                .create_record(keys::node_name(name.as_str())?, &NodePointer { node: node.id })?
                .create_record(keys::node(node.id)?, &node)?;
            node
        }
        Some(pointer) => {
            // A second token for a node that has not come yet: the labels of the newest order count.
            let stored = load_node(context, pointer.record.node).await?;
            if stored.record.state != NodeState::Pending {
                return Err(ControllerError::new(
                    Kind::Conflict,
                    "node-exists",
                    format!("node \"{name}\" is enrolled already"),
                )
                .fix("choose another name; putting a new machine in a node's place is not built yet"));
            }
            let node = NodeRecord { labels, ..stored.record };
            batch = batch.replace_record(keys::node(node.id)?, stored.write_id, &node)?;
            node
        }
    };
    let token = Token::generate(
        TokenKind::Node,
        vec![context.keyring.controller_ca.pin()],
        context.fleet.roots.pin(),
    )
    .map_err(ControllerError::internal)?;
    let expires = now.plus(lifetime);
    let record = TokenRecord {
        node: node.id,
        secret_hash: token.secret.stored(TokenKind::Node, token.id),
        expires,
        created_by: caller.record.id,
        used: None,
    };
    let view = JoinTokenView {
        schema: "fleet/v1/join-token".to_owned(),
        token: token.expose(),
        node: name.clone(),
        node_id: node.id,
        expires,
    };
    batch = batch.create_record(keys::join_token(&token.id.to_string())?, &record)?;
    // The stored answer must not hold the secret: a repeated call is told so instead.
    let remembered = JoinTokenView { token: "shown once; make a new one".to_owned(), ..view.clone() };
    batch = once.store(context, batch, &remembered)?;
    let leaf = AuditEntry::new(caller.actor(), "join-token.create", format!("node/{name}"))
        .idempotency(idempotency_key);
    context.audited.commit(batch, vec![leaf]).await?;
    context.node_cache.advance(node);
    Ok(view)
}

async fn load_node(context: &Context, id: NodeId) -> Result<Stored<NodeRecord>> {
    context.repo.get(&keys::node(id)?).await?.ok_or_else(|| ControllerError::not_found("node", id))
}

/// Is this the same use as before? `Some(chain)` when it is, an error when another key is used.
fn repeated(used: &UsedToken, public_key: Digest, second_key: PublicKey) -> Option<Vec<Vec<u8>>> {
    (used.public_key == public_key && used.second_key == second_key)
        .then(|| used.chain.iter().map(|bytes| bytes.0.clone()).collect())
}

fn chain_bytes(issued: &issue::Issued) -> Vec<Vec<u8>> {
    issued.chain.iter().map(|der| der.to_vec()).collect()
}

/// What a caller of the enrolment port hands in.
pub struct EnrolmentRequest<'a> {
    /// The token's id as text.
    pub token_id: &'a str,
    /// Its secret.
    pub secret: &'a [u8],
    /// PKCS#10 request, DER.
    pub csr: &'a [u8],
    /// Report or content key.
    pub second_key: PublicKey,
    /// Where it comes from.
    pub address: &'a str,
}

impl EnrolmentRequest<'_> {
    fn token(&self) -> Result<(TokenId, TokenSecret)> {
        let id = self.token_id.parse().map_err(|_| refused())?;
        Ok((id, TokenSecret::from_slice(self.secret).map_err(|_| refused())?))
    }

    fn requested(&self) -> Result<RequestedKey> {
        RequestedKey::from_request(self.csr).map_err(|error| ControllerError::invalid("csr", error))
    }

    fn actor(&self) -> Actor {
        nobody(self.address)
    }
}

/// A node redeems its token.
pub async fn enrol_node(context: &Context, redemption: &EnrolmentRequest<'_>) -> Result<EnrolledNode> {
    let (id, secret) = redemption.token()?;
    let key = keys::join_token(&id.to_string())?;
    let stored = context.repo.get::<TokenRecord>(&key).await?.ok_or_else(refused)?;
    if !secret.matches(TokenKind::Node, id, stored.record.secret_hash) {
        return Err(refused());
    }
    let requested = redemption.requested()?;
    let node = load_node(context, stored.record.node).await?;
    if let Some(used) = &stored.record.used {
        return match repeated(used, requested.digest(), redemption.second_key) {
            Some(chain) => Ok(EnrolledNode { node: node.record, chain }),
            None => Err(freeze(context, node, redemption).await?),
        };
    }
    let now = context.clock.now();
    if now >= stored.record.expires || node.record.state != NodeState::Pending {
        return Err(refused());
    }
    let issued = issue::agent(
        &context.keyring.agent_ca,
        context.fleet.fleet,
        node.record.id,
        &requested,
        now,
        context.settings.agent_certificate,
    )
    .map_err(ControllerError::internal)?;
    let chain = chain_bytes(&issued);
    let used = UsedToken {
        public_key: requested.digest(),
        second_key: redemption.second_key,
        chain: chain.iter().cloned().map(Bytes).collect(),
        at: now,
    };
    let active = NodeRecord {
        state: NodeState::Active,
        report_key: Some(redemption.second_key),
        serial: Some(hex(issued.serial.as_bytes())),
        certificate_not_after: Some(issued.not_after),
        ..node.record.clone()
    };
    let batch = context
        .audited
        .batch()
        .replace_record(key, stored.write_id, &TokenRecord { used: Some(used), ..stored.record })?
        .replace_record(keys::node(active.id)?, node.write_id, &active)?;
    let leaf = AuditEntry::new(redemption.actor(), "node.enrol", format!("node/{}", active.name))
        .subject(issued.fingerprint);
    context.audited.commit(batch, vec![leaf]).await?;
    context.node_cache.advance(active.clone());
    Ok(EnrolledNode { node: active, chain })
}

/// One token, two keys: somebody else has it. Nobody gets in until an operator looks.
async fn freeze(
    context: &Context,
    node: Stored<NodeRecord>,
    redemption: &EnrolmentRequest<'_>,
) -> Result<ControllerError> {
    let reason = "its join token was used with two keys";
    tracing::error!(node = %node.record.name, address = redemption.address, "{reason}; the node is frozen");
    let frozen = NodeRecord { state: NodeState::Frozen { reason: reason.to_owned() }, ..node.record };
    // Holding goes on from the reserve when space is short (security-and-delivery §3.4).
    let batch = context.audited.batch().using_reserve();
    let batch = batch.replace_record(keys::node(frozen.id)?, node.write_id, &frozen)?;
    let leaf =
        AuditEntry::new(redemption.actor(), "node.freeze", format!("node/{}", frozen.name)).refused(reason);
    context.audited.commit(batch, vec![leaf]).await?;
    let id = frozen.id;
    context.node_cache.update(id, |known| known.record = std::sync::Arc::new(frozen));
    // Whichever of the two holds the live link: it may be the wrong one.
    if context.sessions.close(id) {
        inventory::disconnected(context, id);
    }
    Ok(refused())
}

/// A person redeems an invite.
pub async fn enrol_operator(
    context: &Context,
    redemption: &EnrolmentRequest<'_>,
) -> Result<EnrolledOperator> {
    let (id, secret) = redemption.token()?;
    let key = keys::invite(&id.to_string())?;
    let stored = context.repo.get::<InviteRecord>(&key).await?.ok_or_else(refused)?;
    if !secret.matches(TokenKind::Operator, id, stored.record.secret_hash) {
        return Err(refused());
    }
    let requested = redemption.requested()?;
    if let (Some(used), Some(operator)) = (&stored.record.used, stored.record.operator) {
        let chain = repeated(used, requested.digest(), redemption.second_key).ok_or_else(|| {
            tracing::error!(invite = %id, address = redemption.address, "an invite was used with two keys");
            refused()
        })?;
        let operator = context.operators.get(operator).ok_or_else(refused)?;
        return Ok(EnrolledOperator { operator: (*operator).clone(), chain });
    }
    let now = context.clock.now();
    if now >= stored.record.expires {
        return Err(refused());
    }
    let operator_id = OperatorId::from_uuid(context.clock.uuid());
    let issued = issue::operator(
        &context.keyring.operator_ca,
        context.fleet.fleet,
        operator_id,
        &requested,
        now,
        context.settings.operator_certificate,
    )
    .map_err(ControllerError::internal)?;
    let chain = chain_bytes(&issued);
    let operator = OperatorRecord {
        id: operator_id,
        name: stored.record.name.clone(),
        role: stored.record.role,
        content_key: redemption.second_key,
        serial: hex(issued.serial.as_bytes()),
        created: now,
    };
    let used = UsedToken {
        public_key: requested.digest(),
        second_key: redemption.second_key,
        chain: chain.iter().cloned().map(Bytes).collect(),
        at: now,
    };
    let invite = InviteRecord { used: Some(used), operator: Some(operator_id), ..stored.record };
    let batch = context
        .audited
        .batch()
        .replace_record(key, stored.write_id, &invite)?
        .create_record(keys::operator(operator_id)?, &operator)?
        .create_record(
            keys::operator_name(operator.name.as_str())?,
            &OperatorPointer { operator: operator_id },
        )?;
    let leaf = AuditEntry::new(redemption.actor(), "operator.enrol", format!("operator/{}", operator.name))
        .subject(issued.fingerprint);
    context.audited.commit(batch, vec![leaf]).await?;
    context.operators.put(operator.clone());
    Ok(EnrolledOperator { operator, chain })
}

#[cfg(test)]
mod tests {
    use fleet_certs::csr::PrivateKey;
    use fleet_types::seal::SigningKey;

    use super::*;
    use crate::testing::{StagedStore, TestContext, operator};

    async fn token(context: &Context) -> Token {
        let name = "fw-a".parse().unwrap();
        let view = create_join_token(context, &operator(), name, Labels::default(), Duration::ZERO, "")
            .await
            .unwrap();
        Token::parse(TokenKind::Node, &view.token).unwrap()
    }

    async fn redeem(context: &Context, token: &Token) -> Result<EnrolledNode> {
        let redemption = EnrolmentRequest {
            token_id: &token.id.to_string(),
            secret: token.secret.expose(),
            csr: &PrivateKey::generate().unwrap().request().unwrap(),
            second_key: SigningKey::generate().unwrap().0.public(),
            address: "127.0.0.1",
        };
        enrol_node(context, &redemption).await
    }

    /// The reply of the first one's commit is on its way when the second one's use freezes the node.
    #[tokio::test]
    async fn a_freeze_between_the_commit_of_an_enrolment_and_its_entry_in_memory_stays() {
        let store = std::sync::Arc::new(StagedStore::default());
        let test = TestContext::over(store.clone()).await;
        let context = test.context.clone();
        let token = token(&context).await;
        let held = store.hold_next();
        let first = tokio::spawn({
            let (context, token) = (context.clone(), token.clone());
            async move { redeem(&context, &token).await }
        });
        held.written.await.unwrap();
        redeem(&context, &token).await.expect_err("the token is used with a second key");
        held.answer.send(()).unwrap();
        let node = first.await.unwrap().expect("it was enrolled before").node.id;
        let known = context.node_cache.get(node).unwrap();
        assert!(matches!(known.record.state, NodeState::Frozen { .. }), "{:?}", known.record.state);
        assert_eq!(inventory::check_active(&context, node).unwrap_err().detail.code, "node-frozen");
        let stored = load_node(&context, node).await.unwrap().record;
        assert_eq!(*known.record, stored, "memory says what the store says");
    }

    /// A second token for a node that comes with its first one meanwhile.
    #[tokio::test]
    async fn a_node_that_enrols_while_its_second_token_is_told_stays_active() {
        let store = std::sync::Arc::new(StagedStore::default());
        let test = TestContext::over(store.clone()).await;
        let context = test.context.clone();
        let first = token(&context).await;
        let held = store.hold_next();
        let second = tokio::spawn({
            let context = context.clone();
            async move { token(&context).await }
        });
        held.written.await.unwrap();
        let node = redeem(&context, &first).await.unwrap().node.id;
        held.answer.send(()).unwrap();
        second.await.unwrap();
        assert!(inventory::check_active(&context, node).is_ok());
    }

    #[tokio::test]
    async fn a_node_is_frozen_from_the_reserve_when_space_is_short() {
        let store = std::sync::Arc::new(StagedStore::default());
        let test = TestContext::over(store.clone()).await;
        let first = token(&test.context).await;
        let node = redeem(&test.context, &first).await.unwrap().node.id;
        store.run_short();
        redeem(&test.context, &first).await.expect_err("the token is used with a second key");
        let stored = load_node(&test.context, node).await.unwrap().record;
        assert!(matches!(stored.state, NodeState::Frozen { .. }), "{:?}", stored.state);
    }
}
