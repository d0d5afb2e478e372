//! How nodes come into the fleet: join tokens and certificates; people come by `operators`.
//!
//! Token use, activation and issue are one commit. The same token with the same key gives the same
//! certificate again (a lost reply); with another key, as long as the token lasts, it is refused, alarmed, and the node
//! held (security-and-delivery §1.6). Errors do not tell an unknown token from a wrong secret.

use std::time::Duration;

use fleet_certs::csr::RequestedKey;
use fleet_certs::issue;
use fleet_certs::token::{Token, TokenId, TokenKind, TokenSecret};
use fleet_types::audit::Actor;
use fleet_types::digest::Digest;
use fleet_types::id::{Name, NodeId};
use fleet_types::label::Labels;
use fleet_types::seal::PublicKey;
use fleet_types::view::JoinTokenView;

use super::caller::{Operator, nobody};
use super::holds;
use super::idempotency::Once;
use crate::context::{Context, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::repo::audited::AuditEntry;
use crate::repo::certificates::Certificates;
use crate::repo::nodes::{self, NodePointer, NodeRecord, NodeState};
use crate::repo::reader::BatchExt as _;
use crate::repo::tokens::{self, Bytes, TokenRecord, UsedToken};

/// A join token lives at most this long (§1.6).
const MAX_TOKEN_LIFE: Duration = Duration::from_hours(24);
const DEFAULT_TOKEN_LIFE: Duration = Duration::from_hours(1);

/// A redeemed token: what the edge needs for its reply.
#[derive(Debug, Clone)]
pub struct EnrolledNode {
    /// The node's record.
    pub node: NodeRecord,
    /// Leaf first, DER.
    pub chain: Vec<Vec<u8>>,
}

pub(super) fn refused() -> ControllerError {
    ControllerError::new(Kind::Unauthenticated, "token-refused", "this token is unknown, used or expired")
        .fix("ask for a new one: an operator makes join tokens (fleetctl join-token create NAME), a security-admin invites people (fleetctl operator invite NAME)")
}

/// What an operator asks for.
pub struct JoinOrder {
    /// The node's name.
    pub name: Name,
    /// Its labels; none for a node that has not come yet means those it has.
    pub labels: Labels,
    /// Give such a node these labels instead of those it has?
    pub replace_labels: bool,
    /// How long the token is good for; zero means the usual.
    pub lifetime: Duration,
}

/// Makes a node record with its join token. An older token of the node is void from then on.
pub async fn create_join_token(
    context: &Context,
    caller: &Operator,
    order: JoinOrder,
    idempotency_key: &str,
) -> Result<JoinTokenView> {
    let JoinOrder { name, labels, replace_labels, lifetime } = order;
    let lifetime = if lifetime.is_zero() { DEFAULT_TOKEN_LIFE } else { lifetime };
    if lifetime > MAX_TOKEN_LIFE {
        return Err(ControllerError::invalid("lifetime", "a join token lives at most 24h"));
    }
    let labels_json = serde_json::to_vec(&labels).map_err(ControllerError::internal)?;
    let seconds = lifetime.as_secs().to_be_bytes();
    let arguments: [&[u8]; 4] =
        [name.as_str().as_bytes(), &labels_json, &seconds, &[u8::from(replace_labels)]];
    let once = Once::new(caller, idempotency_key, "join-token.create", &arguments)?;
    if let Some(answer) = once.answer::<JoinTokenView>(&context.storage).await? {
        // Whoever made the commit may not have come to tell memory.
        context.memory.node_cache.advance(holds::load(&context.storage, answer.node_id).await?.record);
        return Ok(answer);
    }
    let now = context.storage.clock.now();
    let token = Token::generate(
        TokenKind::Node,
        vec![context.identities.keyring.controller_ca.pin()],
        context.identities.fleet.roots.pin(),
    )
    .map_err(ControllerError::internal)?;
    let token_id = token.id.to_string();
    let mut batch = context.storage.audited.batch();
    let mut replaces = false;
    let node = match context.storage.repo.get::<NodePointer>(&nodes::name(name.as_str())?).await? {
        None => {
            let id = NodeId::from_uuid(context.storage.clock.uuid());
            let join_token = Some(token_id.clone());
            let node = NodeRecord { join_token, ..NodeRecord::pending(id, name.clone(), labels, now) };
            batch = nodes::create(batch, &node)?;
            node
        }
        Some(pointer) => {
            // A second token for a node that has not come yet.
            let stored = holds::load(&context.storage, pointer.record.node).await?;
            if stored.record.state != NodeState::Pending {
                return Err(ControllerError::new(
                    Kind::Conflict,
                    "node-exists",
                    format!("node \"{name}\" is enrolled already"),
                )
                .fix(format!(
                    "choose another name, or give this one up first: fleetctl node remove {name}"
                )));
            }
            let labels = if replace_labels { labels } else { keep_labels(&stored.record, &labels)? };
            replaces = true;
            let join_token = Some(token_id.clone());
            let node = NodeRecord { labels, join_token, ..stored.record.with_state(NodeState::Pending) };
            batch = nodes::save(batch, stored.write_id, &node)?;
            node
        }
    };
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
        replaces,
    };
    batch = batch.create_record(tokens::join_token(&token_id)?, &record)?;
    // The stored answer must not hold the secret: a repeated call is told so instead.
    let remembered = JoinTokenView { token: "shown once; make a new one".to_owned(), ..view.clone() };
    batch = once.store(&context.storage, batch, &remembered)?;
    let leaf = AuditEntry::new(caller.actor(), "join-token.create", format!("node/{name}"))
        .idempotency(idempotency_key);
    context.storage.audited.commit(batch, vec![leaf]).await?;
    context.memory.node_cache.advance(node);
    Ok(view)
}

