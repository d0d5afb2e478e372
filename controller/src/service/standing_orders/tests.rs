//! Which orders are taken, and what stands after it.

use std::sync::Arc;
use std::time::Duration;

use fleet_store::MemoryStore;
use fleet_types::digest::Digest;
use fleet_types::time::Timestamp;
use fleet_types::trust::OperatorRole;
use serde_json::json;

use super::*;
use crate::clock::Clock;
use crate::testing::{Applied, Signer, TestContext, file, leaves};

struct World {
    test: TestContext,
    signer: Signer,
    applied: Applied,
}

impl World {
    async fn new() -> Self {
        let clock = Clock::manual(Timestamp::clamped(1_800_000_000_000));
        let test = TestContext::at(Arc::new(MemoryStore::new()), clock).await;
        let signer = Signer::listed(&test.context, OperatorRole::Operator);
        let schedules =
            [json!({"id": "daily"}), json!({"id": "weekly"}), json!({"id": "off", "enabled": false})];
        let applied = Applied::new(&test.context, &signer, &schedules).await;
        Self { test, signer, applied }
    }

    fn context(&self) -> &Context {
        &self.test.context
    }

    fn order(&self, schedule: &str) -> StandingOrder {
        self.applied.order(self.context(), schedule)
    }

    async fn send(&self, orders: &[StandingOrder], key: &str) -> Result<AuthoriseView> {
        let seal = |order| self.signer.seal(self.context(), SealKind::StandingOrder, order);
        let orders: Vec<Envelope> = orders.iter().map(seal).collect();
        let call = Call { file: &"edge".parse().unwrap(), orders: &orders, idempotency_key: key };
        authorise(self.context(), &self.signer.caller, call).await
    }

    /// What stands, by schedule, with the end of each.
    async fn standing(&self) -> Vec<(String, Timestamp)> {
        let all = kept::all(&self.context().storage.repo).await.unwrap();
        all.into_iter().map(|one| (one.record.schedule(), one.record.order.not_after)).collect()
    }
}

fn words(view: &AuthoriseView) -> Vec<(&str, &str)> {
    view.items.iter().map(|item| (item.schedule.as_str(), item.what.as_str())).collect()
}

#[tokio::test]
async fn orders_of_a_file_are_taken_together_once_and_with_their_leaves() {
    let world = World::new().await;
    let orders = [world.order("daily"), world.order("weekly")];
    let view = world.send(&orders, "first").await.unwrap();
    assert_eq!(words(&view), [("daily", "authorised"), ("weekly", "authorised")]);
    assert_eq!(world.send(&orders, "first").await.unwrap(), view, "the same call has the same answer");
    let again = world.send(&orders, "second").await.unwrap();
    assert_eq!(words(&again), [("daily", "unchanged"), ("weekly", "unchanged")]);
    let end = orders[0].not_after;
    assert_eq!(world.standing().await, [("edge/daily".to_owned(), end), ("edge/weekly".to_owned(), end)]);
    let leaves = leaves(world.context(), "schedule.authorise").await;
    assert_eq!(leaves.len(), 2);
    assert_eq!((leaves[0].object.as_str(), leaves[0].actor.name.as_str()), ("schedule/edge/daily", "ada"));
    assert_eq!(leaves[0].detail["procedure"], "look revision 1");
    // What was signed can be fetched by its digest, whatever takes its place.
    let shorter =
        StandingOrder { not_after: end.plus(Duration::ZERO), max_parallel: 1, ..world.order("daily") };
    assert_eq!(words(&world.send(&[shorter], "").await.unwrap()), [("daily", "authorised")]);
    let first = leaves[0].subject_digest.unwrap();
    let stored = documents::envelope(&world.context().storage, first).await.unwrap();
    assert_eq!(canonical::from_signed::<StandingOrder>(&stored.payload).unwrap(), orders[0]);
}

#[tokio::test]
async fn what_cannot_stand_is_named_and_the_others_are_taken() {
    let world = World::new().await;
    let good = world.order("daily");
    for (bad, expected) in [
        (world.order("off"), "not enabled"),
        (world.order("none"), "has no \"none\""),
        (StandingOrder { procedure: Digest::of(b"other"), ..world.order("weekly") }, "does not exist"),
        (StandingOrder { procedure_revision: 2, ..world.order("weekly") }, "2 is not the number"),
        (StandingOrder { selector: String::new(), ..world.order("weekly") }, "is signed for"),
        (
            StandingOrder { rollout_policy: Some(Digest::of(b"none")), ..world.order("weekly") },
            "was never applied",
        ),
    ] {
        let schedule = bad.schedule.to_string();
        let view = world.send(&[good.clone(), bad], "").await.unwrap();
        let [_, refused] = &view.items[..] else { panic!("{view:?}") };
        assert_eq!((refused.schedule.as_str(), refused.what), (schedule.as_str(), Authorised::Refused));
        assert!(refused.why[0].contains(expected), "{expected}: {refused:?}");
        assert_eq!(world.standing().await.len(), 1);
    }
}

