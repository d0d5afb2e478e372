//! The cap and the pair rule, judged by what six nodes in three pairs really did at the same time.

use std::time::Duration;

use anyhow::Result;
use fleet_tests::fake_agent::Work;
use fleet_tests::test_fleet::TestFleet;
use fleet_types::run::RunState;

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_the_cap_and_never_both_of_a_pair() -> Result<()> {
    let mut fleet = TestFleet::start(6).await?;
    fleet.script(|script| script.work = Work::For(Duration::from_millis(150)));
    let capped = fleet.start_run(fleet.look, 2).await?;
    fleet.operator.wait_run(capped).await?;
    assert_eq!(fleet.activity.peak(capped), 2, "the cap is used, and kept");

    let before = fleet.activity.both_of_a_pair().len();
    let changing = fleet.start_run(fleet.change, 6).await?;
    // Killed in the middle: the rules hold over what is in flight from before.
    fleet.agents[0].started(changing).await?;
    fleet.controller.kill_and_restart().await?;
    assert_eq!(fleet.operator.wait_run(changing).await?.item.state, RunState::Succeeded);
    assert_eq!(fleet.activity.both_of_a_pair().len(), before, "{:?}", fleet.activity.both_of_a_pair());
    assert_eq!(fleet.activity.peak(changing), 3, "one of each pair");

    let reading = fleet.start_run(fleet.look, 6).await?;
    fleet.operator.wait_run(reading).await?;
    assert_eq!(fleet.activity.peak(reading), 6, "what changes nothing does not wait for partners");
    assert_eq!(fleet.finish().await?.jobs, 18);
    Ok(())
}
