//! Gates of a rollout on the node: the policy that the request names says what is looked at, and nothing else does.

use fleet_types::authority::Authority;
use fleet_types::id::Stage;
use fleet_types::job::Outcome;
use fleet_types::request::Verb;
use serde_json::json;

use super::bench::{Bench, Order, backups};
use super::scripted::Does;
use crate::crash::{Crash, CrashPoint};

/// A request to change the node by a policy with this gate.
fn order(bench: &Bench, gate: &serde_json::Value) -> Order {
    let policy = bench.seal(json!({
        "kind": "rollout_policy", "schema": "fleet/v1", "name": "careful",
        "ring": [{"name": "all", "selector": "*"}], "gate": {"well": gate}
    }));
    let digest = policy.digest();
    let mut order = bench.order_with(1, Verb::Run, backups(&["one"]), |request| {
        request.rollout_policy = Some(digest);
    });
    order.documents.push(policy);
    order
}

fn health() -> serde_json::Value {
    json!({"uses": "health.check", "with": {"checks": ["disk"], "stable_for": "1s"}})
}

/// The assignment of a look at the gates: the next stage of the job.
fn look(bench: &Bench, order: &Order, attempt: u32, stage: u16) -> fleet_types::assignment::Assignment {
    let mut assignment = bench.assignment(order, attempt, 1);
    assignment.authority = Authority::Gates(order.request.digest());
    assignment.job.stage = Stage(stage);
    assignment
}

#[tokio::test]
async fn the_gates_of_the_signed_policy_are_looked_at_and_the_procedure_is_not_carried_out_again() {
    let mut bench = Bench::new("mode = \"enforce\"");
    let (_handle, mut core) = bench.start(1).await;
    let order = order(&bench, &health());
    core.hold(&order);
    core.assign(&bench, &order, 1).await;
    assert_eq!(core.report(&bench).await.outcome, Outcome::Succeeded);
    core.assign_exactly(&bench, &look(&bench, &order, 2, 1)).await;
    let report = core.report(&bench).await;
    assert_eq!((report.outcome, report.job.stage, report.attempt.0), (Outcome::Succeeded, Stage(1), 2));
    assert_eq!(report.authority, Authority::Gates(order.request.digest()));
    assert_eq!(report.steps.iter().map(|step| step.id.as_str()).collect::<Vec<_>>(), ["well"]);
    assert_eq!((bench.tasks.count("apply one"), bench.tasks.count("inspect well")), (1, 1));
    // One that does not hold, asked anew; and the same question once only.
    bench.tasks.set("well", Does::Fails);
    core.assign_exactly(&bench, &look(&bench, &order, 3, 2)).await;
    let report = core.report(&bench).await;
    assert_eq!((report.outcome, report.job.stage), (Outcome::Failed, Stage(2)));
    core.assign_exactly(&bench, &look(&bench, &order, 4, 2)).await;
    let report = core.report(&bench).await;
    assert!(report.reason.starts_with("use-spent"), "{}", report.reason);
    assert_eq!(bench.tasks.count("apply one"), 1);
}

#[tokio::test]
async fn a_look_that_was_under_way_goes_on_after_a_restart() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.crash = Crash::Halt(CrashPoint::BeforeStepEnd);
    let (_dead, mut core) = bench.start(1).await;
    let order = order(&bench, &health());
    core.hold(&order);
    core.assign_exactly(&bench, &look(&bench, &order, 2, 1)).await;
    assert_eq!(core.drain().await, 0, "no report before the death");
    bench.crash = Crash::Never;
    let (_handle, mut core) = bench.start(2).await;
    let report = core.report(&bench).await;
    assert_eq!((report.outcome, report.job.stage), (Outcome::Succeeded, Stage(1)));
    assert_eq!((bench.tasks.count("apply one"), bench.tasks.count("inspect well")), (0, 2));
}

#[tokio::test]
async fn gates_that_nobody_signed_for_or_that_would_change_the_node_are_refused_by_name() {
    for (gate, has_policy, rule) in [
        (health(), false, "request-gates"),
        (json!({"uses": "backup.run", "with": {"backup": "config"}}), true, "gates-not-built"),
        (
            json!({"uses": "health.check", "with": {"checks": ["web"], "severity": "low"}}),
            true,
            "gates-not-built",
        ),
        (json!({"uses": "health.check", "with": {"checks": ["gone"]}}), true, "with-invalid"),
    ] {
        let mut bench = Bench::new("mode = \"enforce\"");
        let (_handle, mut core) = bench.start(1).await;
        let order =
            if has_policy { order(&bench, &gate) } else { bench.order(1, Verb::Run, backups(&["one"])) };
        core.hold(&order);
        core.assign_exactly(&bench, &look(&bench, &order, 2, 1)).await;
        let report = core.report(&bench).await;
        assert_eq!(report.outcome, Outcome::Refused, "{}", report.reason);
        assert!(report.reason.contains(rule), "{rule}: {}", report.reason);
        assert!(bench.tasks.calls().is_empty(), "{:?}", bench.tasks.calls());
    }
}
