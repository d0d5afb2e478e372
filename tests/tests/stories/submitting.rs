//! T01: the controller is killed around the commit of a submit; the retry with the same key makes one run.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleet_tests::operator_client::OperatorClient;
use fleet_tests::test_fleet::TestFleet;
use fleet_tests::wait::pass;
use fleet_types::view::ErrorDetail;

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_around_the_commit_of_a_submit_has_one_run_after_the_retry() -> Result<()> {
    let mut fleet = TestFleet::start(2).await?;
    let mut orders = Vec::new();
    // Killed from before the call arrives until after its answer: the commit lies somewhere between.
    for delay_ms in [0, 2, 4, 8, 16, 60] {
        let order = fleet.sign(fleet.look, 2)?;
        let mut service = fleet.operator.raw();
        let request = OperatorClient::start_request(&order);
        let submitting = tokio::spawn(async move { service.start_run(request).await.is_ok() });
        pass(Duration::from_millis(delay_ms)).await;
        fleet.controller.strike()?;
        let answered = submitting.await?;
        fleet.controller.kill_and_restart().await?;
        if answered {
            let known = fleet.operator.run(order.run).await?;
            ensure!(known.item.run == order.run, "an answered submit is lost");
        }
        let first = fleet.operator.start(&order).await?;
        let second = fleet.operator.start(&order).await?;
        assert_eq!((first.item.run, second.item.run), (order.run, order.run));
        orders.push(order);
    }
    for order in &orders {
        fleet.operator.wait_run(order.run).await?;
    }
    let checked = fleet.finish().await?;
    for order in &orders {
        let object = format!("run/{}", order.run);
        let leaves = checked.of("run.start").filter(|record| record.object == object).count();
        assert_eq!(leaves, 1, "audit records of the start of {}", order.run);
    }
    assert_eq!(checked.jobs, 2 * orders.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_good_for_one_request() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let order = fleet.sign(fleet.look, 1)?;
    fleet.operator.start(&order).await?;
    let mut other = fleet.sign(fleet.look, 1)?;
    other.idempotency_key.clone_from(&order.idempotency_key);
    let refused = fleet.operator.raw().start_run(OperatorClient::start_request(&other)).await.unwrap_err();
    let detail = refused.metadata().get_bin("fleet-error-bin").unwrap().to_bytes()?;
    let detail: ErrorDetail = serde_json::from_slice(&detail)?;
    assert_eq!((refused.code(), detail.code.as_str()), (tonic::Code::Aborted, "idempotency-key-reused"));
    assert!(!detail.fix.is_empty());
    // The same request without a key, and with another one, is still the same run.
    for key in [String::new(), "another".to_owned()] {
        let mut again = order.clone();
        again.idempotency_key = key;
        assert_eq!(fleet.operator.start(&again).await?.item.run, order.run);
    }
    fleet.operator.wait_run(order.run).await?;
    let checked = fleet.finish().await?;
    assert_eq!((checked.of("run.start").count(), checked.jobs), (1, 1));
    Ok(())
}
