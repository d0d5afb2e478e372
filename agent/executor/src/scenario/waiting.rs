//! Limits on boot time: what a node says of them, what waits beyond its request, what a restart counts.

use std::time::Duration;

use fleet_types::job::{JobState, Outcome};
use fleet_types::request::Verb;
use serde_json::json;

use super::bench::{Bench, backups};
use super::scripted::Does;
use crate::crash::{Crash, CrashPoint};

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn every_word_of_a_job_says_how_long_it_may_still_take() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.overrun_grace = Duration::ZERO;
    bench.tasks.set("one", Does::Waits);
    bench.tasks.set("two", Does::Fails);
    bench.tasks.set("undo:one", Does::Waits);
    let (_handle, mut core) = bench.start(1).await;
    let mut procedure = backups(&["one", "two"]);
    procedure["step"][1]["on_failure"] = json!("rollback");
    procedure["step"][0]["timeout"] = json!("30m");
    procedure["step"][1]["timeout"] = json!("20m");
    procedure["finally"] = json!([{"id": "last", "uses": "health.check", "timeout": "5m"}]);
    let order = bench.order(1, Verb::Run, procedure.clone());
    core.assign(&bench, &order, 1).await;
    // An hour of work, fifty minutes back, five at the end; its request has two hours left.
    let accepted = core.update("its acceptance", |update| update.state == JobState::Accepted).await;
    let limits = accepted.limits.unwrap();
    assert_eq!((limits.phase_left, limits.job_left), (HOUR * 2, HOUR * 3 + MINUTE * 55));
    assert_eq!(limits.behind, None);
    let running = core.update("its step", |update| update.state.as_str() == "running").await;
    let limits = running.limits.unwrap();
    assert_eq!((limits.phase_left, limits.job_left), (HOUR, HOUR + MINUTE * 55));
    // The next one waits behind it.
    let second = bench.order(2, Verb::Run, procedure.clone());
    core.assign(&bench, &second, 1).await;
    let queued = core.update("the second", |update| update.run == second.run).await;
    assert_eq!(queued.limits.unwrap().behind, Some(order.run));
    // Told anew at a link, with what has passed taken off.
    bench.host.script().since_boot += MINUTE * 10;
    core.link_up(&bench, 1, 2).await;
    let listed = core.reconcile().await;
    let limits = listed.iter().find(|update| update.run == order.run).unwrap().limits.unwrap();
    assert_eq!((limits.phase_left, limits.job_left), (MINUTE * 50, HOUR + MINUTE * 45));
    bench.tasks.let_go();
    // The last step goes back first, then the one before it, which is under way now.
    let back = |update: &fleet_proto::convert::JobUpdate| matches!(&update.state, JobState::RollingBack { step } if step == "undo:one");
    let limits = core.update("the way back", back).await.limits.unwrap();
    assert_eq!((limits.phase_left, limits.job_left), (MINUTE * 30, MINUTE * 35));
    bench.tasks.let_go();
    let report = core.report(&bench).await;
    assert_eq!((report.outcome, report.job.run), (Outcome::RolledBack, order.run));
    core.link_up(&bench, 1, 3).await;
    let listed = core.reconcile().await;
    let ended = listed.iter().find(|update| update.run == order.run).unwrap();
    assert_eq!(ended.limits, None, "what has ended takes no more time");
    bench.tasks.let_go();
}

#[tokio::test]
async fn what_waits_ends_with_its_request_and_not_when_its_turn_comes() {
    let short = MINUTE * 6;
    // By either clock: set back, wall time gives it no more time; set forward, it takes the rest away.
    for (boot, wall_forward, wall_back) in [
        (short, short, Duration::ZERO),
        (short, Duration::ZERO, HOUR),
        (Duration::ZERO, short, Duration::ZERO),
    ] {
        let mut bench = Bench::new("mode = \"enforce\"");
        bench.tasks.set("one", Does::Waits);
        let (_handle, mut core) = bench.start(1).await;
        let first = bench.order(1, Verb::Run, backups(&["one"]));
        let ends = bench.now().plus(MINUTE * 5);
        let second = bench.order_with(2, Verb::Run, backups(&["two"]), |request| request.not_after = ends);
        core.assign(&bench, &first, 1).await;
        core.state("the first job's step", |state| matches!(state, JobState::Running { .. })).await;
        core.assign(&bench, &second, 1).await;
        core.update("the second", |update| update.run == second.run).await;
        {
            let mut script = bench.host.script();
            script.since_boot += boot;
            script.now = script.now.plus(wall_forward).minus(wall_back);
        }
        let report = core.report(&bench).await;
        assert_eq!((report.job.run, report.outcome), (second.run, Outcome::Expired), "{}", report.reason);
        bench.tasks.let_go();
        assert_eq!(core.report(&bench).await.outcome, Outcome::Succeeded, "what has begun ends");
        assert_eq!(bench.tasks.count("apply two"), 0);
    }
}