#[tokio::test]
async fn a_call_is_refused_whole_that_is_not_the_callers_or_of_another_time_or_file() {
    let world = World::new().await;
    let context = world.context();
    let (order, hour) = (world.order("daily"), Duration::from_hours(1));
    let begins = |not_before| StandingOrder { not_before, ..world.order("daily") };
    for (bad, code) in [
        (vec![order.clone(), order.clone()], "invalid-argument"),
        (vec![StandingOrder { file: Digest::of(b"other"), ..order.clone() }], "schedules-changed"),
        (vec![StandingOrder { file_revision: 2, ..order.clone() }], "schedules-changed"),
        (vec![StandingOrder { max_parallel: 0, ..order.clone() }], "invalid-argument"),
        (vec![begins(order.not_before.plus(hour * 2))], "invalid-argument"),
        (vec![StandingOrder { selector: "x".repeat(3000), ..order.clone() }], "invalid-argument"),
    ] {
        let error = world.send(&bad, "").await.unwrap_err();
        assert_eq!(error.detail.code, code, "{error}");
    }
    // Of another kind, with somebody else's key, and with one that may not sign.
    let name = "edge".parse().unwrap();
    let document = [world.signer.seal(context, SealKind::Document, &order)];
    let other = Signer::listed(context, OperatorRole::Operator);
    let foreign = [other.seal(context, SealKind::StandingOrder, &order)];
    for (orders, role, code) in [
        (&document, OperatorRole::Operator, "signature-refused"),
        (&foreign, OperatorRole::Operator, "foreign-signature"),
        (
            &[world.signer.seal(context, SealKind::StandingOrder, &order)],
            OperatorRole::Viewer,
            "signature-refused",
        ),
    ] {
        world.signer.list(context, Some(role));
        let call = Call { file: &name, orders, idempotency_key: "" };
        let error = authorise(context, &world.signer.caller, call).await.unwrap_err();
        assert_eq!(error.detail.code, code, "{error}");
    }
    world.signer.list(context, Some(OperatorRole::Operator));
    world.send(std::slice::from_ref(&order), "").await.unwrap();
    context.storage.clock.set(order.not_before.plus(hour * 2));
    let late = world.send(&[order], "").await.unwrap_err();
    assert!(late.to_string().contains("does not begin now"), "an old one is not sent again: {late}");
}

#[tokio::test]
async fn schedules_that_are_gone_from_the_newest_file_lose_their_orders() {
    let mut world = World::new().await;
    world.send(&[world.order("daily"), world.order("weekly")], "").await.unwrap();
    let next = file(&[json!({"id": "daily"}), json!({"id": "weekly", "enabled": false})]);
    world.applied.file = world.signer.apply(world.context(), next).await;
    let view = world.send(&[world.order("daily")], "").await.unwrap();
    assert_eq!(words(&view), [("daily", "authorised"), ("weekly", "withdrawn")]);
    world.applied.file = world.signer.apply(world.context(), file(&[])).await;
    let view = world.send(&[], "").await.unwrap();
    assert_eq!(words(&view), [("daily", "withdrawn")]);
    assert_eq!(world.standing().await, []);
    let leaves = leaves(world.context(), "schedule.withdraw").await;
    let objects: Vec<&str> = leaves.iter().map(|leaf| leaf.object.as_str()).collect();
    assert_eq!(objects, ["schedule/edge/weekly", "schedule/edge/daily"]);
    let unknown = Call { file: &"nobody".parse().unwrap(), orders: &[], idempotency_key: "" };
    let error = authorise(world.context(), &world.signer.caller, unknown).await.unwrap_err();
    assert_eq!(error.detail.code, "not-found");
}

#[tokio::test]
async fn an_order_goes_when_its_end_is_long_past_and_what_was_signed_stays() {
    let world = World::new().await;
    let context = world.context();
    let (order, day) = (world.order("daily"), Duration::from_hours(24));
    world.send(std::slice::from_ref(&order), "").await.unwrap();
    let digest = kept::all(&context.storage.repo).await.unwrap()[0].record.digest;
    for (days, left) in [(0, 1), (89, 1), (90, 0)] {
        context.storage.clock.set(order.not_after.plus(day * days));
        crate::service::retention::sweep(&context.storage, &context.files).await.unwrap();
        assert_eq!(world.standing().await.len(), left, "{days} days after its end");
    }
    assert!(documents::envelope(&context.storage, digest).await.is_ok());
}
