//! Steps that can cut the node off: confirmed, put back, and whoever dies in between.

use fleet_types::job::{EndCause, Outcome};
use fleet_types::report::{Report, StepState};
use fleet_types::request::Verb;
use serde_json::json;

use super::bench::{Bench, Order, backups};
use super::core::Core;
use super::scripted::Does;
use crate::crash::{Crash, CrashPoint};
use crate::guard::{Keeper, Pending};

/// Steps `one` and `two`; the second is guarded.
fn guarded(on_failure: &str) -> serde_json::Value {
    let mut procedure = backups(&["one", "two"]);
    procedure["step"][1]["guard"] = json!({"confirm_within": "10s"});
    procedure["step"][1]["on_failure"] = json!(on_failure);
    procedure
}

fn bench() -> Bench {
    let mut bench = Bench::new("mode = \"enforce\"\nwitness = [\"gateway:22\"]");
    bench.overrun_grace = std::time::Duration::from_millis(50);
    bench
}

fn left(bench: &Bench) -> Vec<Pending> {
    Pending::all(&Keeper::folder_in(&bench.path("state")))
}

async fn run(bench: &mut Bench, ways: usize, order: &Order) -> Report {
    let (_handle, mut core) = bench.start(1).await;
    core.ways = ways;
    core.assign(bench, order, 1).await;
    core.report(bench).await
}

/// Names of the steps in a report and how each ended.
fn ends(report: &Report) -> Vec<(&str, StepState)> {
    report.steps.iter().map(|step| (step.id.as_str(), step.state)).collect()
}

#[tokio::test]
async fn a_confirmed_change_stays_and_its_guard_goes() {
    let mut bench = bench();
    let order = bench.order(1, Verb::Run, guarded("rollback"));
    let report = run(&mut bench, usize::MAX, &order).await;
    assert_eq!(report.outcome, Outcome::Succeeded, "{}", report.reason);
    assert_eq!(bench.tasks.calls(), ["undo one", "apply one", "undo two", "apply two", "keep two"]);
    assert_eq!(left(&bench), []);
}

#[tokio::test]
async fn a_plan_says_in_advance_what_becomes_of_it_where_nobody_answers() {
    for (policy, words) in [
        ("", "no witness is configured, so it is put back"),
        ("witness = [\"gateway:22\"]", "gateway:22 confirms"),
    ] {
        let mut bench = Bench::new(&format!("mode = \"enforce\"\n{policy}"));
        let order = bench.order(1, Verb::Plan, guarded("rollback"));
        let report = run(&mut bench, 0, &order).await;
        let steps = report.plan.unwrap().steps;
        assert!(!steps[0].summary.contains("under the guard"), "{}", steps[0].summary);
        assert!(steps[1].summary.contains(words), "{}", steps[1].summary);
    }
}

#[tokio::test]
async fn where_nothing_would_confirm_it_a_guarded_step_does_not_begin() {
    let mut bench = bench();
    let order = bench.order(1, Verb::Run, guarded("rollback"));
    let report = run(&mut bench, 0, &order).await;
    let end = (report.outcome, report.cause);
    assert_eq!(end, (Outcome::RolledBack, Some(EndCause::Unconfirmed)), "{}", report.reason);
    assert!(report.reason.contains("nothing was done"), "{}", report.reason);
    assert!(report.reason.contains("no witness answers"), "{}", report.reason);
    assert_eq!(bench.tasks.calls(), ["undo one", "apply one", "revert undo:one"]);
}

#[tokio::test]
async fn what_nobody_confirms_the_guard_puts_back_and_the_job_goes_back() {
    let mut bench = bench();
    let order = bench.order(1, Verb::Run, guarded("rollback"));
    let report = run(&mut bench, 1, &order).await;
    let end = (report.outcome, report.cause);
    assert_eq!(end, (Outcome::RolledBack, Some(EndCause::Unconfirmed)), "{}", report.reason);
    assert!(report.reason.contains("no controller accepts a new connection"), "{}", report.reason);
    assert!(report.reason.contains("2 undone"), "{}", report.reason);
    let calls = bench.tasks.calls();
    assert_eq!(calls[4..], ["revert guard:two", "revert undo:one"], "each once, the newest first");
    assert_eq!(
        ends(&report),
        [
            ("one", StepState::Succeeded),
            ("two", StepState::Failed),
            ("guard:two", StepState::Succeeded),
            ("undo:one", StepState::Succeeded)
        ]
    );
    assert_eq!(left(&bench), []);
}

#[tokio::test]
async fn the_end_says_what_is_true_where_a_job_does_not_go_back() {
    let mut both = bench();
    let order = both.order(1, Verb::Run, guarded("abort"));
    let report = run(&mut both, 1, &order).await;
    assert_eq!((report.outcome, report.cause), (Outcome::Failed, Some(EndCause::Unconfirmed)), "one stays");
    let mut alone = bench();
    let mut procedure = guarded("abort");
    procedure["step"].as_array_mut().unwrap().remove(0);
    let order = alone.order(1, Verb::Run, procedure);
    let report = run(&mut alone, 1, &order).await;
    assert_eq!((report.outcome, report.cause), (Outcome::RolledBack, Some(EndCause::Unconfirmed)));
}

