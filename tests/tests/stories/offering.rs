//! T02 and its neighbours: an offer on its way while the controller is killed, or that nobody answers.

use anyhow::Result;
use fleet_proto::pb::reconcile_decision::Decision;
use fleet_tests::fake_agent::Work;
use fleet_tests::operator_client::order;
use fleet_tests::test_fleet::TestFleet;
use fleet_tests::wait::{PATIENCE, wait_for};
use fleet_types::run::RunState;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_accepted_just_before_the_controller_was_killed_goes_on_and_is_done_once() -> Result<()> {
    let mut fleet = TestFleet::start(3).await?;
    fleet.script(|script| script.work = Work::Hold);
    let run = fleet.start_run(fleet.look, 3).await?;
    fleet.agents[0].started(run).await?;
    // What the others said or did not say is lost with the controller's memory.
    fleet.controller.kill_and_restart().await?;
    fleet.all_online().await?;
    for agent in &fleet.agents {
        agent.started(run).await?;
        agent.release(run);
    }
    let ended = fleet.operator.wait_run(run).await?;
    assert_eq!(ended.item.state, RunState::Succeeded);
    assert!(fleet.agents[0].links().decisions.contains(&(run, Decision::Continue)));
    let starts: u32 =
        fleet.agents.iter().map(|a| a.journal(|j| j.job(run).map_or(0, |job| job.starts))).sum();
    assert_eq!(starts, 3);
    let checked = fleet.finish().await?;
    assert_eq!((checked.jobs, checked.reports), (3, 3));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_nobody_took_is_made_again_by_the_timer_and_after_a_kill() -> Result<()> {
    let mut fleet = TestFleet::start(2).await?;
    fleet.script(|script| script.answers = false);
    let run = fleet.start_run(fleet.look, 2).await?;
    wait_for("both offers to be stored", PATIENCE, async || {
        let view = fleet.operator.run(run).await?;
        Ok((view.open.get("offered") == Some(&2)).then_some(()))
    })
    .await?;
    // One answers the next repetition, the other the offer of the controller that comes after a kill.
    fleet.agents[0].script(|script| script.answers = true);
    fleet.agents[0].acknowledged(run).await?;
    fleet.controller.kill().await?;
    fleet.agents[1].script(|script| script.answers = true);
    fleet.controller.start().await?;
    fleet.agents[1].acknowledged(run).await?;
    assert_eq!(fleet.operator.wait_run(run).await?.item.state, RunState::Succeeded);
    let checked = fleet.finish().await?;
    assert_eq!((checked.jobs, checked.reports, checked.of("run.wave").count()), (2, 2, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_away_gets_its_job_when_it_comes() -> Result<()> {
    let mut fleet = TestFleet::start(2).await?;
    fleet.agents[1].script(|script| script.connects = false);
    fleet.agents[1].link_end(0).await?;
    let run = fleet.start_run(fleet.look, 2).await?;
    fleet.agents[0].acknowledged(run).await?;
    fleet.controller.kill_and_restart().await?;
    let view = fleet.operator.run(run).await?;
    assert!(!view.item.state.is_terminal(), "a node that is away holds its run open");
    fleet.agents[1].script(|script| script.connects = true);
    assert_eq!(fleet.operator.wait_run(run).await?.item.state, RunState::Succeeded);
    assert_eq!(fleet.finish().await?.reports, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_never_have_both_halves_of_a_pair_in_change() -> Result<()> {
    let mut fleet = TestFleet::start(2).await?;
    fleet.script(|script| script.work = Work::Hold);
    let orders: Vec<_> = fleet
        .nodes()
        .into_iter()
        .map(|node| fleet.operator.sign(&order(fleet.change, fleet.profile, vec![node], 1)))
        .collect::<Result<_>>()?;
    let first = fleet.operator.start(&orders[0]).await?.item.run;
    fleet.agents[0].started(first).await?;
    let second = fleet.operator.start(&orders[1]).await?.item.run;
    for restarted in [false, true] {
        if restarted {
            fleet.controller.kill_and_restart().await?;
            fleet.all_online().await?;
        }
        let why = format!("its pair is held for fw-0 in run {first}");
        wait_for("the second run to say whom it waits for", PATIENCE, async || {
            let jobs = fleet.operator.jobs(second).await?;
            Ok(jobs.iter().any(|job| job.blocked.contains(&why)).then_some(()))
        })
        .await?;
    }
    assert!(fleet.agents[1].journal(|journal| journal.job(second).is_none()));
    fleet.agents[0].release(first);
    fleet.agents[1].started(second).await?;
    fleet.agents[1].release(second);
    for run in [first, second] {
        assert_eq!(fleet.operator.wait_run(run).await?.item.state, RunState::Succeeded);
    }
    fleet.finish().await?;
    Ok(())
}