/// The labels of a node that has not come yet, if those asked for say nothing else.
fn keep_labels(node: &NodeRecord, asked: &Labels) -> Result<Labels> {
    let text = |labels: &Labels| {
        let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        if pairs.is_empty() { "none".to_owned() } else { pairs.join(",") }
    };
    if asked.iter().next().is_none() || *asked == node.labels {
        return Ok(node.labels.clone());
    }
    let why = format!("node \"{}\" waits to be enrolled with other labels", node.name);
    Err(ControllerError::new(Kind::Conflict, "labels-differ", why)
        .cause(format!("it has {}; asked for is {}", text(&node.labels), text(asked)))
        .fix("leave --label out to keep them, or add --replace-labels"))
}

/// Is this the same use as before? `Some(chain)` when it is, an error when another key is used.
pub(super) fn repeated(used: &UsedToken, public_key: Digest, second_key: PublicKey) -> Option<Vec<Vec<u8>>> {
    (used.public_key == public_key && used.second_key == second_key)
        .then(|| used.chain.iter().map(|bytes| bytes.0.clone()).collect())
}

pub(super) fn chain_bytes(issued: &issue::Issued) -> Vec<Vec<u8>> {
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
    pub(super) fn token(&self) -> Result<(TokenId, TokenSecret)> {
        let id = self.token_id.parse().map_err(|_| refused())?;
        Ok((id, TokenSecret::from_slice(self.secret).map_err(|_| refused())?))
    }

    pub(super) fn requested(&self) -> Result<RequestedKey> {
        RequestedKey::from_request(self.csr).map_err(|error| ControllerError::invalid("csr", error))
    }

    pub(super) fn actor(&self) -> Actor {
        nobody(self.address)
    }
}

/// Is there a token or invite of this id, used or not? Whoever names one is no guesser.
pub async fn is_issued(storage: &Storage, token_id: &str) -> Result<bool> {
    let Ok(id) = token_id.parse::<TokenId>() else { return Ok(false) };
    let id = id.to_string();
    Ok(storage.repo.write_id(&tokens::join_token(&id)?).await?.is_some()
        || storage.repo.write_id(&tokens::invite(&id)?).await?.is_some())
}

