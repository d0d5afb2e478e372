//! What an earlier life of the executor left: programs that still run, steps that had begun, reports that are gone.

use std::fs;
use std::time::Duration;

use fleet_proto::convert::JobUpdate;
use fleet_types::canonical;
use fleet_types::id::{Attempt, RunId};
use fleet_types::job::{JobState, Outcome};
use fleet_types::report::Report;
use fleet_types::request::Verb;
use serde_json::json;

use super::bench::{Bench, backups, checks};
use super::scripted::Does;
use crate::crash::{Crash, CrashPoint};
use crate::host::Living;

fn running(update: &JobUpdate) -> bool {
    matches!(update.state, JobState::Running { .. })
}

#[tokio::test]
async fn no_change_starts_beside_a_program_of_a_run_that_is_over() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.host.script().living = vec![Living { run: RunId::from_number(77), record: "1.one.1.main".into() }];
    let (_handle, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Run, backups(&["one"]));
    core.assign(&bench, &order, 1).await;
    let queued = core.update("its acceptance", |update| update.run == order.run).await;
    assert_eq!(queued.limits.unwrap().behind, Some(RunId::from_number(77)));
    let reading = bench.order(2, Verb::Run, checks());
    assert_eq!(core.outcome(&bench, &reading, 1).await.0, Outcome::Succeeded, "reading goes on");
    assert_eq!(bench.tasks.count("apply one"), 0);
    bench.host.script().living.clear();
    assert_eq!(core.report(&bench).await.outcome, Outcome::Succeeded, "its end is noticed by itself");
}

#[tokio::test]
async fn the_way_back_waits_for_no_program_but_passes_over_what_would_run_beside_one() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.tasks.set("two", Does::Waits);
    let (_handle, mut core) = bench.start(1).await;
    let mut procedure = backups(&["one", "two", "three"]);
    procedure["step"][2]["on_failure"] = json!("rollback");
    bench.tasks.set("three", Does::Fails);
    let order = bench.order(1, Verb::Run, procedure);
    core.assign(&bench, &order, 1).await;
    core.update("its acceptance", |update| update.run == order.run).await;
    bench.tasks.began("apply two").await;
    // The second step's program outlives its step; the first one's undo is its own program.
    bench.host.script().living = ["1.two.1.main", "1.undo_3aone.1.main"]
        .map(|record| Living { run: order.run, record: record.to_owned() })
        .into();
    bench.tasks.let_go();
    let report = core.report(&bench).await;
    assert_eq!(report.outcome, Outcome::RollbackFailed, "{}", report.reason);
    assert_eq!(bench.tasks.count("revert undo:one"), 0);
    let own = Living { run: order.run, record: "1.undo_3aone.2.main".to_owned() };
    assert!(own.is_of(Attempt(1), "undo:one") && !own.is_of(Attempt(1), "undo:on"));
}

#[tokio::test]
async fn a_step_that_began_is_seen_to_its_end_whatever_its_condition_says_now() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.crash = Crash::Halt(CrashPoint::AfterStepBegin);
    let (_dead, mut core) = bench.start(1).await;
    let mut procedure = backups(&["one", "two"]);
    for step in 0..2 {
        procedure["step"][step]["when"] = json!("not facts.lvm");
    }
    let order = bench.order(1, Verb::Run, procedure);
    core.assign(&bench, &order, 1).await;
    core.drain().await;
    bench.crash = Crash::Never;
    bench.has_lvm = true;
    let (_handle, mut core) = bench.start(2).await;
    let report = core.report(&bench).await;
    assert_eq!(report.outcome, Outcome::Succeeded, "{}", report.reason);
    assert_eq!((bench.tasks.count("apply one"), bench.tasks.count("apply two")), (1, 0));
}

#[tokio::test]
async fn a_job_has_one_report_however_often_it_is_cancelled() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.tasks.set("one", Does::Waits);
    let (_handle, mut core) = bench.start(1).await;
    let (first, second) =
        (bench.order(1, Verb::Run, backups(&["one"])), bench.order(2, Verb::Run, backups(&["two"])));
    core.assign(&bench, &first, 1).await;
    core.update("the first job's step", running).await;
    core.assign(&bench, &second, 1).await;
    core.update("the second", |update| update.run == second.run).await;
    // No report can be stored.
    let (reports, away) = (bench.path("state/reports"), bench.path("state/away"));
    fs::rename(&reports, &away).unwrap();
    for _ in 0..3 {
        core.cancel(second.run).await;
    }
    // Taken in order: what is answered now stands behind them.
    core.link_up(&bench, 1, 2).await;
    core.reconcile().await;
    fs::rename(&away, &reports).unwrap();
    core.link_up(&bench, 1, 3).await;
    let sealed = core.sealed(&bench).await;
    let report: Report = canonical::from_slice(&sealed.payload).unwrap();
    assert_eq!((report.job.run, report.outcome, report.sequence), (second.run, Outcome::Cancelled, 1));
    core.reconcile().await;
    core.ack(&sealed).await;
    bench.tasks.let_go();
    loop {
        let report = core.report(&bench).await;
        if report.job.run == first.run {
            assert_eq!(report.sequence, 2, "and no other stands between them");
            break;
        }
    }
}

#[tokio::test]
async fn a_report_that_is_lost_is_made_anew_in_a_chain_that_says_so() {
    for restarts in [true, false] {
        let mut bench = Bench::new("mode = \"enforce\"");
        let (handle, mut core) = bench.start(1).await;
        let mut digests = Vec::new();
        for number in 1..=2 {
            let order = bench.order(number, Verb::Run, backups(&["one"]));
            core.assign(&bench, &order, 1).await;
            digests.push(super::bench::digest_of(&core.sealed(&bench).await));
        }
        fs::remove_file(bench.path("state/reports").join(digests[0].to_string())).unwrap();
        let (_handle, mut core) = if restarts {
            handle.drain(Duration::from_secs(20)).await;
            let (handle, mut core) = bench.try_start().unwrap();
            core.ready().await;
            (handle, core)
        } else {
            (handle, core)
        };
        core.link_up(&bench, 1, 2).await;
        assert_eq!(core.reconcile().await.len(), 2);
        let mut reports = Vec::new();
        for _ in 0..2 {
            reports.push(core.report(&bench).await);
        }
        assert_eq!(reports[0].job.run, RunId::from_number(1));
        assert_eq!(reports[0].outcome, Outcome::Succeeded);
        assert!(reports[0].reason.contains("were lost"), "{}", reports[0].reason);
        let why = reports[0].new_chain.clone().unwrap_or_default();
        assert!(why.contains("gone or damaged"), "{why}");
        assert_eq!(reports[1].steps.len(), 1, "what is there comes whole");
        assert_eq!(reports[1].new_chain, None);
    }
}