#[tokio::test]
async fn a_guarded_step_that_fails_is_put_back_at_once() {
    let mut bench = bench();
    bench.tasks.set("two", Does::Fails);
    let order = bench.order(1, Verb::Run, guarded("abort"));
    let report = run(&mut bench, usize::MAX, &order).await;
    assert_eq!(bench.tasks.count("revert guard:two"), 1);
    assert!(report.reason.contains("it does not work; the guard put it back"), "{}", report.reason);
}

/// A repair of a service that carries the network, and what is done after it.
fn repair() -> serde_json::Value {
    let mut procedure = backups(&["two"]);
    let step = json!({"id": "one", "kind": "task", "title": "Repair", "uses": "health.repair",
        "with": {"services": ["web"]}, "guard": {"confirm_within": "10s"}, "on_failure": "warn"});
    procedure["step"].as_array_mut().unwrap().insert(0, step);
    procedure["step"][1]["on_failure"] = json!("rollback");
    procedure
}

#[tokio::test]
async fn a_repair_stays_unless_its_guard_hears_nobody() {
    // A later step that fails does not take it back, and half of it stays, too.
    for (first, second, ways, calls) in [
        (
            Does::Well,
            Does::Fails,
            usize::MAX,
            ["undo one", "apply one", "undo two", "apply two", "revert undo:two"],
        ),
        (
            Does::Fails,
            Does::Fails,
            usize::MAX,
            ["undo one", "apply one", "undo two", "apply two", "revert undo:two"],
        ),
        (Does::Well, Does::Well, 1, ["undo one", "apply one", "revert guard:one", "undo two", "apply two"]),
    ] {
        let mut bench = bench();
        bench.tasks.set("one", first);
        bench.tasks.set("two", second);
        let order = bench.order(1, Verb::Run, repair());
        let report = run(&mut bench, ways, &order).await;
        assert_eq!(bench.tasks.calls(), calls, "{first:?} {second:?} {ways}: {}", report.reason);
        assert_eq!(left(&bench), []);
    }
}

#[tokio::test]
async fn a_guard_tries_again_what_fails_at_first() {
    let mut bench = bench();
    bench.tasks.set("guard:two", Does::FailsTwice);
    let order = bench.order(1, Verb::Run, guarded("rollback"));
    let report = run(&mut bench, 1, &order).await;
    assert_eq!(bench.tasks.count("revert guard:two"), 3);
    assert_eq!(bench.tasks.count("revert undo:two"), 0, "nothing is left for the job");
    let by_guard = report.steps.iter().find(|step| step.id == "guard:two").unwrap();
    assert_eq!((by_guard.state, by_guard.tries), (StepState::Succeeded, 3));
    assert!(report.reason.contains("the guard put it back"), "{}", report.reason);
}

#[tokio::test]
async fn a_way_back_that_fails_is_tried_again_by_the_job_and_told() {
    let mut bench = bench();
    bench.tasks.set("guard:two", Does::Fails);
    let order = bench.order(1, Verb::Run, guarded("rollback"));
    let report = run(&mut bench, 1, &order).await;
    assert_eq!(bench.tasks.count("revert guard:two"), 5, "at first by the guard, again and again");
    assert_eq!(bench.tasks.count("revert undo:two"), 1);
    assert!(report.reason.contains("the guard could not put it back"), "{}", report.reason);
    assert_eq!(report.outcome, Outcome::RolledBack, "the job's own way back worked");
}

#[tokio::test]
async fn a_witness_keeps_a_change_whose_controller_is_down_for_everybody() {
    let mut bench = bench();
    let order = bench.order(1, Verb::Run, guarded("rollback"));
    let (_handle, mut core) = bench.start(1).await;
    core.ways = 1;
    core.witness = Some("gateway:22".to_owned());
    core.assign(&bench, &order, 1).await;
    let report = core.report(&bench).await;
    assert_eq!(report.outcome, Outcome::Succeeded, "{}", report.reason);
}

#[tokio::test]
async fn what_the_procedure_names_puts_back_a_step_without_an_undo_of_its_own() {
    let load = |guard: bool| {
        let mut step = json!({"id": "load", "kind": "task", "title": "Load", "uses": "command.run",
            "with": {"command": "nft"}, "on_failure": "rollback"});
        if guard {
            step["guard"] = json!({"confirm_within": "10s"});
        }
        step
    };
    let entry = json!({"id": "back", "title": "Back", "uses": "backup.run", "undoes": ["load"],
        "with": {"backup": "config"}});
    for (procedure, outcome, said) in [
        (json!({"step": [load(false)]}), Outcome::Refused, "guard-missing"),
        (json!({"step": [load(true)]}), Outcome::Refused, "guard-no-undo"),
        (json!({"step": [load(true)], "rollback": [entry]}), Outcome::RolledBack, "the guard put it back"),
    ] {
        let mut bench = bench();
        bench.policy.allow_commands = vec!["*".to_owned()];
        let order = bench.order(1, Verb::Run, procedure);
        let report = run(&mut bench, 1, &order).await;
        assert!(report.outcome == outcome && report.reason.contains(said), "{}", report.reason);
        if outcome == Outcome::RolledBack {
            // The guard's, and then the procedure's own way back in its own order.
            assert_eq!(bench.tasks.calls(), ["apply guard:load:back", "apply back"]);
        }
    }
}

