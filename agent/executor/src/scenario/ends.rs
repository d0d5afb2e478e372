//! What a job's end says: changes that were stopped half-way, left as they are, or may still go on.

use std::time::Duration;

use fleet_types::job::{EndCause, JobState, Outcome};
use fleet_types::report::{Report, StepState};
use fleet_types::request::Verb;
use serde_json::json;

use super::bench::{Bench, backups, checks};
use super::scripted::Does;

/// Runs a procedure and cancels it in its first step.
async fn cancelled(first: &str, procedure: serde_json::Value) -> (Report, Vec<String>) {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.tasks.set(first, Does::Stops);
    let (_handle, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Run, procedure);
    core.assign(&bench, &order, 1).await;
    core.state("the first step", |state| matches!(state, JobState::Running { .. })).await;
    core.cancel(order.run).await;
    let report = core.report(&bench).await;
    (report, bench.tasks.calls())
}

#[tokio::test]
async fn a_change_that_a_cancel_stops_half_way_is_neither_skipped_nor_merely_cancelled() {
    let (report, calls) = cancelled("one", backups(&["one", "two"])).await;
    assert_eq!((report.outcome, report.cause), (Outcome::Failed, Some(EndCause::Cancelled)));
    assert_eq!((report.steps[0].state, report.steps[0].tries), (StepState::Failed, 1));
    assert_eq!(report.steps[1].state, StepState::Skipped, "it did not begin");
    assert!(report.reason.contains("step one") && report.reason.contains("enough"), "{}", report.reason);
    assert!(!calls.contains(&"apply two".to_owned()));
    // What began before it is undone as its failure says.
    let mut back = backups(&["one"]);
    back["step"][0]["on_failure"] = json!("rollback");
    let (report, calls) = cancelled("one", back).await;
    assert_eq!((report.outcome, report.cause), (Outcome::RolledBack, Some(EndCause::Cancelled)));
    assert!(calls.contains(&"revert undo:one".to_owned()));
}

#[tokio::test]
async fn a_look_that_a_cancel_stops_leaves_nothing() {
    let (report, _) = cancelled("look", checks()).await;
    assert_eq!((report.outcome, report.reason.as_str()), (Outcome::Cancelled, "enough"));
    let step = &report.steps[0];
    assert_eq!((step.state, step.cause), (StepState::Failed, Some(EndCause::Cancelled)), "it began");
}

async fn rolled_back(
    script: &[(&str, Does)],
    steps: &[&str],
    change: impl FnOnce(&mut serde_json::Value),
) -> Report {
    let mut bench = Bench::new("mode = \"enforce\"");
    for (step, does) in script {
        bench.tasks.set(step, *does);
    }
    let (_handle, mut core) = bench.start(1).await;
    let mut procedure = backups(steps);
    let last = steps.len() - 1;
    procedure["step"][last]["on_failure"] = json!("rollback");
    change(&mut procedure);
    let order = bench.order(1, Verb::Run, procedure);
    core.assign(&bench, &order, 1).await;
    core.report(&bench).await
}

fn entry(id: &str, undoes: &str) -> serde_json::Value {
    json!({"id": id, "uses": "backup.run", "with": {"backup": "config"}, "undoes": [undoes]})
}

#[tokio::test]
async fn a_job_is_rolled_back_only_when_every_change_was_undone() {
    let script = [("two", Does::Fails)];
    // No entry undoes the second step: a stored undo does not count beside written entries.
    let report = rolled_back(&script, &["one", "two"], |procedure| {
        procedure["rollback"] = json!([entry("back-one", "one")]);
    })
    .await;
    assert_eq!((report.outcome, report.cause), (Outcome::Failed, Some(EndCause::NotUndone)));
    assert!(report.reason.ends_with("1 undone; nothing undoes: two"), "{}", report.reason);
    // A command has no undo of its own.
    let report = rolled_back(&script, &["one", "two"], |procedure| {
        procedure["step"][0]["uses"] = json!("command.run");
        procedure["step"][0]["with"] = json!({"command": "wipe"});
    })
    .await;
    assert_eq!((report.outcome, report.cause), (Outcome::Failed, Some(EndCause::NotUndone)));
    assert!(report.reason.ends_with("nothing undoes: one"), "{}", report.reason);
    // Steps that read leave nothing to undo, and nothing was rolled back.
    let report = rolled_back(&[("one", Does::Fails)], &["one"], |procedure| {
        procedure["step"][0]["uses"] = json!("health.check");
        procedure["step"][0]["with"] = json!({});
    })
    .await;
    assert_eq!((report.outcome, report.cause), (Outcome::Failed, Some(EndCause::StepFailed)));
}

#[tokio::test]
async fn a_plan_names_what_nothing_undoes() {
    let mut bench = Bench::new("mode = \"enforce\"");
    let (_handle, mut core) = bench.start(1).await;
    let mut procedure = backups(&["one", "two"]);
    procedure["step"][1]["uses"] = json!("command.run");
    procedure["step"][1]["with"] = json!({"command": "wipe"});
    for (number, rollback, expected) in [
        (1, json!([]), vec!["two"]),
        (2, json!([entry("back", "two")]), vec!["one"]),
        (3, json!([entry("back", "two"), entry("back-one", "one")]), vec![]),
    ] {
        procedure["rollback"] = rollback;
        let order = bench.order(number, Verb::Plan, procedure.clone());
        core.assign(&bench, &order, 1).await;
        let plan = core.report(&bench).await.plan.unwrap();
        assert_eq!(plan.cannot_undo, expected);
    }
}

#[tokio::test]
async fn no_change_goes_beside_a_task_that_overran_its_limit_until_it_comes_back() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.overrun_grace = Duration::from_millis(20);
    bench.tasks.set("two", Does::Waits);
    let (_handle, mut core) = bench.start(1).await;
    let mut procedure = backups(&["one", "two"]);
    procedure["step"][1]["timeout"] = json!("50ms");
    procedure["step"][1]["on_failure"] = json!("rollback");
    let look = json!({"id": "see", "uses": "health.check"});
    procedure["finally"] = json!([entry("tidy", "one"), look]);
    let first = bench.order(1, Verb::Run, procedure);
    core.assign(&bench, &first, 1).await;
    let report = core.report(&bench).await;
    assert_eq!((report.outcome, report.cause), (Outcome::Failed, Some(EndCause::OutcomeUnknown)));
    assert!(report.reason.contains("tidy (not run)"), "{}", report.reason);
    assert_eq!(bench.tasks.calls(), ["undo one", "apply one", "undo two", "apply two", "inspect see"]);
    // A change waits, says behind what, and reading goes on.
    let second = bench.order(2, Verb::Run, backups(&["three"]));
    core.assign(&bench, &second, 1).await;
    let said = core.update("its acceptance", |update| update.run == second.run).await;
    assert_eq!(said.limits.unwrap().behind, Some(first.run));
    let reading = bench.order(3, Verb::Run, checks());
    assert_eq!(core.outcome(&bench, &reading, 1).await.0, Outcome::Succeeded);
    assert_eq!(bench.tasks.count("apply three"), 0);
    bench.tasks.let_go();
    let report = core.report(&bench).await;
    assert_eq!((report.job.run, report.outcome), (second.run, Outcome::Succeeded));
}
