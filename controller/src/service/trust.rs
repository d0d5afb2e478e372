//! The trust bundle: stored and handed out here, made and signed elsewhere.

use fleet_store::WriteId;
use fleet_types::time::Timestamp;
use fleet_types::trust::{
    ContentKey, FenceReset, MAX_FENCE_RESETS, Proposal, SignedBundle, TrustBundle, TrustError,
};
use fleet_types::view::{Done, TrustView};

use super::caller::Operator;
use super::idempotency::Once;
use super::limits;
use crate::context::{Identities, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::repo::audited::AuditEntry;
use crate::repo::fleet::{self, FleetRecord};
use crate::repo::reader::BatchExt as _;

/// Nodes and people that stand in the audit record; one is published at a time.
const NAMED: usize = 20;
/// It comes with a certificate and the root keys in one answer of the enrolment port, which has 64 KiB: some 200 people, or 50
/// where a change stands on a change.
const MAX_BUNDLE_BYTES: usize = 48 * 1024;

/// The newest bundle, and the next one where it waits for signatures.
pub async fn view(storage: &Storage, identities: &Identities) -> Result<TrustView> {
    let trust = identities.trust.get();
    let proposal = proposal(storage, identities, &trust.0).await?;
    let (version, bundle) = (trust.0.version, trust.1.clone());
    Ok(TrustView { schema: "fleet/v1/trust".to_owned(), version, bundle, proposal })
}

/// What waits for signatures to come after this bundle; what was to come after an older one waits for nothing any more.
async fn proposal(
    storage: &Storage,
    identities: &Identities,
    current: &TrustBundle,
) -> Result<Option<SignedBundle>> {
    let Some(bytes) = storage.repo.object(&fleet::trust_proposal()?).await? else { return Ok(None) };
    let signed: SignedBundle = serde_json::from_slice(&bytes).map_err(ControllerError::internal)?;
    let FleetRecord { roots, fleet, .. } = &identities.fleet;
    let waits = |proposal: &Proposal| proposal.bundle.version == current.version + 1;
    Ok(signed.propose(roots, *fleet, current).ok().filter(waits).map(|_| signed))
}

/// Takes a newer bundle that the root keys signed, or security-admins to whom these leave the list of operators' keys, and
/// tells every connected node. One that lacks signatures waits for them.
pub async fn publish(
    storage: &Storage,
    identities: &Identities,
    caller: &Operator,
    bytes: &[u8],
    reason: &str,
    idempotency_key: &str,
) -> Result<Done> {
    let once = Once::new(caller, idempotency_key, "trust.publish", &[bytes])?;
    if let Some(answer) = once.answer(storage).await? {
        // Whoever made the commit may not have come to tell memory: it follows the store.
        stored(storage, identities).await?;
        return Ok(answer);
    }
    let signed: SignedBundle = fleet_proto::convert::json("trust_bundle", bytes)?;
    let (current, seen) = stored(storage, identities).await?;
    let next = current.version + 1;
    let FleetRecord { roots, fleet: id, .. } = &identities.fleet;
    let refused = |error: TrustError| {
        ControllerError::new(Kind::Refused, "trust-refused", error.to_string())
            .fix("sign a bundle of the next version, with the fleet's root key or as one of those to whom it leaves the list of operators' keys")
    };
    let Proposal { bundle, signers, needed } = signed.propose(roots, *id, &current).map_err(refused)?;
    if bundle.version != next {
        return Err(version(format!("the bundle has version {}, the next one is {next}", bundle.version)));
    }
    check(&current, &bundle)?;
    if signed.base.is_some() {
        check_time(&bundle, storage.clock.now())?;
    }
    limits::check_reason(reason)?;
    let is_complete = signers.len() >= needed;
    let answer = Done::new(if is_complete {
        format!("trust bundle version {next} is stored and sent to connected nodes")
    } else {
        format!(
            "trust bundle version {next} waits: {} of {needed} have signed it; another one: fleetctl operator approve",
            signers.len()
        )
    });
    let stored = serde_json::to_vec(&signed).map_err(ControllerError::internal)?;
    if stored.len() > MAX_BUNDLE_BYTES {
        let why =
            format!("{} bytes with what it stands on; at most {MAX_BUNDLE_BYTES} are taken", stored.len());
        return Err(ControllerError::invalid("trust_bundle", why).fix(
            "take away keys that nobody needs, or have a root key sign it: then it stands on nothing else",
        ));
    }
    // Only in the place of the very bundle that this one was judged against: of two with one version the store
    // takes one, whoever writes them.
    let key = fleet::trust_bundle()?;
    let batch = storage.audited.batch();
    let mut batch = if is_complete {
        batch.if_write_id(key.clone(), seen).put_object(&key, &stored)?
    } else {
        batch.if_write_id(key, seen).put_object(&fleet::trust_proposal()?, &stored)?
    };
    batch = once.store(storage, batch, &answer)?;
    let action = if is_complete { "trust.publish" } else { "trust.propose" };
    let leaf = AuditEntry::new(caller.actor(), action, format!("trust-bundle/{next}"))
        .subject(fleet_types::digest::Digest::of(&signed.payload))
        .detail("fence_resets", resets(&current, &bundle))
        .detail("added", people(&bundle, &current))
        .detail("taken_away", people(&current, &bundle))
        .text(reason)
        .idempotency(idempotency_key);
    match storage.audited.commit(batch, vec![leaf]).await {
        Ok(_) => {}
        Err(error) if error.kind == Kind::Conflict => {
            // The other one may have been this very call, made twice at once.
            return match once.answer(storage).await? {
                Some(answer) => Ok(answer),
                None => Err(version(format!("another bundle of version {next} was published just now"))),
            };
        }
        Err(error) => return Err(error),
    }
    if is_complete {
        identities.trust.set(bundle, signed);
    }
    Ok(answer)
}

/// What no bundle may do, whoever signed it.
fn check(current: &TrustBundle, bundle: &TrustBundle) -> Result<()> {
    // A bundle without our own authorities would cut every node off from this controller.
    let keeps = |old: &[fleet_types::trust::Authority], new: &[fleet_types::trust::Authority]| {
        old.iter().all(|authority| new.contains(authority))
    };
    if !keeps(&current.controller_authorities, &bundle.controller_authorities)
        || !keeps(&current.agent_authorities, &bundle.agent_authorities)
        || !keeps(&current.operator_authorities, &bundle.operator_authorities)
        || bundle.audit_key != current.audit_key
    {
        return Err(ControllerError::new(
            Kind::Blocked,
            "trust-drops-authority",
            "the bundle leaves out an authority or key that is in use",
        )
        .fix("rotating authorities is not built yet; keep all that the newest bundle lists"));
    }
    if bundle.fence_resets.len() > MAX_FENCE_RESETS {
        let why = format!("{} resets of fences; it keeps {MAX_FENCE_RESETS}", bundle.fence_resets.len());
        return Err(ControllerError::invalid("trust_bundle", why));
    }
    Ok(())
}

/// The bundle itself says when it was made, in the words of whoever signs; here the clock is asked.
fn check_time(bundle: &TrustBundle, now: Timestamp) -> Result<()> {
    let until = bundle.operator_key_authority.as_ref().map(|authority| authority.not_after);
    if until.is_some_and(|until| now <= until) {
        return Ok(());
    }
    let what = "the root keys' word about who changes the list of operators' keys has ended";
    Err(ControllerError::new(Kind::Blocked, "delegation-ended", what)
        .fix("a holder of the root key gives it again: fleetctl operator delegate NAME… --root-key FILE"))
}

fn resets(current: &TrustBundle, bundle: &TrustBundle) -> String {
    let is_new = |reset: &&FenceReset| !current.fence_resets.contains(reset);
    let new = bundle.fence_resets.iter().filter(is_new).map(|reset| reset.node.to_string());
    new.take(NAMED).collect::<Vec<_>>().join(" ")
}

/// People with a key in one bundle and not in the other.
fn people(of: &TrustBundle, not_of: &TrustBundle) -> String {
    let differs = |entry: &&ContentKey| !not_of.content_keys.contains(entry);
    let people = of.content_keys.iter().filter(differs).map(|entry| entry.person.to_string());
    people.take(NAMED).collect::<Vec<_>>().join(" ")
}

fn version(why: String) -> ControllerError {
    ControllerError::new(Kind::Conflict, "trust-version", why)
        .fix("fetch the newest bundle, change that, and sign it again")
}

/// The newest bundle of the store with the commit that wrote it; what is known in memory follows, because
/// another process may have written it.
async fn stored(storage: &Storage, identities: &Identities) -> Result<(TrustBundle, WriteId)> {
    let key = fleet::trust_bundle()?;
    let missing = || ControllerError::internal("there is no trust bundle in the store");
    // The version first: when another bundle comes between the two reads, the commit fails.
    let seen = storage.repo.write_id(&key).await?.ok_or_else(missing)?;
    let bytes = storage.repo.object(&key).await?.ok_or_else(missing)?;
    let signed: SignedBundle = serde_json::from_slice(&bytes).map_err(ControllerError::internal)?;
    let bundle =
        signed.open(&identities.fleet.roots, identities.fleet.fleet, 1).map_err(ControllerError::internal)?;
    identities.trust.set(bundle.clone(), signed);
    Ok((bundle, seen))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleet_types::audit::AuditRecord;
    use fleet_types::seal::SigningKey;
    use fleet_types::trust::{OperatorKeyAuthority, OperatorRole};

    use super::*;
    use crate::clock::Clock;
    use crate::context::Context;
    use crate::testing::{StagedStore, TestContext, operator};

    /// The next bundle, signed; `issued` makes two of them differ.
    fn next(test: &TestContext, version: u64, issued: i64) -> Vec<u8> {
        let current = test.context.identities.trust.get().0.clone();
        let issued = Timestamp::clamped(issued);
        let bundle = TrustBundle { version, issued, ..current };
        serde_json::to_vec(&bundle.sign(&test.root).unwrap()).unwrap()
    }

    async fn publish_leaves(context: &Context) -> usize {
        let head = crate::service::audit::bytes(&context.storage, 0, 1000).await.unwrap();
        head.iter()
            .filter(|(_, bytes)| {
                let leaf: AuditRecord = fleet_types::canonical::from_slice(bytes).unwrap();
                leaf.action == "trust.publish"
            })
            .count()
    }

    #[tokio::test]
    async fn of_two_bundles_of_one_version_at_once_one_is_taken_and_the_other_told() {
        let store = std::sync::Arc::new(StagedStore::default());
        let test = TestContext::over(store.clone()).await;
        let (a, b) = (next(&test, 2, 1_800_000_000_000), next(&test, 2, 1_800_000_000_001));
        store.meet(2);
        let ada = operator();
        let (first, second) = tokio::join!(
            publish(&test.context.storage, &test.context.identities, &ada, &a, "", "a"),
            publish(&test.context.storage, &test.context.identities, &ada, &b, "", "b")
        );
        let (won, lost) = match (&first, &second) {
            (Ok(_), Err(lost)) => (a, lost),
            (Err(lost), Ok(_)) => (b, lost),
            both => panic!("one of them: {both:?}"),
        };
        assert_eq!((lost.kind, lost.detail.code.as_str()), (Kind::Conflict, "trust-version"), "{lost}");
        assert_eq!(
            test.context.storage.repo.object(&fleet::trust_bundle().unwrap()).await.unwrap(),
            Some(won.clone())
        );
        let known = serde_json::to_vec(&test.context.identities.trust.get().1).unwrap();
        assert_eq!(known, won, "memory holds what the store holds");
        assert_eq!(publish_leaves(&test.context).await, 1);
    }

    #[tokio::test]
    async fn the_same_call_twice_at_once_has_one_effect_and_one_answer() {
        let store = std::sync::Arc::new(StagedStore::default());
        let test = TestContext::over(store.clone()).await;
        let a = next(&test, 2, 1_800_000_000_000);
        store.meet(2);
        let ada = operator();
        let (first, second) = tokio::join!(
            publish(&test.context.storage, &test.context.identities, &ada, &a, "", "a"),
            publish(&test.context.storage, &test.context.identities, &ada, &a, "", "a")
        );
        assert_eq!(first.unwrap(), second.unwrap());
        assert_eq!(publish_leaves(&test.context).await, 1);
    }

    #[tokio::test]
    async fn a_repeated_call_brings_memory_up_to_the_store() {
        let store = std::sync::Arc::new(StagedStore::default());
        let test = TestContext::over(store.clone()).await;
        let (bundle, ada) = (next(&test, 2, 1), operator());
        let held = store.hold_next();
        tokio::select! {
            _ = publish(&test.context.storage, &test.context.identities, &ada, &bundle, "", "a") => panic!("its answer is held back"),
            written = held.written => written.unwrap(),
        }
        assert_eq!(test.context.identities.trust.get().0.version, 1, "the caller went away in between");
        publish(&test.context.storage, &test.context.identities, &ada, &bundle, "", "a").await.unwrap();
        assert_eq!(test.context.identities.trust.get().0.version, 2);
    }

    #[tokio::test]
    async fn what_another_process_published_is_built_upon_and_memory_never_goes_back() {
        let test = TestContext::new().await;
        let before = test.context.identities.trust.get();
        publish(&test.context.storage, &test.context.identities, &operator(), &next(&test, 2, 1), "", "")
            .await
            .unwrap();
        // As in a process that has not heard of it.
        let context = &test.context;
        context.identities.trust.set(before.0.clone(), before.1.clone());
        assert_eq!(context.identities.trust.get().0.version, 2, "an older bundle takes no newer one's place");
        let refused = publish(&context.storage, &context.identities, &operator(), &next(&test, 2, 2), "", "")
            .await
            .unwrap_err();
        assert!(matches!(refused.detail.code.as_str(), "trust-refused" | "trust-version"), "{refused}");
        publish(&context.storage, &context.identities, &operator(), &next(&test, 3, 3), "", "")
            .await
            .unwrap();
        assert_eq!(context.identities.trust.get().0.version, 3);
    }

    #[tokio::test]
    async fn a_reset_of_a_fence_is_audited_and_lets_its_node_in_until_it_knows() {
        let test = TestContext::new().await;
        let context = &test.context;
        let node = crate::testing::agent(1).node;
        let hello = |bundle_version| {
            let hello = fleet_proto::pb::Hello {
                protocol_min: 1,
                protocol_max: 1,
                generation_seen: 900,
                facts: fleet_proto::convert::to_json(&fleet_types::facts::NodeFacts::default()),
                bundle_version,
                ..Default::default()
            };
            let body = Some(fleet_proto::pb::agent_message::Body::Hello(hello));
            let message = fleet_proto::pb::AgentMessage { seq: 1, link_epoch: 0, body };
            crate::edge::session::hello::read(&context.identities, node, message).is_ok()
        };
        let bundle = context.identities.trust.get().0.clone();
        assert!(!hello(bundle.version), "a node that has seen a newer store");
        let reset = bundle.clone().with_fence_reset(node, bundle.issued).sign(&test.root).unwrap();
        let bytes = fleet_proto::convert::to_json(&reset);
        let ada = operator();
        publish(&context.storage, &context.identities, &ada, &bytes, "stolen", "").await.unwrap();
        assert!(hello(bundle.version) && !hello(bundle.version + 1));
        let leaves = crate::testing::leaves(context, "trust.publish").await;
        assert_eq!(leaves[0].detail.get("fence_resets"), Some(&node.to_string()));
        assert!(leaves[0].text.is_some(), "why");
    }

    /// The root key leaves the list to two security-admins; one of them adds bob.
    async fn delegated(test: &TestContext) -> ([SigningKey; 2], SignedBundle) {
        let context = &test.context;
        let key = || SigningKey::generate().unwrap().0;
        let admins = [key(), key()];
        let entry = |key: &SigningKey, person: &str, role| ContentKey {
            key: key.public(),
            operator: operator().record.id,
            person: person.parse().unwrap(),
            role,
        };
        let current = context.identities.trust.get().0.clone();
        let now = context.storage.clock.now().max(current.issued);
        let keys = admins.iter().map(|key| entry(key, "ada", OperatorRole::SecurityAdmin)).collect();
        let mut first = current.with_content_keys(keys, now);
        first.operator_key_authority = Some(OperatorKeyAuthority {
            keys: admins.iter().map(|key| key.public().id()).collect(),
            threshold: 2,
            not_after: now.plus(Duration::from_hours(24)),
        });
        let signed = first.sign(&test.root).unwrap();
        publish_as(context, &signed, "").await.unwrap();
        let bob = entry(&key(), "bob", OperatorRole::Operator);
        let keys = first.content_keys.iter().cloned().chain([bob]).collect();
        let mut change = first.with_content_keys(keys, now).sign(&admins[0]).unwrap();
        change.base = Some(Box::new(signed));
        (admins, change)
    }

    async fn publish_as(context: &Context, signed: &SignedBundle, key: &str) -> Result<Done> {
        let bytes = fleet_proto::convert::to_json(signed);
        publish(&context.storage, &context.identities, &operator(), &bytes, "", key).await
    }

    #[tokio::test]
    async fn a_change_waits_for_its_second_signature_and_no_longer_than_it_is_the_next_one() {
        let test = TestContext::new().await;
        let context = &test.context;
        let (admins, change) = delegated(&test).await;
        let waiting = async || view(&context.storage, &context.identities).await.unwrap().proposal;
        let answer = publish_as(context, &change, "").await.unwrap();
        assert!(answer.message.contains("waits: 1 of 2"), "{}", answer.message);
        assert_eq!((waiting().await, context.identities.trust.get().0.version), (Some(change.clone()), 2));
        let leaf = crate::testing::leaves(context, "trust.propose").await.remove(0);
        assert_eq!(leaf.detail.get("added").map(String::as_str), Some("bob"));
        let mut complete = change.clone();
        let opened: TrustBundle = fleet_types::canonical::from_signed(&change.payload).unwrap();
        complete.signatures.extend(opened.sign(&admins[1]).unwrap().signatures);
        publish_as(context, &complete, "").await.unwrap();
        assert_eq!((waiting().await, context.identities.trust.get().0.version), (None, 3));
        assert_eq!(context.identities.trust.get().0.content_keys.len(), 3);
    }

    #[tokio::test]
    async fn when_the_root_keys_word_has_ended_nobody_changes_the_list() {
        let clock = Clock::manual(Timestamp::clamped(1_795_000_000_000));
        let test = TestContext::at(std::sync::Arc::new(StagedStore::default()), clock).await;
        let context = &test.context;
        let (_, change) = delegated(&test).await;
        context.storage.clock.set(context.storage.clock.now().plus(Duration::from_hours(25)));
        let refused = publish_as(context, &change, "").await.unwrap_err();
        assert_eq!(refused.detail.code, "delegation-ended", "whatever the bundle says of its age");
        assert_eq!(context.identities.trust.get().0.version, 2);
    }

    #[tokio::test]
    async fn a_bundle_that_no_node_could_be_given_is_refused() {
        let test = TestContext::new().await;
        let current = test.context.identities.trust.get().0.clone();
        let people = (0..300).map(|n| ContentKey {
            key: SigningKey::generate().unwrap().0.public(),
            operator: operator().record.id,
            person: format!("p{n}").parse().unwrap(),
            role: OperatorRole::Operator,
        });
        let issued = current.issued;
        let signed = current.with_content_keys(people.collect(), issued).sign(&test.root).unwrap();
        let refused = publish_as(&test.context, &signed, "").await.unwrap_err();
        assert!(refused.to_string().contains("at most"), "{refused}");
    }
}
