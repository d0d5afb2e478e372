//! The trust bundle: stored and handed out here, made and signed elsewhere.

use fleet_store::WriteId;
use fleet_types::trust::{MAX_FENCE_RESETS, SignedBundle, TrustBundle};
use fleet_types::view::{Done, TrustView};

use super::caller::Operator;
use super::idempotency::Once;
use super::limits;
use crate::context::{Identities, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::repo::audited::AuditEntry;
use crate::repo::fleet;
use crate::repo::reader::BatchExt as _;

/// Nodes whose reset stands in the audit record by their ids; one is published at a time.
const NAMED_RESETS: usize = 20;

/// The newest bundle.
pub fn view(identities: &Identities) -> TrustView {
    let trust = identities.trust.get();
    TrustView { schema: "fleet/v1/trust".to_owned(), version: trust.0.version, bundle: trust.1.clone() }
}

/// Takes a newer bundle that the root keys signed, and tells every connected node.
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
    let bundle = signed.open(&identities.fleet.roots, identities.fleet.fleet, next).map_err(|error| {
        ControllerError::new(Kind::Refused, "trust-refused", error.to_string())
            .fix("sign a bundle of the next version with the fleet's root key")
    })?;
    if bundle.version != next {
        return Err(version(format!("the bundle has version {}, the next one is {next}", bundle.version)));
    }
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
    limits::check_reason(reason)?;
    let resets: Vec<String> = bundle
        .fence_resets
        .iter()
        .filter(|reset| !current.fence_resets.contains(reset))
        .map(|reset| reset.node.to_string())
        .take(NAMED_RESETS)
        .collect();
    let answer = Done {
        schema: "fleet/v1/done".to_owned(),
        message: format!("trust bundle version {next} is stored and sent to connected nodes"),
    };
    let stored = serde_json::to_vec(&signed).map_err(ControllerError::internal)?;
    // Only in the place of the very bundle that this one was judged against: of two with one version the store
    // takes one, whoever writes them.
    let key = fleet::trust_bundle()?;
    let mut batch = storage.audited.batch().if_write_id(key.clone(), seen).put_object(&key, &stored)?;
    batch = once.store(storage, batch, &answer)?;
    let leaf = AuditEntry::new(caller.actor(), "trust.publish", format!("trust-bundle/{next}"))
        .subject(fleet_types::digest::Digest::of(&signed.payload))
        .detail("fence_resets", resets.join(" "))
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
    identities.trust.set(bundle, signed);
    Ok(answer)
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
    use fleet_types::audit::AuditRecord;

    use super::*;
    use crate::context::Context;
    use crate::testing::{StagedStore, TestContext, operator};

    /// The next bundle, signed; `issued` makes two of them differ.
    fn next(test: &TestContext, version: u64, issued: i64) -> Vec<u8> {
        let current = test.context.identities.trust.get().0.clone();
        let issued = fleet_types::time::Timestamp::clamped(issued);
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
}
