//! T22: the controller is killed at random moments while six nodes work through many runs.

use std::time::Duration;

use anyhow::Result;
use fleet_tests::fake_agent::Work;
use fleet_tests::test_fleet::TestFleet;
use fleet_tests::wait::pass;
use fleet_types::run::RunState;

/// Kills of one storm, as the pipeline runs it.
const KILLS: u32 = 25;
/// Runs that are open at the same time, so that every kill hits something.
const RUNS_AT_ONCE: usize = 3;

/// A number below `below` from random bytes.
fn random(below: u64) -> u64 {
    let [a, b, c, d, ..] = *uuid::Uuid::new_v4().as_bytes();
    u64::from(u32::from_be_bytes([a, b, c, d])) % below
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_five_random_kills_lose_and_double_nothing() -> Result<()> {
    let mut fleet = TestFleet::start(6).await?;
    fleet.script(|script| {
        script.work = Work::For(Duration::from_millis(15));
        script.pause = Duration::from_millis(10);
        script.resend = Duration::from_millis(100);
    });
    let (mut runs, mut open) = (Vec::new(), Vec::new());
    for kill in 0..KILLS {
        while open.len() < RUNS_AT_ONCE {
            let procedure = if kill % 2 == 0 { fleet.look } else { fleet.change };
            open.push(fleet.sign(procedure, 6)?);
        }
        // Submitted while the controller may die: an unanswered one is submitted again with the same key.
        let mut service = fleet.operator.raw();
        let requests: Vec<_> =
            open.iter().map(fleet_tests::operator_client::OperatorClient::start_request).collect();
        let submitting = tokio::spawn(async move {
            for request in requests {
                let _ = service.start_run(request).await;
            }
        });
        pass(Duration::from_millis(random(150))).await;
        fleet.controller.strike()?;
        submitting.await?;
        fleet.controller.kill_and_restart().await?;
        // The oldest is made sure of, and left to the next kills.
        let first = open.remove(0);
        runs.push(fleet.operator.start(&first).await?.item.run);
    }
    for order in &open {
        runs.push(fleet.operator.start(order).await?.item.run);
    }
    for run in &runs {
        assert_eq!(fleet.operator.wait_run(*run).await?.item.state, RunState::Succeeded, "{run}");
    }
    for agent in &fleet.agents {
        for run in &runs {
            agent.acknowledged(*run).await?;
        }
    }
    let stored = fleet.operator.runs().await?;
    assert_eq!(stored.len(), runs.len(), "no run that nobody asked for");
    let changing: Vec<String> =
        stored.iter().filter(|run| run.procedure == "change").map(|run| run.run.to_string()).collect();
    assert!(changing.len() > 5);
    let both = fleet.activity.both_of_a_pair();
    let broken: Vec<_> = both.iter().filter(|text| changing.iter().any(|run| text.contains(run))).collect();
    assert!(broken.is_empty(), "the pair rule: {broken:?}");
    let agents = fleet.agents.len();
    let checked = fleet.finish().await?;
    assert_eq!((checked.jobs, checked.reports), (agents * runs.len(), agents * runs.len()));
    assert_eq!(checked.of("job.end").count(), agents * runs.len(), "one leaf a terminal job");
    assert_eq!(checked.of("run.start").count(), runs.len());
    assert_eq!(checked.of("run.end").count(), runs.len());
    Ok(())
}