/// A node redeems its token.
pub async fn enrol_node(context: &Context, redemption: &EnrolmentRequest<'_>) -> Result<EnrolledNode> {
    let (id, secret) = redemption.token()?;
    let key = tokens::join_token(&id.to_string())?;
    let stored = context.storage.repo.get::<TokenRecord>(&key).await?.ok_or_else(refused)?;
    if !secret.matches(TokenKind::Node, id, stored.record.secret_hash) {
        return Err(refused());
    }
    let requested = redemption.requested()?;
    // A token of a node that was removed is worth nothing.
    let node = context
        .storage
        .repo
        .get::<NodeRecord>(&nodes::key(stored.record.node)?)
        .await?
        .ok_or_else(refused)?;
    let now = context.storage.clock.now();
    if let Some(used) = &stored.record.used {
        return match repeated(used, requested.digest(), redemption.second_key) {
            Some(chain) => {
                // Whoever made the commit may not have come to tell memory.
                context.memory.node_cache.advance(node.record.clone());
                Ok(EnrolledNode { node: node.record, chain })
            }
            // Somebody has found an old token: it lets nobody in and says nothing about the node.
            None if now >= stored.record.expires => Err(refused()),
            // One token, two keys: somebody else has it. Nobody gets in until an operator looks, and the caller
            // learns nothing.
            None => {
                let why = "its join token was used with two keys";
                holds::shut_out(context, redemption.actor(), node.record.id, why).await?;
                Err(refused())
            }
        };
    }
    let is_newest = node.record.join_token.as_ref().is_none_or(|newest| *newest == redemption.token_id);
    if now >= stored.record.expires || node.record.state != NodeState::Pending || !is_newest {
        return Err(refused());
    }
    let issued = issue::agent(
        &context.identities.keyring.agent_ca,
        context.identities.fleet.fleet,
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
        report_key: Some(redemption.second_key),
        certificates: Certificates::of_enrolment(&issued, requested.digest()),
        ..node.record.with_state(NodeState::Active)
    };
    let spent = TokenRecord { used: Some(used), ..stored.record };
    let batch = context.storage.audited.batch().replace_record(key, stored.write_id, &spent)?;
    let batch = nodes::save(batch, node.write_id, &active)?;
    let leaf = AuditEntry::new(redemption.actor(), "node.enrol", format!("node/{}", active.name))
        .subject(issued.fingerprint);
    context.storage.audited.commit(batch, vec![leaf]).await?;
    context.memory.node_cache.advance(active.clone());
    Ok(EnrolledNode { node: active, chain })
}

#[cfg(test)]
mod tests {
    use fleet_certs::csr::PrivateKey;
    use fleet_types::seal::SigningKey;

    use super::*;
    use crate::service::inventory;
    use crate::testing::{StagedStore, TestContext, operator};

