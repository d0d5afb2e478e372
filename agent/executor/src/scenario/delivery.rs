//! Delivery: once, in order, answered, acknowledged (T05-T08, T35, T36).

use fleet_types::id::Stage;
use fleet_types::job::{JobState, Outcome};
use fleet_types::report::StepState;
use fleet_types::request::Verb;

use super::bench::{Bench, backups, checks, digest_of};
use super::scripted::Does;

#[tokio::test]
async fn a_job_is_accepted_carried_out_and_reported_in_a_chain() {
    let mut bench = Bench::new("mode = \"enforce\"");
    let (handle, mut core) = bench.start(1).await;
    let first = bench.order(1, Verb::Run, backups(&["one", "two"]));
    core.assign(&bench, &first, 1).await;
    let sealed = core.sealed(&bench).await;
    let report: fleet_types::report::Report = fleet_types::canonical::from_slice(&sealed.payload).unwrap();
    assert_eq!((report.outcome, report.sequence, report.previous), (Outcome::Succeeded, 1, None));
    let steps: Vec<_> = report.steps.iter().map(|s| (s.id.as_str(), s.state, s.tries)).collect();
    assert_eq!(steps, [("one", StepState::Succeeded, 1), ("two", StepState::Succeeded, 1)]);
    assert_eq!(bench.tasks.calls(), ["undo one", "apply one", "undo two", "apply two"]);
    let told: Vec<_> = core.states.iter().map(|(_, state)| state.as_str()).collect();
    assert_eq!(told, ["accepted", "running", "running"]);
    core.ack(&sealed).await;

    let second = bench.order(2, Verb::Run, checks());
    core.assign(&bench, &second, 1).await;
    let next = core.report(&bench).await;
    assert_eq!((next.sequence, next.previous), (2, Some(digest_of(&sealed))));
    assert_eq!(core.asked.len(), 5, "the profile was here already");
    assert_eq!(handle.drain(std::time::Duration::from_secs(20)).await, crate::Drained::Quietly);
}

#[tokio::test]
async fn a_hundred_duplicates_start_once_and_are_answered() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.tasks.set("one", Does::Waits);
    let (_handle, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Run, backups(&["one"]));
    for _ in 0..100 {
        core.assign(&bench, &order, 1).await;
    }
    while core.states.len() < 101 {
        core.next("answers to a hundred assignments").await;
    }
    bench.tasks.let_go();
    assert_eq!(core.report(&bench).await.outcome, Outcome::Succeeded);
    assert_eq!(bench.tasks.count("apply one"), 1);
    // A question about a finished job is answered with the stored report.
    core.assign(&bench, &order, 1).await;
    assert_eq!(core.report(&bench).await.sequence, 1);
    assert_eq!(bench.tasks.count("apply one"), 1);
}

#[tokio::test]
async fn a_cancel_before_its_assignment_leaves_a_tombstone() {
    let mut bench = Bench::new("mode = \"enforce\"");
    let (_handle, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Run, backups(&["one"]));
    core.cancel(order.run).await;
    core.state("the answer to the cancel", |s| s.outcome() == Some(Outcome::Cancelled)).await;
    assert_eq!(core.outcome(&bench, &order, 1).await, (Outcome::Cancelled, "enough".to_owned()));
    assert_eq!(bench.tasks.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_cancel_takes_effect_between_steps() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.tasks.set("one", Does::Waits);
    let (_handle, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Run, backups(&["one", "two"]));
    core.assign(&bench, &order, 1).await;
    core.state("the first step", |s| matches!(s, JobState::Running { .. })).await;
    core.cancel(order.run).await;
    core.state("the answer to the cancel", |s| matches!(s, JobState::Running { .. })).await;
    bench.tasks.let_go();
    let report = core.report(&bench).await;
    assert_eq!((report.outcome, report.reason.as_str()), (Outcome::Cancelled, "enough"));
    assert_eq!(report.steps[0].state, StepState::Succeeded);
    assert_eq!(report.steps[1].state, StepState::Skipped);
    assert_eq!(bench.tasks.count("apply two"), 0);
}

#[tokio::test]
async fn a_lost_ack_is_answered_by_the_same_report_and_nothing_runs_again() {
    let mut bench = Bench::new("mode = \"enforce\"");
    let (_handle, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Run, backups(&["one"]));
    core.assign(&bench, &order, 1).await;
    let first = core.sealed(&bench).await;
    for epoch in 2..7 {
        core.link_up(&bench, 1, epoch).await;
        let open = core.reconcile().await;
        assert_eq!(open[0].report, Some(digest_of(&first)));
        assert_eq!(core.sealed(&bench).await, first);
    }
    core.ack(&first).await;
    core.link_up(&bench, 1, 7).await;
    assert!(core.reconcile().await.is_empty());
    assert_eq!(bench.tasks.count("apply one"), 1);
}

#[tokio::test]
async fn changing_jobs_go_one_at_a_time_and_reading_ones_beside_them() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.tasks.set("one", Does::Waits);
    let (_handle, mut core) = bench.start(1).await;
    let first = bench.order(1, Verb::Run, backups(&["one"]));
    let second = bench.order(2, Verb::Run, backups(&["two"]));
    let reading = bench.order(3, Verb::Run, checks());
    core.assign(&bench, &first, 1).await;
    core.state("the first job's step", |s| matches!(s, JobState::Running { .. })).await;
    core.assign(&bench, &second, 1).await;
    assert_eq!(core.outcome(&bench, &reading, 1).await.0, Outcome::Succeeded);
    assert_eq!(bench.tasks.count("apply two"), 0);
    bench.tasks.let_go();
    assert_eq!(core.report(&bench).await.job.run, first.run);
    assert_eq!(core.report(&bench).await.job.run, second.run);
}

#[tokio::test]
async fn a_new_attempt_waits_for_the_old_one_and_a_use_is_spent_once() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.tasks.set("one", Does::Waits);
    let (_handle, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Run, backups(&["one"]));
    core.assign(&bench, &order, 1).await;
    core.state("the step", |s| matches!(s, JobState::Running { .. })).await;
    let again = bench.assignment(&order, 2, 1);
    core.assign_exactly(&bench, &again).await;
    core.state("the older attempt as the answer", |s| matches!(s, JobState::Running { .. })).await;
    bench.tasks.let_go();
    assert_eq!(core.report(&bench).await.attempt.0, 1);
    core.assign_exactly(&bench, &again).await;
    let refused = core.report(&bench).await;
    assert_eq!((refused.attempt.0, refused.outcome), (2, Outcome::Refused));
    assert!(refused.reason.starts_with("use-spent"), "{}", refused.reason);
    // Another stage of the job is carried out once as well, and the one before it never again.
    bench.tasks.set("one", Does::Well);
    for (attempt, stage, outcome) in
        [(3, 1, Outcome::Succeeded), (4, 1, Outcome::Refused), (5, 0, Outcome::Refused)]
    {
        let mut next = bench.assignment(&order, attempt, 1);
        next.job.stage = Stage(stage);
        core.assign_exactly(&bench, &next).await;
        let report = core.report(&bench).await;
        assert_eq!((report.attempt, report.job, report.outcome), (next.attempt, next.job, outcome));
    }
    assert_eq!(bench.tasks.count("apply one"), 2);
}