#[tokio::test]
async fn a_step_that_a_restart_interrupts_took_as_long_as_it_took() {
    for (reboots, expected) in [(false, 45_000), (true, 60_000)] {
        let mut bench = Bench::new("mode = \"enforce\"");
        bench.crash = Crash::Halt(CrashPoint::AfterStepBegin);
        let (_dead, mut core) = bench.start(1).await;
        let order = bench.order(1, Verb::Run, backups(&["one"]));
        core.assign(&bench, &order, 1).await;
        core.drain().await;
        {
            let mut script = bench.host.script();
            script.since_boot += Duration::from_secs(45);
            script.now = script.now.plus(MINUTE);
            if reboots {
                script.since_boot = Duration::from_secs(5);
                script.boot_id = "another".to_owned();
            }
        }
        bench.crash = Crash::Never;
        let (_handle, mut core) = bench.start(2).await;
        let report = core.report(&bench).await;
        assert_eq!(report.outcome, Outcome::Succeeded);
        assert_eq!((report.steps[0].took_ms, report.working_ms), (expected, expected));
        assert_eq!(report.steps[0].started, Some(report.started));
    }
}

#[tokio::test]
async fn after_a_restart_of_the_machine_wall_time_ends_what_waits() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.crash = Crash::Halt(CrashPoint::AfterAccepted);
    let (_dead, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Run, backups(&["one"]));
    core.assign(&bench, &order, 1).await;
    core.drain().await;
    {
        let mut script = bench.host.script();
        script.since_boot = Duration::from_secs(5);
        script.boot_id = "another".to_owned();
        script.now = script.now.plus(HOUR * 3);
    }
    bench.crash = Crash::Never;
    let (_handle, mut core) = bench.start(2).await;
    assert_eq!(core.report(&bench).await.outcome, Outcome::Expired);
    assert_eq!(bench.tasks.count("apply one"), 0);
}

#[tokio::test]
async fn what_a_step_took_beyond_its_limit_is_not_given_to_the_procedure() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.overrun_grace = MINUTE;
    bench.tasks.set("one", Does::Waits);
    bench.tasks.set("two", Does::Waits);
    let (_handle, mut core) = bench.start(1).await;
    let mut procedure = backups(&["one", "two"]);
    procedure["step"][0]["timeout"] = json!("20m");
    let order = bench.order(1, Verb::Run, procedure);
    core.assign(&bench, &order, 1).await;
    core.update("its acceptance", |update| update.run == order.run).await;
    bench.tasks.began("apply one").await;
    let over = MINUTE * 20 + MINUTE / 2;
    bench.host.script().since_boot += over;
    bench.tasks.let_go();
    let second = |update: &fleet_proto::convert::JobUpdate| matches!(&update.state, JobState::Running { step, .. } if step == "two");
    let limits = core.update("the second step", second).await.limits.unwrap();
    assert_eq!(limits.phase_left + over, HOUR + MINUTE);
    bench.tasks.let_go();
    core.report(&bench).await;
}

#[tokio::test]
async fn an_undo_that_takes_all_of_the_limit_leaves_none_for_the_work() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.overrun_grace = MINUTE;
    bench.tasks.set("one", Does::NotesLong);
    let (_handle, mut core) = bench.start(1).await;
    let mut procedure = backups(&["one"]);
    procedure["step"][0]["timeout"] = json!("20m");
    let order = bench.order(1, Verb::Run, procedure);
    core.assign(&bench, &order, 1).await;
    core.update("its acceptance", |update| update.run == order.run).await;
    bench.tasks.began("undo one").await;
    bench.host.script().since_boot += MINUTE * 20 + MINUTE / 2;
    bench.tasks.let_go();
    let report = core.report(&bench).await;
    assert!(
        report.outcome == Outcome::Failed && report.reason.contains("nothing was done"),
        "{}",
        report.reason
    );
    assert_eq!(bench.tasks.count("apply one"), 0);
}