    async fn token(context: &Context) -> Token {
        let order = JoinOrder {
            name: "fw-a".parse().unwrap(),
            labels: Labels::default(),
            replace_labels: false,
            lifetime: Duration::ZERO,
        };
        let view = create_join_token(context, &operator(), order, "").await.unwrap();
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

    /// The reply of the first one's commit is on its way when the second one's use holds the node.
    #[tokio::test]
    async fn a_hold_between_the_commit_of_an_enrolment_and_its_entry_in_memory_stays() {
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
        let known = context.memory.node_cache.get(node).unwrap();
        assert!(matches!(known.record.state, NodeState::Held(_)), "{:?}", known.record.state);
        assert_eq!(
            inventory::check_active(&context.memory, &context.settings, node).unwrap_err().detail.code,
            holds::HELD
        );
        let stored = holds::load(&context.storage, node).await.unwrap().record;
        assert_eq!(*known.record, stored, "memory says what the store says");
    }

    #[tokio::test]
    async fn a_second_token_makes_the_first_void_and_changes_no_label_silently() {
        let test = TestContext::new().await;
        let context = &test.context;
        let ask = async |labels: &[(&str, &str)], replace_labels| {
            let pairs = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let order = JoinOrder {
                name: "fw-a".parse().unwrap(),
                labels: Labels::new(pairs).unwrap(),
                replace_labels,
                lifetime: Duration::ZERO,
            };
            create_join_token(context, &operator(), order, "").await
        };
        let stored = || context.memory.node_cache.by_name("fw-a").unwrap().record.labels.clone();
        let first = ask(&[("site", "fra1"), ("ring", "test")], false).await.unwrap();
        assert!(!first.replaces);
        let refused = ask(&[("site", "fra1")], false).await.unwrap_err().detail;
        assert_eq!(refused.code, "labels-differ");
        assert!(refused.causes[0].contains("ring=test,site=fra1; asked for is site=fra1"), "{refused:?}");
        // Nothing said about labels keeps them; said so, they are others.
        let second = ask(&[], false).await.unwrap();
        assert!(second.replaces && stored().get("ring") == Some("test"));
        let third = ask(&[("site", "ams2")], true).await.unwrap();
        assert_eq!((stored().get("site"), stored().get("ring")), (Some("ams2"), None));
        for void in [first, second] {
            let token = Token::parse(TokenKind::Node, &void.token).unwrap();
            redeem(context, &token).await.expect_err("an older token is void");
        }
        let token = Token::parse(TokenKind::Node, &third.token).unwrap();
        redeem(context, &token).await.expect("the newest one is good");
    }

    /// An old shell history, a technician who runs their line twice after a break.
    #[tokio::test]
    async fn a_used_token_holds_its_node_only_as_long_as_it_lasts() {
        let test = TestContext::new().await;
        let context = &test.context;
        let token = token(context).await;
        let node = redeem(context, &token).await.unwrap().node.id;
        let key = tokens::join_token(&token.id.to_string()).unwrap();
        let stored = context.storage.repo.get::<TokenRecord>(&key).await.unwrap().unwrap();
        let ended = TokenRecord { expires: context.storage.clock.now(), ..stored.record.clone() };
        let put = async |record: &TokenRecord| {
            let batch = context.storage.audited.batch().put_record(key.clone(), record).unwrap();
            context.storage.audited.commit(batch, vec![]).await.unwrap();
        };
        put(&ended).await;
        redeem(context, &token).await.expect_err("it has ended");
        assert!(
            inventory::check_active(&context.memory, &context.settings, node).is_ok(),
            "nothing was said about the node"
        );
        put(&stored.record).await;
        redeem(context, &token).await.expect_err("another key");
        assert_eq!(
            inventory::check_active(&context.memory, &context.settings, node).unwrap_err().detail.code,
            holds::HELD
        );
    }

    /// As after a process that ended, or lost its store's answer, between a commit and what follows in memory.
    #[tokio::test]
    async fn a_repeated_call_brings_memory_up_to_the_store() {
        let test = TestContext::new().await;
        let context = &test.context;
        let token = token(context).await;
        let node = context.memory.node_cache.by_name("fw-a").unwrap();
        let (key, second_key) = (PrivateKey::generate().unwrap(), SigningKey::generate().unwrap().0.public());
        let redeem = async || {
            let request = EnrolmentRequest {
                token_id: &token.id.to_string(),
                secret: token.secret.expose(),
                csr: &key.request().unwrap(),
                second_key,
                address: "127.0.0.1",
            };
            enrol_node(context, &request).await.unwrap()
        };
        redeem().await;
        context.memory.node_cache.put(node.clone());
        redeem().await;
        assert!(inventory::check_active(&context.memory, &context.settings, node.record.id).is_ok());
    }

    #[tokio::test]
    async fn a_node_is_held_from_the_reserve_when_space_is_short() {
        let store = std::sync::Arc::new(StagedStore::default());
        let test = TestContext::over(store.clone()).await;
        let first = token(&test.context).await;
        let node = redeem(&test.context, &first).await.unwrap().node.id;
        store.run_short();
        redeem(&test.context, &first).await.expect_err("the token is used with a second key");
        let stored = holds::load(&test.context.storage, node).await.unwrap().record;
        assert!(matches!(stored.state, NodeState::Held(_)), "{:?}", stored.state);
    }
}
