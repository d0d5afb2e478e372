//! Steps that restart the machine: taken up in the next boot, confirmed there or put back, and whoever dies in between.

use std::sync::Arc;
use std::time::Duration;

use fleet_types::job::{EndCause, JobState, Outcome};
use fleet_types::report::{Report, StepState};
use fleet_types::request::Verb;
use serde_json::json;

use super::bench::{Bench, Order};
use super::core::Core;
use super::scripted::Does;
use crate::crash::{Crash, CrashPoint};
use crate::guard::{Deadline, Keeper, Pending, put_back};
use crate::host::Host as _;

fn bench() -> Bench {
    let mut bench = Bench::new("mode = \"enforce\"\nreboot = \"always\"\nallow_actions = [\"*\"]");
    bench.overrun_grace = Duration::from_millis(50);
    bench.host.script().unit_traits.systemd = true;
    bench.tasks.set("one", Does::Restarts);
    bench
}

fn order(bench: &Bench) -> Order {
    let step = json!({"id": "one", "kind": "task", "title": "Restart", "uses": "reboot",
        "guard": {"confirm_within": "10s"}, "on_failure": "rollback"});
    bench.order(1, Verb::Run, json!({"step": [step]}))
}

fn restarts(bench: &Bench) -> usize {
    bench.host.script().unit_calls.iter().filter(|call| *call == "restart the machine").count()
}

/// Another boot, a moment after its begin.
fn boots(bench: &Bench, id: &str) {
    let mut script = bench.host.script();
    id.clone_into(&mut script.boot_id);
    script.since_boot = Duration::from_secs(5);
}

fn armed(bench: &Bench) -> Pending {
    Pending::all(&Keeper::folder_in(&bench.path("state"))).remove(0)
}

/// The step up to the restart, and the end of the executor that comes with it.
async fn goes_down(bench: &mut Bench) {
    let order = order(bench);
    let (handle, mut core) = bench.start(1).await;
    core.assign(bench, &order, 1).await;
    // Asked for the way home before, which the core answers while it is heard.
    core.state("the step to run", |state| matches!(state, JobState::Running { .. })).await;
    bench.tasks.began("apply one").await;
    handle.drain(Duration::from_secs(20)).await;
    assert_eq!(core.drain().await, 0, "no report: the job goes on");
    assert_eq!(restarts(bench), 1);
}

/// The executor of the new boot, and its report.
async fn comes_up(bench: &mut Bench, ways: usize) -> (Report, Core) {
    bench.crash = Crash::Never;
    let (_handle, mut core) = bench.try_start().unwrap();
    core.ways = ways;
    core.ready().await;
    core.link_up(bench, 1, 2).await;
    core.reconcile().await;
    (core.report(bench).await, core)
}

