//! What happens to steps: failures, retries, the way back, plans.

use fleet_types::job::{EndCause, Outcome};
use fleet_types::report::{Report, StepState};
use fleet_types::request::Verb;
use serde_json::json;

use super::bench::{Bench, backups, checks};
use super::scripted::Does;

async fn run(script: &[(&str, Does)], procedure: serde_json::Value) -> (Report, Vec<String>) {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.overrun_grace = std::time::Duration::from_millis(50);
    for (step, does) in script {
        bench.tasks.set(step, *does);
    }
    let (_handle, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Run, procedure);
    core.assign(&bench, &order, 1).await;
    let report = core.report(&bench).await;
    (report, bench.tasks.calls())
}

fn with(
    mut procedure: serde_json::Value,
    step: usize,
    key: &str,
    value: serde_json::Value,
) -> serde_json::Value {
    procedure["step"][step][key] = value;
    procedure
}

#[tokio::test]
async fn failures_abort_warn_or_end_unknown() {
    let (report, calls) = run(&[("one", Does::Fails)], backups(&["one", "two"])).await;
    assert_eq!((report.outcome, report.reason.as_str()), (Outcome::Failed, "it does not work (step one)"));
    assert_eq!(report.steps[1].state, StepState::Skipped);
    assert_eq!(calls, ["undo one", "apply one"]);

    let warn = with(backups(&["one", "two"]), 0, "on_failure", json!("warn"));
    let (report, _) = run(&[("one", Does::Fails)], warn.clone()).await;
    assert_eq!(report.outcome, Outcome::SucceededWithWarnings);
    assert_eq!((report.steps[0].state, report.steps[1].state), (StepState::Warned, StepState::Succeeded));
    let mut strict = warn.clone();
    strict["fail_if_warnings"] = json!(true);
    assert_eq!(run(&[("one", Does::Fails)], strict).await.0.outcome, Outcome::Failed);

    let (report, _) = run(&[("one", Does::IsLost)], warn).await;
    assert_eq!((report.outcome, report.cause), (Outcome::Failed, Some(EndCause::OutcomeUnknown)));
    assert_eq!(report.steps[0].cause, Some(EndCause::OutcomeUnknown), "and is never passed over");

    let (report, _) = run(&[("one", Does::Panics)], backups(&["one"])).await;
    assert!(report.outcome == Outcome::Failed && report.reason.contains("panic"), "{}", report.reason);
    assert_eq!(report.cause, Some(EndCause::OutcomeUnknown), "how far a broken change came nobody knows");

    let (report, calls) = run(&[("look", Does::Panics)], checks()).await;
    assert_eq!((report.cause, calls), (Some(EndCause::StepFailed), vec!["inspect look".to_owned()]));
}

#[tokio::test]
async fn retries_are_for_the_named_failures_only() {
    let retries = json!({"count": 2, "wait": "30s", "only_on": ["lock_busy"]});
    let procedure = with(backups(&["one"]), 0, "retries", retries);
    let (report, calls) = run(&[("one", Does::IsLocked)], procedure.clone()).await;
    assert_eq!((report.outcome, report.steps[0].tries), (Outcome::Failed, 3));
    assert_eq!(calls, ["undo one", "apply one", "apply one", "apply one"]);
    assert_eq!(report.steps[0].took_ms, 60_000);
    assert_eq!(run(&[("one", Does::Fails)], procedure.clone()).await.0.steps[0].tries, 1);
    // The step's time covers all tries and waits.
    let short = with(procedure, 0, "timeout", json!("40s"));
    assert_eq!(run(&[("one", Does::IsLocked)], short).await.0.steps[0].tries, 2);
}

#[tokio::test]
async fn the_way_back_goes_by_stored_undos_in_reverse() {
    let procedure = with(backups(&["one", "two", "three", "four"]), 2, "on_failure", json!("rollback"));
    let (report, calls) = run(&[("three", Does::Fails)], procedure.clone()).await;
    assert_eq!(report.outcome, Outcome::RolledBack, "{}", report.reason);
    let back: Vec<_> = calls.iter().filter(|call| call.starts_with("revert")).collect();
    assert_eq!(back, ["revert undo:three", "revert undo:two", "revert undo:one"]);
    let (report, calls) = run(&[("three", Does::Fails), ("undo:two", Does::Fails)], procedure).await;
    assert_eq!(report.outcome, Outcome::RollbackFailed);
    assert!(report.reason.contains("undo:two") && calls.contains(&"revert undo:one".to_owned()));
}

