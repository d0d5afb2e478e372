//! Services that a job has stopped, in a boot whose start has brought them up again.

use std::time::Duration;

use fleet_types::job::{JobState, Outcome};
use fleet_types::report::Report;
use fleet_types::request::Verb;
use serde_json::{Value, json};

use super::bench::{Bench, Order};
use super::scripted::Does;
use crate::host::Activity;
use crate::host::scripted::Script;

fn services(id: &str, action: &str, names: &[&str]) -> Value {
    json!({"id": id, "kind": "task", "uses": action, "with": {"services": names}, "on_failure": "rollback"})
}

fn work(id: &str) -> Value {
    json!({"id": id, "kind": "task", "uses": "backup.run", "with": {"backup": "config"}, "on_failure": "rollback"})
}

fn bench() -> Bench {
    let mut bench = Bench::new("mode = \"enforce\"\nreboot = \"always\"\nallow_actions = [\"*\"]");
    bench.overrun_grace = Duration::from_millis(50);
    bench.host.script().unit_traits.systemd = true;
    all_run(&bench);
    bench
}

/// As the start of a machine leaves them.
fn all_run(bench: &Bench) {
    let mut script = bench.host.script();
    for unit in ["proxy.service", "web.service"] {
        script.units.insert(unit.to_owned(), Activity::Active);
    }
    script.unit_calls.clear();
}

fn boots(script: &mut Script) {
    "the next".clone_into(&mut script.boot_id);
}

/// The executor ends in the middle of the call `in_call` of a step that waits, `meanwhile` happens to the machine, all services
/// run, and another executor goes on; its report.
async fn goes_on(bench: &mut Bench, order: &Order, in_call: &str, meanwhile: impl Fn(&mut Script)) -> Report {
    let (mut handle, mut core) = bench.start(1).await;
    core.assign(bench, order, 1).await;
    core.state("the job to run", |state| matches!(state, JobState::Running { .. })).await;
    bench.tasks.began(in_call).await;
    handle.stop_taking_work();
    let draining = tokio::spawn(handle.drain(Duration::from_secs(20)));
    bench.tasks.let_go();
    assert_eq!(core.drain().await, 0, "no report: the job goes on");
    draining.await.unwrap();
    all_run(bench);
    meanwhile(&mut bench.host.script());
    let (_handle, mut core) = bench.start(2).await;
    core.report(bench).await
}

fn calls(bench: &Bench) -> Vec<String> {
    std::mem::take(&mut bench.host.script().unit_calls)
}

#[tokio::test]
async fn what_a_job_had_stopped_is_stopped_again_in_another_boot_unless_it_was_started_since() {
    let same: fn(&mut Script) = |_| {};
    for (meanwhile, stopped) in [(boots as fn(&mut Script), vec!["stop web.service"]), (same, vec![])] {
        let mut bench = bench();
        bench.tasks.set("one", Does::Waits);
        let steps = [
            services("down", "service.stop", &["proxy", "web"]),
            services("up", "service.start", &["proxy"]),
            work("one"),
            work("two"),
        ];
        let order = bench.order(1, Verb::Run, json!({ "step": steps }));
        let report = goes_on(&mut bench, &order, "apply one", meanwhile).await;
        assert_eq!(report.outcome, Outcome::Succeeded, "{report:#?}");
        assert_eq!(calls(&bench), stopped, "before the step that comes next, and once");
        assert_eq!(bench.tasks.count("apply two"), 1);
    }
}

#[tokio::test]
async fn a_way_back_in_another_boot_stops_them_before_it_starts_them() {
    let mut bench = bench();
    bench.tasks.set("one", Does::Fails);
    bench.tasks.set("undo:one", Does::Waits);
    let steps = [services("down", "service.stop", &["proxy", "web"]), work("one")];
    let order = bench.order(1, Verb::Run, json!({ "step": steps }));
    let report = goes_on(&mut bench, &order, "revert undo:one", boots).await;
    assert_eq!(report.outcome, Outcome::RolledBack, "{report:#?}");
    let again = ["stop web.service", "stop proxy.service", "start proxy.service", "start web.service"];
    assert_eq!(calls(&bench), again, "no daemon of before the way back is left");
}