/// Waits until the guard counts anew.
async fn counted_anew(bench: &Bench) -> Deadline {
    let counted = async {
        loop {
            if let Some(deadline) = armed(bench).deadline().filter(|deadline| deadline.anew) {
                return deadline;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), counted).await.expect("the guard counts anew")
}

#[tokio::test]
async fn a_restart_is_done_once_and_confirmed_in_the_next_boot() {
    let mut bench = bench();
    goes_down(&mut bench).await;
    boots(&bench, "the next");
    let (report, _core) = comes_up(&mut bench, usize::MAX).await;
    assert_eq!(report.outcome, Outcome::Succeeded, "{}", report.reason);
    assert_eq!(bench.tasks.calls(), ["undo one", "apply one", "apply one", "keep one"]);
    assert_eq!(restarts(&bench), 1);
    assert!(Pending::all(&Keeper::folder_in(&bench.path("state"))).is_empty());
}

#[tokio::test]
async fn a_machine_that_comes_back_and_is_not_reached_is_put_back() {
    let mut bench = bench();
    goes_down(&mut bench).await;
    boots(&bench, "the next");
    let (report, _core) = comes_up(&mut bench, 0).await;
    let end = (report.outcome, report.cause);
    assert_eq!(end, (Outcome::RolledBack, Some(EndCause::Unconfirmed)), "{}", report.reason);
    assert_eq!(bench.tasks.count("revert guard:one"), 1);
    assert_eq!(bench.tasks.count("keep one"), 0);
}

#[tokio::test]
async fn the_guard_gives_the_next_boot_its_time_and_the_one_after_that_none() {
    let mut bench = bench();
    goes_down(&mut bench).await;
    boots(&bench, "the next");
    let anew = counted_anew(&bench).await;
    assert_eq!(
        anew.ms,
        5_000 + 10_000 + 300_000,
        "from its first look: the step's own time and that of a start"
    );
    // No agent comes.
    bench.host.script().since_boot = Duration::from_millis(anew.ms);
    bench.tasks.began("revert guard:one").await;

    let mut other = self::bench();
    goes_down(&mut other).await;
    boots(&other, "the next");
    counted_anew(&other).await;
    boots(&other, "a third");
    other.tasks.began("revert guard:one").await;
}

#[tokio::test]
async fn a_death_around_the_request_asks_again_in_the_same_boot_and_not_in_the_next() {
    for boot in [None, Some("the next")] {
        let mut bench = bench();
        bench.crash = Crash::Halt(CrashPoint::AfterRestartNoted);
        let order = order(&bench);
        let (_dead, mut core) = bench.start(1).await;
        core.assign(&bench, &order, 1).await;
        assert_eq!(core.drain().await, 0);
        assert_eq!(restarts(&bench), 0);
        if let Some(boot) = boot {
            boots(&bench, boot);
        } else {
            bench.crash = Crash::Never;
            let (handle, _core) = bench.start(2).await;
            while restarts(&bench) == 0 {
                tokio::task::yield_now().await;
            }
            handle.drain(Duration::from_secs(20)).await;
            boots(&bench, "the next");
        }
        let (report, _core) = comes_up(&mut bench, usize::MAX).await;
        assert_eq!(report.outcome, Outcome::Succeeded, "{}", report.reason);
        assert_eq!(restarts(&bench), usize::from(boot.is_none()));
    }
}

#[tokio::test]
async fn a_machine_that_will_not_restart_fails_the_step_and_nothing_is_left() {
    let mut bench = bench();
    bench.host.script().unit_traits.stuck.insert("reboot.target".to_owned());
    let order = order(&bench);
    let (_handle, mut core) = bench.start(1).await;
    core.assign(&bench, &order, 1).await;
    let report = core.report(&bench).await;
    assert_eq!(report.outcome, Outcome::RolledBack, "{}", report.reason);
    assert!(
        report.reason.contains("was not restarted: unit reboot.target: access denied"),
        "{}",
        report.reason
    );
}

#[tokio::test]
async fn the_way_back_may_restart_the_machine_too_and_says_when_that_did_not_come() {
    let mut bench = bench();
    bench.tasks.set("guard:one", Does::Restarts);
    goes_down(&mut bench).await;
    let order = Arc::new(armed(&bench).order().unwrap().unwrap());
    let (host, tasks) = (bench.host.handle(), bench.tasks.table());
    let steps = put_back(&order, &host, &tasks, None, &|limit| format!("not within {} s", limit.as_secs()));
    assert_eq!((steps[0].state, steps[0].cause), (StepState::Failed, Some(EndCause::OutcomeUnknown)));
    assert!(steps[0].body.summary.contains("not within"), "{}", steps[0].body.summary);
    // The guard of the next boot knows from which it came.
    let before = bench.host.script().boot_id.clone();
    boots(&bench, "the next");
    let steps = put_back(&order, &host, &tasks, Some(&before), &|_| unreachable!("once"));
    assert_eq!(steps[0].state, StepState::Succeeded);
}

#[tokio::test]
async fn the_owner_says_whether_and_how_often() {
    for (policy, up, rule) in [
        ("reboot = \"never\"", 100_000, "reboot-not-allowed"),
        ("reboot = \"window\"", 100_000, "reboot-not-allowed"),
        ("reboot = \"ask\"", 100_000, "reboot-not-allowed"),
        ("reboot = \"always\"", 3_599, "reboot-cooldown"),
        ("reboot = \"always\"\nreboot_cooldown = \"2h\"", 3_601, "reboot-cooldown"),
    ] {
        let mut bench = Bench::new(&format!("mode = \"enforce\"\nallow_actions = [\"*\"]\n{policy}"));
        {
            let mut script = bench.host.script();
            script.unit_traits.systemd = true;
            script.since_boot = Duration::from_secs(up);
        }
        let order = order(&bench);
        let (_handle, mut core) = bench.start(1).await;
        let (outcome, reason) = core.outcome(&bench, &order, 1).await;
        assert_eq!(outcome, Outcome::Refused, "{policy}: {reason}");
        assert!(reason.contains(rule), "{policy}: {reason}");
    }
}
