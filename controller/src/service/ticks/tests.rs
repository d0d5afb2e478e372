//! What fires, what is written with it, and what does not fire.

use std::sync::Arc;
use std::time::Duration;

use fleet_store::MemoryStore;
use fleet_types::request::Request;
use fleet_types::standing_order::StandingOrder;
use fleet_types::trust::OperatorRole;
use serde_json::json;

use super::*;
use crate::clock::Clock;
use crate::repo::codec::Mark;
use crate::repo::reader::BatchExt as _;
use crate::repo::runs::{self, RunRecord};
use crate::service::standing_orders::{Call, authorise};
use crate::testing::{Applied, Signer, TestContext, agent, enrolled, file, leaves};

struct World {
    test: TestContext,
    signer: Signer,
    order: OrderRecord,
    nodes: Vec<NodeId>,
    at: Timestamp,
}

impl World {
    async fn new() -> Self {
        let at = Timestamp::clamped(1_800_000_000_000);
        let test = TestContext::at(Arc::new(MemoryStore::new()), Clock::manual(at)).await;
        let context = &test.context;
        let signer = Signer::listed(context, OperatorRole::Operator);
        let applied = Applied::new(context, &signer, &[json!({"id": "daily"})]).await;
        let order = applied.order(context, "daily");
        let sealed = [signer.seal(context, SealKind::StandingOrder, &order)];
        let call = Call { file: &"edge".parse().unwrap(), orders: &sealed, idempotency_key: "" };
        authorise(context, &signer.caller, call).await.unwrap();
        let order = kept::all(&context.storage.repo).await.unwrap().remove(0).record;
        let nodes = vec![enrolled(context, 1).await.node, enrolled(context, 2).await.node];
        Self { test, signer, order, nodes, at }
    }

    fn context(&self) -> &Context {
        &self.test.context
    }

    fn firing(&self) -> Firing<'_> {
        let not_after = self.at.plus(Duration::from_hours(2));
        Firing { at: self.at, nodes: &self.nodes, not_before: self.at, not_after }
    }

    async fn refused(&self, firing: Firing<'_>) -> String {
        let fired = fire(self.context(), &self.order, firing, |batch, _| Ok(batch)).await;
        assert_eq!(leaves(self.context(), "run.start").await.len(), 0, "nothing is written");
        fired.unwrap_err().detail.code.clone()
    }
}

#[tokio::test]
async fn a_tick_makes_the_run_that_its_order_allows_with_its_own_record() {
    let world = World::new().await;
    let storage = &world.context().storage;
    let mark = fleet_store::Key::new(b"test/tick".to_vec()).unwrap();
    let more = |batch: Batch, _| batch.create_record(mark.clone(), &Mark {});
    let run = fire(world.context(), &world.order, world.firing(), more).await.unwrap();
    let record = storage.repo.get::<RunRecord>(&runs::key(run).unwrap()).await.unwrap().unwrap().record;
    assert_eq!((record.started_by.as_str(), record.tally.nodes), ("schedule edge/daily", 2));
    assert_eq!(record.schedule.as_ref().unwrap().at, world.at);
    // What nodes fetch is what they make of the order themselves.
    let sealed = documents::envelope(storage, record.authority.digest()).await.unwrap();
    let request: Request = canonical::from_signed(&sealed.payload).unwrap();
    let (_, schedules) = standing_orders::newest(storage, &world.order.file).await.unwrap();
    assert_eq!(world.order.order.made(world.order.digest, &schedules, &request), Ok(()));
    assert_eq!((record.authority, sealed.signature.len()), (Authority::Tick(sealed.digest()), 0));
    let leaves = leaves(world.context(), "run.start").await;
    assert_eq!(
        (leaves[0].actor.role.as_str(), leaves[0].subject_digest),
        ("controller", Some(sealed.digest()))
    );
    assert!(leaves[0].detail["schedule"].starts_with("edge/daily, due "), "{leaves:?}");
    // The same tick again: its record is there.
    let error = fire(world.context(), &world.order, world.firing(), more).await.unwrap_err();
    assert_eq!(error.kind, Kind::Conflict);
    assert_eq!(storage.repo.all::<RunRecord>(runs::ALL).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_an_order_does_not_allow_does_not_fire_and_says_why() {
    let mut world = World::new().await;
    let (good, hour) = (world.firing(), Duration::from_hours(1));
    let stranger = [agent(9).node];
    for (firing, code) in [
        (Firing { nodes: &[], ..good }, "invalid-argument"),
        (Firing { nodes: &stranger, ..good }, "nodes-not-ready"),
        (Firing { not_after: world.at.plus(hour * 5), ..good }, "invalid-argument"),
        (Firing { at: world.at.plus(hour), ..good }, "invalid-argument"),
    ] {
        assert_eq!(world.refused(firing).await, code);
    }
    world.signer.list(world.context(), Some(OperatorRole::Viewer));
    assert_eq!(world.refused(world.firing()).await, "signature-refused");
    world.signer.list(world.context(), Some(OperatorRole::Operator));
    let other = StandingOrder { max_parallel: 1, ..world.order.order.clone() };
    let (standing, stood) = (world.order.clone(), OrderRecord { order: other, ..world.order.clone() });
    world.order = OrderRecord { digest: fleet_types::digest::Digest::of(b"replaced"), ..stood };
    assert_eq!(world.refused(world.firing()).await, "order-outdated");
    world.order = standing;
    world.signer.apply(world.context(), file(&[json!({"id": "daily", "window": "3h"})])).await;
    assert_eq!(world.refused(world.firing()).await, "order-outdated", "a newer file is not what was signed");
}
