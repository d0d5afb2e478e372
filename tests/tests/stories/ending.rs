//! How runs end other than well: cancelled, expired, failed; and what arrives after the end.

use std::time::{Duration, Instant};

use anyhow::Result;
use fleet_proto::pb::reconcile_decision::Decision;
use fleet_tests::fake_agent::{FakeAgent, Work};
use fleet_tests::operator_client::order;
use fleet_tests::test_fleet::TestFleet;
use fleet_tests::wait::{PATIENCE, wait_for, wait_until};
use fleet_types::id::Attempt;
use fleet_types::job::Outcome;
use fleet_types::run::RunState;

fn all_cancelled(jobs: &[fleet_types::view::JobItem]) -> bool {
    jobs.iter().all(|job| job.state.outcome() == Some(Outcome::Cancelled))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_what_waits_and_asks_what_runs_to_stop() -> Result<()> {
    let fleet = TestFleet::start(6).await?;
    fleet.script(|script| script.work = Work::Hold);
    let run = fleet.start_run(fleet.look, 2).await?;
    wait_until("two to work", PATIENCE, || fleet.activity.peak(run) == 2).await?;
    fleet.operator.cancel(run).await?;
    let ended = fleet.operator.wait_run(run).await?;
    assert_eq!(ended.item.state, RunState::Cancelled);
    assert!(ended.stopped_because.contains("the story says so"), "{}", ended.stopped_because);
    assert!(all_cancelled(&fleet.operator.jobs(run).await?));
    assert_eq!(fleet.activity.peak(run), 2, "nothing started after the cancel");
    let again = fleet.operator.cancel(run).await.unwrap_err();
    let status = again.downcast_ref::<tonic::Status>().unwrap();
    assert_eq!(status.code(), tonic::Code::Aborted, "an ended run cannot be cancelled: {status}");
    let checked = fleet.finish().await?;
    assert_eq!((checked.jobs, checked.reports, checked.of("run.cancel").count()), (6, 2, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_outlives_a_kill_and_reaches_a_node_that_was_away() -> Result<()> {
    let mut fleet = TestFleet::start(2).await?;
    fleet.script(|script| {
        script.work = Work::Hold;
        script.obeys_cancel = false;
    });
    let run = fleet.start_run(fleet.look, 2).await?;
    for agent in &fleet.agents {
        agent.started(run).await?;
    }
    fleet.agents[1].script(|script| script.connects = false);
    fleet.agents[1].link_end(0).await?;
    fleet.operator.cancel(run).await?;
    fleet.controller.kill_and_restart().await?;
    assert_eq!(fleet.operator.run(run).await?.item.state, RunState::Halting);
    fleet.script(|script| {
        script.obeys_cancel = true;
        script.connects = true;
    });
    assert_eq!(fleet.operator.wait_run(run).await?.item.state, RunState::Cancelled);
    assert!(fleet.agents[1].links().decisions.contains(&(run, Decision::Cancel)));
    assert_eq!(fleet.finish().await?.reports, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_is_told_at_once_and_then_once_an_offer_interval_until_the_end() -> Result<()> {
    // 30 s at 1/50 of the scale; a little less, because it is measured where it arrives.
    const INTERVAL: Duration = Duration::from_millis(600 - 100);
    let fleet = TestFleet::start(2).await?;
    let [stubborn, busy] = &fleet.agents[..] else { anyhow::bail!("two agents") };
    stubborn.script(|script| {
        script.work = Work::Hold;
        script.obeys_cancel = false;
    });
    let one = |agent: &FakeAgent| order(fleet.look, fleet.profile, vec![agent.credentials().node], 1);
    let held = fleet.operator.sign(&one(stubborn))?;
    let run = fleet.operator.start(&held).await?.item.run;
    stubborn.started(run).await?;
    fleet.operator.cancel(run).await?;
    let told = || stubborn.links().cancels.iter().filter(|(of, _)| *of == run).map(|(_, at)| *at).collect();
    // Other work makes the runner look at everything again and again meanwhile.
    let mut runs = 0;
    let times: Vec<Instant> = wait_for("the cancel to be told three times", PATIENCE, async || {
        let other = fleet.operator.start(&fleet.operator.sign(&one(busy))?).await?.item.run;
        fleet.operator.wait_run(other).await?;
        runs += 1;
        let times: Vec<Instant> = told();
        Ok((times.len() >= 3).then_some(times))
    })
    .await?;
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= INTERVAL, "told again after {:?}, {runs} runs", pair[1] - pair[0]);
    }
    assert!(runs >= 3, "the runner had reasons to look: {runs} runs");
    stubborn.script(|script| script.obeys_cancel = true);
    assert_eq!(fleet.operator.wait_run(run).await?.item.state, RunState::Cancelled);
    let told: Vec<Instant> = told();
    stubborn.quiet(2 * INTERVAL).await;
    let after = stubborn.links().cancels.iter().filter(|(of, _)| *of == run).count();
    assert_eq!(after, told.len(), "nothing is told after the end");
    fleet.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_of_an_offer_that_the_node_never_saw_is_answered_and_ends_the_run() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let agent = &fleet.agents[0];
    agent.script(|script| script.answers = false);
    let run = fleet.start_run(fleet.look, 1).await?;
    wait_for("the offer to be stored", PATIENCE, async || {
        Ok((fleet.operator.run(run).await?.open.get("offered") == Some(&1)).then_some(()))
    })
    .await?;
    agent.script(|script| script.connects = false);
    agent.link_end(0).await?;
    fleet.operator.cancel(run).await?;
    // It comes back and knows nothing of the job: the cancel comes first, the assignment is answered by it.
    agent.script(|script| {
        script.answers = true;
        script.connects = true;
    });
    assert_eq!(fleet.operator.wait_run(run).await?.item.state, RunState::Cancelled);
    assert_eq!(agent.journal(|journal| journal.job(run).map(|job| job.starts)), Some(0));
    assert_eq!(fleet.finish().await?.reports, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_start_in_time_expires_and_a_report_after_that_is_kept_beside_it() -> Result<()> {
    let fleet = TestFleet::start(2).await?;
    let away = &fleet.agents[1];
    away.script(|script| script.connects = false);
    away.link_end(0).await?;
    let mut order = fleet.order(fleet.look, 2);
    order.valid_for = Duration::from_millis(1500);
    let order = fleet.operator.sign(&order)?;
    let run = fleet.operator.start(&order).await?.item.run;
    let ended = fleet.operator.wait_run(run).await?;
    assert_eq!(
        (ended.item.state, ended.item.tally.ended.get(&Outcome::Expired)),
        (RunState::Partly, Some(&1))
    );
    // The node had taken the job from a controller that has since been put back to an older state.
    let request = fleet_types::digest::Digest::of(
        &serde_json::from_slice::<fleet_types::seal::Envelope>(&order.envelope)?.payload,
    );
    let key = (run, Attempt(1));
    away.journal(|journal| journal.on_assign(key, request))?;
    away.release(run);
    away.script(|script| script.connects = true);
    let late = away.acknowledged(run).await?;
    let job = fleet.operator.job(run, away.name()).await?;
    assert_eq!(job.item.state.outcome(), Some(Outcome::Expired), "a terminal state never changes");
    assert_eq!(job.item.late_report, Some(late.digest));
    assert_eq!(fleet.operator.run(run).await?.item.state, RunState::Partly);
    let checked = fleet.finish().await?;
    assert_eq!(checked.of("job.end").filter(|leaf| leaf.reason.starts_with("late")).count(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failure_makes_the_run_partly_and_all_make_it_failed() -> Result<()> {
    let fleet = TestFleet::start(3).await?;
    fleet.agents[2].script(|script| script.outcome = Outcome::Failed);
    let run = fleet.start_run(fleet.look, 3).await?;
    assert_eq!(fleet.operator.wait_run(run).await?.item.state, RunState::Partly);
    fleet.script(|script| script.outcome = Outcome::Failed);
    let run = fleet.start_run(fleet.look, 3).await?;
    assert_eq!(fleet.operator.wait_run(run).await?.item.state, RunState::Failed);
    assert_eq!(fleet.finish().await?.reports, 6);
    Ok(())
}
