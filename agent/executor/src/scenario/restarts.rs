//! Deaths at the worst instants, and a damaged journal.

use fleet_types::job::{EndCause, JobState, Outcome};
use fleet_types::report::StepState;
use fleet_types::request::Verb;

use super::bench::{Bench, backups, checks};
use super::scripted::Does;
use crate::crash::{Crash, CrashPoint};

#[tokio::test]
async fn a_job_survives_a_death_at_every_point_with_one_report() {
    for (point, applies) in [
        (CrashPoint::AfterAccepted, 1),
        (CrashPoint::AfterStepBegin, 1),
        // The task ran and its end was not journaled: the same step is called again, as its contract says.
        (CrashPoint::BeforeStepEnd, 2),
        (CrashPoint::AfterFinished, 1),
    ] {
        let mut bench = Bench::new("mode = \"enforce\"");
        bench.crash = Crash::Halt(point);
        let (_dead, mut core) = bench.start(1).await;
        let order = bench.order(1, Verb::Run, backups(&["one", "two"]));
        core.assign(&bench, &order, 1).await;
        assert_eq!(core.drain().await, 0, "no report before the death {point:?}");
        bench.crash = Crash::Never;
        let (_handle, mut core) = bench.try_start().unwrap();
        core.ready().await;
        core.link_up(&bench, 1, 2).await;
        let report = loop {
            if let Some(fleet_proto::pb::executor_message::Body::Report(report)) =
                core.next("the report").await
            {
                break report;
            }
        };
        let parsed: fleet_types::report::Report =
            fleet_types::canonical::from_slice(&report.payload).unwrap();
        assert_eq!((parsed.outcome, parsed.sequence), (Outcome::Succeeded, 1), "{point:?}");
        assert_eq!(parsed.steps.len(), 2);
        assert_eq!(bench.tasks.count("apply one"), applies, "{point:?}");
        assert_eq!(bench.tasks.count("apply two"), 1, "{point:?}");
        assert_eq!(bench.tasks.count("undo one"), 1, "the undo is that of before the first try");
        let began_before = matches!(point, CrashPoint::AfterStepBegin | CrashPoint::BeforeStepEnd);
        assert_eq!(bench.tasks.view("one").resumed, began_before, "{point:?}");
        assert!(!bench.tasks.view("two").resumed, "{point:?}");
        core.assign(&bench, &order, 2).await;
        assert_eq!(core.sealed(&bench).await, report, "a new offer is answered by the stored report");
        core.ack(&report).await;
        core.link_up(&bench, 1, 3).await;
        assert!(core.reconcile().await.is_empty());
    }
}

#[tokio::test]
async fn a_drained_executor_goes_on_where_it_stopped() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.tasks.set("one", Does::Waits);
    let (mut handle, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Run, backups(&["one", "two"]));
    core.assign(&bench, &order, 1).await;
    core.state("the first step", |s| matches!(s, JobState::Running { .. })).await;
    handle.stop_taking_work();
    let draining = tokio::spawn(handle.drain(std::time::Duration::from_secs(20)));
    let again = bench.order(2, Verb::Run, checks());
    core.assign(&bench, &again, 1).await;
    bench.tasks.let_go();
    assert_eq!(core.drain().await, 0);
    assert_eq!(draining.await.unwrap(), crate::Drained::Quietly);
    bench.tasks.set("one", Does::Fails);
    let (_handle, mut core) = bench.start(2).await;
    let report = core.report(&bench).await;
    assert_eq!((report.job.run, report.outcome), (order.run, Outcome::Succeeded));
    assert_eq!(bench.tasks.count("apply one"), 1);
}

#[tokio::test]
async fn the_time_of_a_job_is_that_of_its_acceptance_in_every_life_and_step() {
    let mut bench = Bench::new("mode = \"enforce\"");
    // No two looks at the clock tell the same second.
    bench.host.script().tick = std::time::Duration::from_secs(1);
    bench.crash = Crash::Halt(CrashPoint::BeforeStepEnd);
    let (_dead, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Run, backups(&["one", "two"]));
    core.assign(&bench, &order, 1).await;
    core.drain().await;
    bench.crash = Crash::Never;
    let (_handle, mut core) = bench.start(2).await;
    assert_eq!(core.report(&bench).await.outcome, Outcome::Succeeded);
    let times = bench.tasks.times();
    assert!(times.len() > 2, "two steps, one of them in both lives");
    assert!(times.iter().flatten().all(|time| *time == times[0][0]), "{times:?}");
}