/// The next executor, with its report.
async fn again(bench: &mut Bench, ways: usize) -> (Report, Core) {
    bench.crash = Crash::Never;
    let (_handle, mut core) = bench.try_start().unwrap();
    core.ways = ways;
    core.ready().await;
    core.link_up(bench, 1, 2).await;
    loop {
        if let Some(fleet_proto::pb::executor_message::Body::Report(report)) = core.next("the report").await {
            return (fleet_types::canonical::from_slice(&report.payload).unwrap(), core);
        }
    }
}

#[tokio::test]
async fn a_death_at_every_point_ends_with_the_old_state_or_a_confirmed_new_one() {
    for (point, ways, outcome) in [
        (CrashPoint::AfterArmed, usize::MAX, Outcome::Succeeded),
        (CrashPoint::AfterArmed, 0, Outcome::RolledBack),
        (CrashPoint::AfterApplied, usize::MAX, Outcome::Succeeded),
        (CrashPoint::AfterApplied, 0, Outcome::RolledBack),
        // Confirmed before the death: whether anybody answers now is not asked.
        (CrashPoint::BeforeStepEnd, 0, Outcome::Succeeded),
    ] {
        let mut bench = bench();
        bench.crash = Crash::Halt(point);
        let mut procedure = guarded("rollback");
        procedure["step"].as_array_mut().unwrap().remove(0);
        let order = bench.order(1, Verb::Run, procedure);
        let (_dead, mut core) = bench.start(1).await;
        core.assign(&bench, &order, 1).await;
        assert_eq!(core.drain().await, 0, "no report before the death {point:?}");
        let (report, _core) = again(&mut bench, ways).await;
        assert_eq!(report.outcome, outcome, "{point:?} {ways}: {}", report.reason);
        let back = usize::from(outcome == Outcome::RolledBack);
        assert_eq!(bench.tasks.count("revert guard:two"), back, "{point:?} {ways}");
        assert_eq!(bench.tasks.count("undo two"), 1);
        assert_eq!(left(&bench), []);
    }
}

#[tokio::test]
async fn an_agent_that_dies_again_and_again_does_not_hold_the_change_up() {
    let mut bench = bench();
    bench.crash = Crash::Halt(CrashPoint::AfterApplied);
    let order = bench.order(1, Verb::Run, guarded("rollback"));
    let (_dead, mut core) = bench.start(1).await;
    core.assign(&bench, &order, 1).await;
    core.drain().await;
    let deadline = |bench: &Bench| left(bench).first().and_then(Pending::deadline).unwrap();
    let first = deadline(&bench);
    for epoch in 2..4 {
        let (_dead, mut core) = bench.start(epoch).await;
        core.drain().await;
        assert_eq!(deadline(&bench), first, "each life asks anew, within the time of the first");
    }
}

#[tokio::test]
async fn a_guard_that_acts_while_the_agent_is_dead_is_told_of_by_the_next_one() {
    for ends_before in [true, false] {
        let mut bench = bench();
        bench.crash = Crash::Halt(CrashPoint::AfterApplied);
        if !ends_before {
            bench.tasks.set("guard:two", Does::Waits);
        }
        let order = bench.order(1, Verb::Run, guarded("rollback"));
        let (_dead, mut core) = bench.start(1).await;
        core.assign(&bench, &order, 1).await;
        assert_eq!(core.drain().await, 0);
        // The machine restarts: what nobody confirmed is put back at once.
        bench.host.script().boot_id = "the next".to_owned();
        bench.tasks.began("revert guard:two").await;
        let (report, _core) = {
            if !ends_before {
                bench.tasks.let_go();
            }
            again(&mut bench, usize::MAX).await
        };
        assert_eq!(report.outcome, Outcome::RolledBack, "{}", report.reason);
        assert_eq!((bench.tasks.count("apply two"), bench.tasks.count("revert guard:two")), (1, 1));
    }
}

#[tokio::test]
async fn the_journal_keeps_the_evidence() {
    let mut bench = bench();
    let order = bench.order(1, Verb::Run, guarded("rollback"));
    {
        let (mut handle, mut core) = bench.start(1).await;
        core.assign(&bench, &order, 1).await;
        core.report(&bench).await;
        handle.stop_taking_work();
        handle.drain(std::time::Duration::from_secs(20)).await;
    }
    let bytes = std::fs::read_dir(bench.path("state"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("journal"))
        .map(|entry| String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned())
        .collect::<String>();
    let at = |what: &str| bytes.find(what).unwrap_or_else(|| panic!("{what} is not journaled"));
    let order = ["guard_armed", "\"applied\"", "\"confirmed\""].map(at);
    assert!(order.is_sorted(), "{order:?}");
    assert!(bytes.contains("controller:7443"), "and who confirmed it");
}
