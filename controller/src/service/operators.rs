//! How people come into the fleet, and who they are: invites, their redemption, the list.
//!
//! An invite lets one person in, under the name and with the role that a security-admin gave it. Whether nodes take what
//! they sign is not said here: their content key is listed by the trust bundle, which nobody here can make. Called by
//! the edges.

use std::time::Duration;

use fleet_certs::Role;
use fleet_certs::issue;
use fleet_certs::token::{Token, TokenKind};
use fleet_store::{Batch, WriteId};
use fleet_types::id::{Name, OperatorId};
use fleet_types::trust::OperatorRole;
use fleet_types::view::{Attention, InviteView, OperatorItem, OperatorState, Page};

use super::caller::Operator;
use super::enrolment::{EnrolmentRequest, chain_bytes, refused, repeated};
use super::idempotency::Once;
use super::{limits, trust};
use crate::context::{Context, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::repo::audited::AuditEntry;
use crate::repo::certificates::{self, Certificates, RevokedRecord};
use crate::repo::operators::{self, OperatorPointer, OperatorRecord};
use crate::repo::reader::{BatchExt as _, Stored};
use crate::repo::tokens::{self, InviteRecord, UsedToken};

/// As long as a join token: an invite is handed over today (security-and-delivery §1.6).
pub const MAX_INVITE_LIFE: Duration = Duration::from_hours(24);
/// A fleet has a few hundred people at most: each of them is in memory, and asked for on every call.
const MAX_OPERATORS: usize = 1_000;

/// Whom a security-admin lets in.
pub struct Invitation {
    /// The name that they will have.
    pub name: Name,
    /// Their role.
    pub role: OperatorRole,
    /// How long the invite is good for; zero means as long as may be.
    pub lifetime: Duration,
    /// Why.
    pub reason: String,
}

/// Makes an invite. An older one for the same name is void from then on.
pub async fn invite(
    context: &Context,
    caller: &Operator,
    order: Invitation,
    idempotency_key: &str,
) -> Result<InviteView> {
    let Invitation { name, role, lifetime, reason } = order;
    limits::check_reason(&reason)?;
    let lifetime = if lifetime.is_zero() { MAX_INVITE_LIFE } else { lifetime };
    if lifetime > MAX_INVITE_LIFE {
        return Err(ControllerError::invalid("lifetime", "an invite lives at most 24h"));
    }
    let seconds = lifetime.as_secs().to_be_bytes();
    let arguments: [&[u8]; 4] =
        [name.as_str().as_bytes(), role.as_str().as_bytes(), &seconds, reason.as_bytes()];
    let once = Once::new(caller, idempotency_key, "operator.invite", &arguments)?;
    let storage = &context.storage;
    if let Some(answer) = once.answer(storage).await? {
        return Ok(answer);
    }
    if name_in_use(storage, &name).await?.is_some_and(|known| !known.is_revoked) {
        let what = format!("there is an operator \"{name}\"");
        return Err(ControllerError::new(Kind::Conflict, "operator-exists", what).fix(format!(
            "a second machine of theirs wants a name of its own, such as {name}-laptop; who has lost their keys is revoked first: fleetctl operator revoke {name}"
        )));
    }
    if context.identities.operators.all().len() >= MAX_OPERATORS {
        let what = format!("there are {MAX_OPERATORS} operators, which is as many as a controller knows");
        return Err(ControllerError::new(Kind::Blocked, "too-many-operators", what)
            .fix("look at them: fleetctl operator list"));
    }
    let pin = context.identities.keyring.controller_ca.pin();
    let token = Token::generate(TokenKind::Operator, vec![pin], context.identities.fleet.roots.pin())
        .map_err(ControllerError::internal)?;
    let (mut batch, mut replaces) = (storage.audited.batch(), false);
    for (key, before) in storage.repo.all::<InviteRecord>(tokens::INVITES).await? {
        if before.record.name == name && before.record.used.is_none() {
            batch = batch.remove(key, before.write_id);
            replaces = true;
        }
    }
    let expires = storage.clock.now().plus(lifetime);
    let secret_hash = token.secret.stored(TokenKind::Operator, token.id);
    let record = InviteRecord { name: name.clone(), role, secret_hash, expires, used: None, operator: None };
    batch = batch.create_record(tokens::invite(&token.id.to_string())?, &record)?;
    let view = InviteView {
        schema: "fleet/v1/invite".to_owned(),
        invite: token.expose(),
        name: name.clone(),
        role,
        expires,
        replaces,
    };
    // The stored answer must not hold the secret: a repeated call is told so instead.
    let remembered = InviteView { invite: "shown once; make a new one".to_owned(), ..view.clone() };
    batch = once.store(storage, batch, &remembered)?;
    let leaf = AuditEntry::new(caller.actor(), "operator.invite", format!("operator/{name}"))
        .detail("role", role.as_str())
        .text(&reason)
        .idempotency(idempotency_key);
    storage.audited.commit(batch, vec![leaf]).await?;
    Ok(view)
}

/// Who has a name.
struct Named {
    pointer: Stored<OperatorPointer>,
    is_revoked: bool,
}

async fn name_in_use(storage: &Storage, name: &Name) -> Result<Option<Named>> {
    let key = operators::name(name.as_str())?;
    let Some(pointer) = storage.repo.get::<OperatorPointer>(&key).await? else { return Ok(None) };
    let revoked = certificates::revoked(Role::Operator, *pointer.record.operator.as_uuid())?;
    let is_revoked = storage.repo.get::<RevokedRecord>(&revoked).await?.is_some();
    Ok(Some(Named { pointer, is_revoked }))
}

/// A redeemed invite.
#[derive(Debug, Clone)]
pub struct EnrolledOperator {
    /// The operator's record.
    pub operator: OperatorRecord,
    /// Leaf first, DER.
    pub chain: Vec<Vec<u8>>,
}

/// A person redeems an invite.
pub async fn enrol(context: &Context, redemption: &EnrolmentRequest<'_>) -> Result<EnrolledOperator> {
    let (id, secret) = redemption.token()?;
    let key = tokens::invite(&id.to_string())?;
    let storage = &context.storage;
    let stored = storage.repo.get::<InviteRecord>(&key).await?.ok_or_else(refused)?;
    if !secret.matches(TokenKind::Operator, id, stored.record.secret_hash) {
        return Err(refused());
    }
    let requested = redemption.requested()?;
    if let (Some(used), Some(operator)) = (&stored.record.used, stored.record.operator) {
        let chain = repeated(used, requested.digest(), redemption.second_key).ok_or_else(|| {
            tracing::error!(invite = %id, address = redemption.address, "an invite was used with two keys");
            refused()
        })?;
        let stored = storage.repo.get::<OperatorRecord>(&operators::key(operator)?).await?;
        let operator = stored.ok_or_else(refused)?.record;
        context.identities.operators.put(operator.clone());
        return Ok(EnrolledOperator { operator, chain });
    }
    let now = storage.clock.now();
    if now >= stored.record.expires {
        return Err(refused());
    }
    let operator_id = OperatorId::from_uuid(storage.clock.uuid());
    let issued = issue::operator(
        &context.identities.keyring.operator_ca,
        context.identities.fleet.fleet,
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
        certificates: Certificates::of_enrolment(&issued, requested.digest()),
        created: now,
    };
    let used = UsedToken {
        public_key: requested.digest(),
        second_key: redemption.second_key,
        chain: chain.iter().cloned().map(tokens::Bytes).collect(),
        at: now,
    };
    let invite = InviteRecord { used: Some(used), operator: Some(operator_id), ..stored.record };
    let batch = storage.audited.batch().replace_record(key, stored.write_id, &invite)?;
    let batch = create(storage, batch, &operator).await?;
    let leaf = AuditEntry::new(redemption.actor(), "operator.enrol", format!("operator/{}", operator.name))
        .subject(issued.fingerprint);
    storage.audited.commit(batch, vec![leaf]).await?;
    context.identities.operators.put(operator.clone());
    Ok(EnrolledOperator { operator, chain })
}

/// Writes somebody who is new. The name of a person who was revoked is free: it is theirs when they come back.
async fn create(storage: &Storage, batch: Batch, operator: &OperatorRecord) -> Result<Batch> {
    let taken: Option<WriteId> = match name_in_use(storage, &operator.name).await? {
        Some(named) if named.is_revoked => Some(named.pointer.write_id),
        Some(_) => return Err(refused()),
        None => None,
    };
    operators::create(batch, taken, operator)
}

/// Everybody, by name: those who were invited and have not come too.
pub async fn list(context: &Context) -> Result<Page<OperatorItem>> {
    let now = context.storage.clock.now();
    let (denied, trust) = (context.identities.denied.get(), context.identities.trust.get());
    let mut items: Vec<OperatorItem> = context
        .identities
        .operators
        .all()
        .into_iter()
        .map(|record| OperatorItem {
            name: record.name.clone(),
            id: Some(record.id),
            role: record.role,
            state: if denied.operators.contains(&record.id) {
                OperatorState::Revoked
            } else {
                OperatorState::Active
            },
            content_key: Some(record.content_key),
            is_listed: trust.0.content_key(&record.content_key.id()).is_some(),
            since: Some(record.created),
            until: record.certificates.end(),
        })
        .collect();
    for (_, stored) in context.storage.repo.all::<InviteRecord>(tokens::INVITES).await? {
        let InviteRecord { name, role, expires, used, .. } = stored.record;
        if used.is_none() && now < expires {
            items.push(OperatorItem {
                name,
                id: None,
                role,
                state: OperatorState::Invited,
                content_key: None,
                is_listed: false,
                since: None,
                until: Some(expires),
            });
        }
    }
    items.sort_by(|a, b| (&a.name, a.since).cmp(&(&b.name, b.since)));
    Ok(Page { schema: "fleet/v1/operator-list".to_owned(), items, next: None })
}

/// Long enough before its end for a holder of the root key to come.
const WARN_BEFORE_END: Duration = Duration::from_hours(14 * 24);

/// What is to be said about people: whose word still counts and should not, what waits for a signature, what ends.
pub async fn attention(context: &Context) -> Result<Vec<Attention>> {
    let now = context.storage.clock.now();
    let denied = context.identities.denied.get();
    let trust = trust::view(&context.storage, &context.identities).await?;
    let bundle = &context.identities.trust.get().0;
    let gone = bundle.content_keys.iter().filter(|entry| denied.operators.contains(&entry.operator));
    let mut lines: Vec<Attention> = gone
        .map(|entry| Attention {
            subject: format!("operator {}", entry.person),
            message: "is revoked, and nodes still take what they signed".to_owned(),
            command: format!("fleetctl operator revoke {}", entry.person),
        })
        .collect();
    if trust.proposal.is_some() {
        lines.push(Attention {
            subject: "operators' keys".to_owned(),
            message: "a change of whose signatures nodes take waits for another signature".to_owned(),
            command: "fleetctl operator approve".to_owned(),
        });
    }
    let until = bundle.operator_key_authority.as_ref().map(|authority| authority.not_after);
    if let Some(until) = until.filter(|until| until.since(now) <= WARN_BEFORE_END) {
        let word = if until <= now { "ended" } else { "ends" };
        lines.push(Attention {
            subject: "operators' keys".to_owned(),
            message: format!("the word of the root keys about who changes the list {word} {until}"),
            command: "fleetctl operator list".to_owned(),
        });
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fleet_certs::csr::PrivateKey;
    use fleet_types::seal::SigningKey;
    use fleet_types::time::Timestamp;
    use fleet_types::trust::ContentKey;

    use super::*;
    use crate::clock::Clock;
    use crate::service::revocation::{self, Order};
    use crate::testing::{StagedStore, TestContext, leaves, operator};

    async fn standing_still() -> TestContext {
        let clock = Clock::manual(Timestamp::clamped(1_795_000_000_000));
        TestContext::at(Arc::new(StagedStore::default()), clock).await
    }

    fn bob(lifetime: Duration) -> Invitation {
        let (name, reason) = ("bob".parse().unwrap(), "new colleague".to_owned());
        Invitation { name, role: OperatorRole::Operator, lifetime, reason }
    }

    async fn invited(context: &Context) -> Token {
        let view = invite(context, &operator(), bob(Duration::ZERO), "").await.unwrap();
        Token::parse(TokenKind::Operator, &view.invite).unwrap()
    }

    async fn redeem(context: &Context, token: &Token) -> Result<EnrolledOperator> {
        let request = EnrolmentRequest {
            token_id: &token.id.to_string(),
            secret: token.secret.expose(),
            csr: &PrivateKey::generate().unwrap().request().unwrap(),
            second_key: SigningKey::generate().unwrap().0.public(),
            address: "127.0.0.1",
        };
        enrol(context, &request).await
    }

    async fn states(context: &Context) -> Vec<(String, OperatorState)> {
        let page = list(context).await.unwrap();
        // The fleet's first operator has an invite as well.
        let others = page.items.into_iter().filter(|item| item.name.as_str() != "ada");
        others.map(|item| (item.name.to_string(), item.state)).collect()
    }

    #[tokio::test]
    async fn an_invite_lets_one_person_in_once_and_the_newest_one_alone() {
        let test = TestContext::new().await;
        let context = &test.context;
        let (older, newer) = (invited(context).await, invited(context).await);
        redeem(context, &older).await.expect_err("it is void");
        assert_eq!(states(context).await, [("bob".to_owned(), OperatorState::Invited)]);
        let enrolled = redeem(context, &newer).await.unwrap();
        assert_eq!(
            (enrolled.operator.name.as_str(), enrolled.operator.role),
            ("bob", OperatorRole::Operator)
        );
        redeem(context, &newer).await.expect_err("it is used");
        assert_eq!(states(context).await, [("bob".to_owned(), OperatorState::Active)]);
        let again = invite(context, &operator(), bob(Duration::ZERO), "").await.unwrap_err();
        assert_eq!(again.detail.code, "operator-exists");
        let told = leaves(context, "operator.invite").await.into_iter();
        assert_eq!(told.filter(|leaf| leaf.object == "operator/bob").count(), 2);
    }

    #[tokio::test]
    async fn who_was_revoked_comes_back_under_their_name_as_somebody_new() {
        let test = TestContext::new().await;
        let context = &test.context;
        let first = invited(context).await;
        let before = redeem(context, &first).await.unwrap().operator;
        let holder = "operator/bob".parse().unwrap();
        let order =
            Order { caller: &operator(), holder: &holder, reason: "lost laptop", idempotency_key: "" };
        revocation::revoke(context, &order).await.unwrap();
        let token = invited(context).await;
        let after = redeem(context, &token).await.unwrap().operator;
        assert_ne!(before.id, after.id);
        assert_eq!(attention(context).await.unwrap(), [], "no key of bob is listed");
        let (bundle, signed) = (*context.identities.trust.get()).clone();
        let entry = ContentKey {
            key: before.content_key,
            operator: before.id,
            person: before.name.clone(),
            role: before.role,
        };
        let next = bundle.clone().with_content_keys(vec![entry], bundle.issued);
        context.identities.trust.set(next, signed);
        let lines = attention(context).await.unwrap();
        assert!(lines.len() == 1 && lines[0].command == "fleetctl operator revoke bob", "{lines:?}");
        let expected =
            [("bob".to_owned(), OperatorState::Revoked), ("bob".to_owned(), OperatorState::Active)];
        assert_eq!(states(context).await, expected);
        assert!(context.identities.denied.get().operators.contains(&before.id));
    }

    #[tokio::test]
    async fn an_invite_has_an_end_and_its_secret_is_shown_once() {
        let test = standing_still().await;
        let context = &test.context;
        let long = bob(MAX_INVITE_LIFE + Duration::from_secs(1));
        assert!(invite(context, &operator(), long, "").await.is_err());
        let once = invite(context, &operator(), bob(Duration::from_mins(10)), "key").await.unwrap();
        let again = invite(context, &operator(), bob(Duration::from_mins(10)), "key").await.unwrap();
        assert!(again.invite.starts_with("shown once") && again.expires == once.expires, "{again:?}");
        let token = Token::parse(TokenKind::Operator, &once.invite).unwrap();
        context.storage.clock.set(once.expires);
        redeem(context, &token).await.expect_err("its time is over");
        assert_eq!(states(context).await, []);
    }
}