#[tokio::test]
async fn a_cancel_is_not_forgotten_by_a_restart() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.tasks.set("one", Does::Waits);
    bench.crash = Crash::Halt(CrashPoint::BeforeStepEnd);
    let (_dead, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Run, backups(&["one", "two"]));
    core.assign(&bench, &order, 1).await;
    core.state("the first step", |s| matches!(s, JobState::Running { .. })).await;
    core.cancel(order.run).await;
    core.state("the answer to the cancel", |s| matches!(s, JobState::Running { .. })).await;
    bench.tasks.let_go();
    core.drain().await;
    bench.crash = Crash::Never;
    bench.tasks.set("one", Does::Well);
    let (_handle, mut core) = bench.start(2).await;
    let report = core.report(&bench).await;
    assert_eq!(report.outcome, Outcome::Cancelled);
    assert_eq!(report.steps[0].state, StepState::Succeeded, "what had begun is seen to its end");
    assert_eq!(bench.tasks.count("apply two"), 0);
}

#[tokio::test]
async fn a_damaged_journal_means_no_new_changes_but_reading_goes_on() {
    let mut bench = Bench::new("mode = \"enforce\"");
    let (handle, mut core) = bench.start(1).await;
    let first = bench.order(1, Verb::Run, backups(&["one"]));
    assert_eq!(core.outcome(&bench, &first, 1).await.0, Outcome::Succeeded);
    let second = bench.order(4, Verb::Run, backups(&["one"]));
    assert_eq!(core.outcome(&bench, &second, 1).await.0, Outcome::Succeeded);
    handle.drain(std::time::Duration::from_secs(20)).await;
    let path = bench.path("state/journal");
    let mut bytes = std::fs::read(&path).unwrap();
    let word = b"\"finished\"";
    let end_of_first = bytes.windows(word.len()).position(|at| at == word).unwrap();
    bytes[end_of_first] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(bench.tasks.count("apply one"), 2);
    let (_handle, mut core) = bench.try_start().unwrap();
    assert!(core.ready().await.safe_mode.contains("damaged at byte"));
    core.link_up(&bench, 1, 2).await;
    // Its end lay in the lost part: nobody can say how it ended, so it is not done again.
    let lost = core.reconcile().await;
    assert_eq!(lost.iter().map(|job| job.run).collect::<Vec<_>>(), [first.run, second.run]);
    assert_eq!(lost[1].state.outcome(), Some(Outcome::Succeeded), "what lies behind the damage is known");
    assert!(matches!(
        &lost[0].state,
        JobState::Ended { outcome: Outcome::Failed, cause: Some(EndCause::OutcomeUnknown), .. }
    ));
    let change = bench.order(2, Verb::Run, backups(&["one"]));
    core.assign(&bench, &change, 2).await;
    let refused = loop {
        let report = core.report(&bench).await;
        if report.job.run == change.run {
            break report;
        }
    };
    assert!(refused.reason.starts_with("safe-mode: "), "{}", refused.reason);
    let reading = bench.order(3, Verb::Run, checks());
    assert_eq!(core.outcome(&bench, &reading, 2).await.0, Outcome::Succeeded);
    assert_eq!(bench.tasks.count("apply one"), 2);
}

#[tokio::test]
async fn a_core_that_dies_costs_nothing_and_the_next_one_is_told_everything() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.tasks.set("one", Does::Waits);
    let (handle, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Run, backups(&["one", "two"]));
    core.assign(&bench, &order, 1).await;
    core.state("the first step", |state| matches!(state, JobState::Running { .. })).await;
    drop(core);
    // The work goes on while nobody speaks to the network.
    bench.tasks.let_go();
    bench.tasks.began("apply two").await;
    let mut next = Bench::next_core(&handle);
    let (_, third) = crate::socket::pair().unwrap();
    assert_eq!(next.ready().await.epoch_seen, 1, "told what Hello needs");
    assert!(handle.connect(third), "one may wait");
    let (_, fourth) = crate::socket::pair().unwrap();
    assert!(!handle.connect(fourth), "and no more than one");
    next.link_up(&bench, 1, 2).await;
    let listed = next.reconcile().await;
    assert_eq!(listed.iter().map(|job| job.run).collect::<Vec<_>>(), [order.run]);
    let sealed = next.sealed(&bench).await;
    let report: fleet_types::report::Report = fleet_types::canonical::from_slice(&sealed.payload).unwrap();
    assert_eq!((report.outcome, report.sequence), (Outcome::Succeeded, 1));
    assert_eq!(bench.tasks.calls(), ["undo one", "apply one", "undo two", "apply two"]);
    next.ack(&sealed).await;
    assert_eq!(handle.drain(std::time::Duration::from_secs(20)).await, crate::Drained::Quietly);
}