#[tokio::test]
async fn the_way_back_goes_by_rollback_entries_and_final_steps_run_last() {
    let mut procedure = with(backups(&["one", "two", "three"]), 1, "on_failure", json!("rollback"));
    let entry = |id: &str, undoes: &[&str]| json!({"id": id, "uses": "backup.run", "with": {"backup": "config"}, "undoes": undoes});
    let entries = [("back-one", "one"), ("back-two", "two"), ("back-three", "three")];
    procedure["rollback"] = entries.map(|(id, undoes)| entry(id, &[undoes])).into();
    let mut quiet = entry("not-after-rollback", &[]);
    quiet["except"] = json!(["rolled_back"]);
    procedure["finally"] = json!([entry("last", &[]), entry("after-three", &["three"]), quiet]);
    let (report, calls) = run(&[("two", Does::Fails)], procedure.clone()).await;
    assert_eq!(report.outcome, Outcome::RolledBack);
    let applied: Vec<_> = calls.iter().filter(|call| call.starts_with("apply")).collect();
    assert_eq!(applied, ["apply one", "apply two", "apply back-one", "apply back-two", "apply last"]);
    assert_eq!(calls.iter().filter(|call| call.starts_with("revert")).count(), 0);
    let (report, calls) = run(&[("last", Does::Fails)], procedure).await;
    assert_eq!(report.outcome, Outcome::SucceededWithWarnings);
    assert!(calls.contains(&"apply not-after-rollback".to_owned()) && report.reason.contains("last"));
}

#[tokio::test]
async fn a_rollback_entry_learns_what_the_steps_of_its_job_noted() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.tasks.set("two", Does::Fails);
    let mut procedure = with(backups(&["one", "two", "three"]), 1, "on_failure", json!("rollback"));
    procedure["rollback"] =
        json!([{"id": "back", "uses": "backup.run", "with": {"backup": "config"}, "undoes": ["one"]}]);
    let (_handle, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Run, procedure);
    core.outcome(&bench, &order, 1).await;
    let of = |step: &str| {
        let noted = bench.tasks.view(step).noted.into_iter();
        noted.map(|noted| (noted.step, noted.action, noted.undo)).collect::<Vec<_>>()
    };
    let noted = |step: &str| (step.to_owned(), "backup.run".to_owned(), json!({"of": step}));
    assert_eq!(of("one"), [noted("one")], "its own");
    assert_eq!(of("back"), [noted("one"), noted("two")]);
}

#[tokio::test]
async fn steps_whose_condition_is_false_are_shown_as_skipped() {
    let mut procedure = with(backups(&["one", "two"]), 0, "when", json!("facts.lvm"));
    procedure["step"][0]["uses"] = json!("snapshot.create");
    let (report, calls) = run(&[], procedure).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert_eq!(
        (report.steps[0].state, calls),
        (StepState::Skipped, vec!["undo two".into(), "apply two".into()])
    );
}

#[tokio::test]
async fn a_plan_says_what_would_happen_and_who_would_refuse_it_and_does_nothing() {
    let mut bench = Bench::new("");
    let (_handle, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Plan, backups(&["one"]));
    core.assign(&bench, &order, 1).await;
    let report = core.report(&bench).await;
    assert_eq!(report.outcome, Outcome::Refused, "as a run of it would be");
    let plan = report.plan.unwrap();
    assert!(report.reason.contains(&plan.refusals[0].message), "{}", report.reason);
    assert!(plan.changes);
    assert_eq!(plan.steps[0].changes[0].subject, format!("Some(String(\"{}\"))", order.run));
    assert_eq!(plan.refusals.iter().map(|r| r.code.as_str()).collect::<Vec<_>>(), ["mode-read-only"]);
    assert_eq!(plan.procedure, order.documents[0].digest());
    assert_eq!(bench.tasks.calls(), Vec::<String>::new());
    let reading = bench.order(2, Verb::Plan, checks());
    core.assign(&bench, &reading, 1).await;
    let report = core.report(&bench).await;
    assert_eq!((report.outcome, report.plan.unwrap().refusals.len()), (Outcome::Succeeded, 0));
}
