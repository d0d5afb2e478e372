//! A start that is bound to a plan: what the node does is what it planned and what was signed, or nothing.

use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::id::RunId;
use fleet_types::job::{EndCause, Outcome};
use fleet_types::plan::NodePlan;
use fleet_types::report::{Report, StepState};
use fleet_types::request::{BoundPlan, Verb};
use serde_json::{Value, json};

use super::bench::{Bench, Order};
use super::core::Core;
use super::scripted::Does;
use crate::crash::{Crash, CrashPoint};

const ENFORCE: &str = "mode = \"enforce\"";

/// Two steps whose plans name no run.
fn two_steps() -> Value {
    let step = |id: &str| {
        json!({"id": id, "kind": "task", "title": id, "uses": "backup.run",
            "with": {"backup": "config", "tag": "before"}, "on_failure": "rollback"})
    };
    json!({ "step": [step("one"), step("two")] })
}

/// Starts `number` bound to the plan of run 1, with these digests.
fn bound(bench: &Bench, number: u64, procedure: Value, digests: Vec<Digest>) -> Order {
    let plan = BoundPlan { run: RunId::from_number(1), digests };
    bench.order_with(number, Verb::Run, procedure, |request| request.plan = Some(plan))
}

async fn planned(bench: &mut Bench, core: &mut Core) -> NodePlan {
    planned_by(bench, core, two_steps()).await
}

async fn planned_by(bench: &mut Bench, core: &mut Core, procedure: Value) -> NodePlan {
    let order = bench.order(1, Verb::Plan, procedure);
    core.assign(bench, &order, 1).await;
    let sealed = core.sealed(bench).await;
    core.ack(&sealed).await;
    canonical::from_slice::<Report>(&sealed.payload).unwrap().plan.unwrap()
}

async fn ended(bench: &Bench, core: &mut Core, order: &Order, epoch: u64) -> Report {
    core.assign(bench, order, epoch).await;
    loop {
        // That of the plan may come again after a restart.
        let report = core.report(bench).await;
        if report.job.run == order.run {
            return report;
        }
    }
}

#[tokio::test]
async fn a_start_is_held_against_its_plan_after_a_restart_too() {
    let mut bench = Bench::new(ENFORCE);
    bench.crash = Crash::Halt(CrashPoint::BeforeStepEnd);
    let (_dead, mut core) = bench.start(1).await;
    let digest = planned(&mut bench, &mut core).await.digest().unwrap();
    let order = bound(&bench, 2, two_steps(), vec![digest]);
    core.assign(&bench, &order, 1).await;
    assert_eq!(core.drain().await, 0, "no report before the death");
    bench.crash = Crash::Never;
    bench.tasks.set("two", Does::FindsOther);
    let (_handle, mut core) = bench.start(2).await;
    let report = core.report(&bench).await;
    let end = (report.outcome, report.cause);
    assert_eq!(end, (Outcome::RolledBack, Some(EndCause::PlanChanged)), "{}", report.reason);
    assert_eq!((bench.tasks.count("apply two"), bench.tasks.count("revert undo:one")), (0, 1));
}

#[tokio::test]
async fn a_difference_ends_the_step_before_anything_is_touched_and_is_named() {
    let mut bench = Bench::new(ENFORCE);
    let (_handle, mut core) = bench.start(1).await;
    let digest = planned(&mut bench, &mut core).await.digest().unwrap();
    bench.tasks.set("one", Does::FindsOther);
    let order = bound(&bench, 2, two_steps(), vec![digest]);
    let report = ended(&bench, &mut core, &order, 1).await;
    assert_eq!((report.outcome, report.cause), (Outcome::Failed, Some(EndCause::PlanChanged)));
    assert!(
        report.reason.contains("now it would be created Some(String(\"before\")) ( -> other)"),
        "{}",
        report.reason
    );
    assert_eq!(report.steps[0].state, StepState::Failed);
    assert_eq!(bench.tasks.calls(), Vec::<String>::new());
    // Unbound, it does what it finds.
    let report = ended(&bench, &mut core, &bench.order(3, Verb::Run, two_steps()), 1).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn only_a_plan_of_this_node_that_was_signed_is_started() {
    let mut bench = Bench::new(ENFORCE);
    let (_handle, mut core) = bench.start(1).await;
    let other = bound(&bench, 2, two_steps(), vec![Digest::of(b"another plan")]);
    let rule = |report: Report| report.reason.split(':').next().unwrap().to_owned();
    assert_eq!(rule(ended(&bench, &mut core, &other, 1).await), "plan-unknown");
    let digest = planned(&mut bench, &mut core).await.digest().unwrap();
    let other = bound(&bench, 3, two_steps(), vec![Digest::of(b"another plan")]);
    assert_eq!(rule(ended(&bench, &mut core, &other, 1).await), "plan-other");
    let mut procedure = two_steps();
    procedure["step"][0]["with"]["tag"] = json!("after");
    let other = bound(&bench, 4, procedure, vec![digest]);
    assert_eq!(rule(ended(&bench, &mut core, &other, 1).await), "plan-other");
    let unsorted = bound(&bench, 5, two_steps(), vec![digest, digest]);
    assert_eq!(rule(ended(&bench, &mut core, &unsorted, 1).await), "request-plan");
    assert_eq!(bench.tasks.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_step_that_facts_would_skip_now_refuses_the_start() {
    let mut bench = Bench::new(ENFORCE);
    let steps = || {
        let mut procedure = two_steps();
        procedure["step"][1]["when"] = json!("facts.lvm");
        procedure
    };
    let (handle, mut core) = bench.start(1).await;
    let digest = planned_by(&mut bench, &mut core, steps()).await.digest().unwrap();
    handle.drain(std::time::Duration::from_secs(5)).await;
    bench.has_lvm = true;
    let (_handle, mut core) = bench.start(2).await;
    let report = ended(&bench, &mut core, &bound(&bench, 2, steps(), vec![digest]), 2).await;
    assert!(report.reason.starts_with("plan-changed: step two was to be skipped"), "{}", report.reason);
    assert_eq!(bench.tasks.calls(), Vec::<String>::new());
}
