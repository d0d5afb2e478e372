//! T05, T06: a report arrives in the end, is stored once, and is acknowledged from what is stored.

use std::time::Duration;

use anyhow::Result;
use fleet_proto::pb::reconcile_decision::Decision;
use fleet_tests::fake_agent::Work;
use fleet_tests::test_fleet::TestFleet;
use fleet_tests::wait::{PATIENCE, wait_until};
use fleet_types::run::RunState;

#[tokio::test(flavor = "multi_thread")]
async fn five_lost_acknowledgements_make_one_report_and_one_leaf() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let agent = &fleet.agents[0];
    agent.script(|script| {
        script.acks_to_drop = 5;
        script.resend = Duration::from_millis(50);
    });
    let run = fleet.start_run(fleet.look, 1).await?;
    agent.acknowledged(run).await?;
    let sent = agent.journal(|journal| journal.job(run).map(|job| (job.sent, job.acks)));
    assert_eq!(sent, Some((6, 6)), "sent and acknowledged six times, five of them in vain");
    agent.quiet(Duration::from_millis(300)).await;
    assert_eq!(agent.journal(|j| j.job(run).map(|job| job.sent)), Some(6), "after the ack it is quiet");
    fleet.operator.wait_run(run).await?;
    let checked = fleet.finish().await?;
    assert_eq!((checked.reports, checked.of("job.end").count()), (1, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_finished_while_the_controller_was_dead_is_stored_once_after() -> Result<()> {
    let mut fleet = TestFleet::start(2).await?;
    fleet.script(|script| script.work = Work::Hold);
    let run = fleet.start_run(fleet.look, 2).await?;
    for agent in &fleet.agents {
        agent.started(run).await?;
    }
    fleet.controller.kill().await?;
    for agent in &fleet.agents {
        agent.release(run);
    }
    fleet.controller.start().await?;
    assert_eq!(fleet.operator.wait_run(run).await?.item.state, RunState::Succeeded);
    for agent in &fleet.agents {
        agent.acknowledged(run).await?;
        assert!(agent.links().decisions.contains(&(run, Decision::SendReport)));
    }
    assert_eq!(fleet.finish().await?.reports, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_between_storing_and_acknowledging_says_forget_or_acknowledges_again()
-> Result<()> {
    let mut fleet = TestFleet::start(1).await?;
    // All acknowledgements of the first controller are lost; the second has the report in its store.
    fleet.agents[0].script(|script| script.acks_to_drop = 1_000);
    let run = fleet.start_run(fleet.look, 1).await?;
    fleet.operator.wait_run(run).await?;
    fleet.controller.kill().await?;
    fleet.agents[0].script(|script| script.acks_to_drop = 0);
    fleet.controller.start().await?;
    fleet.agents[0].acknowledged(run).await?;
    assert!(fleet.agents[0].links().decisions.contains(&(run, Decision::Forget)));
    assert_eq!(fleet.finish().await?.of("job.end").count(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_sent_eight_times_at_once_is_stored_once() -> Result<()> {
    let fleet = TestFleet::start(3).await?;
    fleet.script(|script| script.report_copies = 8);
    let run = fleet.start_run(fleet.look, 3).await?;
    for agent in &fleet.agents {
        agent.acknowledged(run).await?;
        wait_until("eight acknowledgements", PATIENCE, || {
            agent.journal(|journal| journal.job(run).is_some_and(|job| job.acks >= 8))
        })
        .await?;
    }
    fleet.operator.wait_run(run).await?;
    assert_eq!(fleet.finish().await?.of("job.end").count(), 3);
    Ok(())
}