#[tokio::test]
async fn what_an_undo_had_stopped_is_stopped_again_too() {
    let mut bench = bench();
    bench.host.script().units.insert("web.service".to_owned(), Activity::Inactive);
    bench.tasks.set("three", Does::Fails);
    bench.tasks.set("undo:two", Does::Waits);
    let steps = [work("one"), work("two"), services("up", "service.start", &["proxy", "web"]), work("three")];
    let order = bench.order(1, Verb::Run, json!({ "step": steps }));
    let report = goes_on(&mut bench, &order, "revert undo:two", boots).await;
    assert_eq!(report.outcome, Outcome::RolledBack, "{report:#?}");
    assert_eq!(calls(&bench), ["stop web.service"], "proxy ran before the job");
}

#[tokio::test]
async fn one_that_cannot_be_stopped_again_fails_the_step_that_would_be_done_beside_it() {
    let mut bench = bench();
    bench.tasks.set("one", Does::Waits);
    let steps = [services("down", "service.stop", &["web"]), work("one"), work("two")];
    let order = bench.order(1, Verb::Run, json!({ "step": steps }));
    let stuck = |script: &mut Script| {
        boots(script);
        script.unit_traits.stuck.insert("web.service".to_owned());
    };
    let report = goes_on(&mut bench, &order, "apply one", stuck).await;
    assert_eq!(report.outcome, Outcome::RolledBack, "{report:#?}");
    assert!(report.reason.contains("is not down again: service web"), "{}", report.reason);
    assert_eq!(bench.tasks.count("apply two"), 0, "nothing is done beside it");
}

#[tokio::test]
async fn a_way_back_beside_one_that_cannot_be_stopped_is_not_called_rolled_back() {
    let mut bench = bench();
    bench.tasks.set("one", Does::Fails);
    bench.tasks.set("undo:one", Does::Waits);
    let steps = [services("down", "service.stop", &["web"]), work("one")];
    let order = bench.order(1, Verb::Run, json!({ "step": steps }));
    let stuck = |script: &mut Script| {
        boots(script);
        script.unit_traits.stuck.insert("web.service".to_owned());
    };
    let report = goes_on(&mut bench, &order, "revert undo:one", stuck).await;
    assert_eq!(report.outcome, Outcome::RollbackFailed, "{report:#?}");
    assert!(report.reason.contains("is not down again: service web"), "{}", report.reason);
}

#[tokio::test]
async fn after_a_restart_that_the_job_asked_for_runs_what_its_author_meant_to_run() {
    let mut bench = bench();
    bench.tasks.set("again", Does::Restarts);
    let restart = json!({"id": "again", "kind": "task", "uses": "reboot", "guard": {"confirm_within": "10s"},
        "on_failure": "rollback"});
    let steps = [services("down", "service.stop", &["web"]), restart, work("two")];
    let order = bench.order(1, Verb::Run, json!({ "step": steps }));
    let (handle, mut core) = bench.start(1).await;
    core.assign(&bench, &order, 1).await;
    // Asked for the way home before, which the core answers while it is heard.
    core.state("the restart", |state| matches!(state, JobState::Running { step, .. } if step == "again"))
        .await;
    bench.tasks.began("apply again").await;
    handle.drain(Duration::from_secs(20)).await;
    core.drain().await;
    all_run(&bench);
    boots(&mut bench.host.script());
    let (_handle, mut core) = bench.try_start().unwrap();
    core.ways = usize::MAX;
    core.ready().await;
    core.link_up(&bench, 1, 2).await;
    core.reconcile().await;
    let report = core.report(&bench).await;
    assert_eq!(report.outcome, Outcome::Succeeded, "{}", report.reason);
    assert_eq!(calls(&bench), [""; 0]);
}
