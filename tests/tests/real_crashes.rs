//! T02, T03, T05 with a real agent: deaths at chosen places, one start, one report, one leaf, one archive.

use anyhow::{Result, ensure};
use fleet_tests::clock;
use fleet_tests::sandbox::agreement::{self, Agreed};
use fleet_tests::sandbox::{Sandbox, processes};
use fleet_tests::wait::{PATIENCE, wait_for, wait_until};
use fleet_types::id::RunId;
use fleet_types::job::Outcome;
use fleet_types::view::JobView;

/// All places where an agent can be told to die.
const POINTS: [&str; 4] = ["after_accepted", "after_step_begin", "before_step_end", "after_finished"];
const NODE: &str = "fw-ams2-01";

async fn job(sandbox: &Sandbox, run: RunId) -> Result<JobView> {
    sandbox.operator.json(&["run", "show", &format!("{run}/{NODE}")]).await
}

/// A run in which the agent dies at a point and is started again.
async fn die_at(sandbox: &mut Sandbox, point: &str, procedure: &str) -> Result<RunId> {
    let node = sandbox.node(NODE)?;
    node.stop().await?;
    node.start(&["--crash-at", point])?;
    sandbox.online(NODE).await?;
    let run = sandbox.start_run(procedure).await?;
    let node = sandbox.node(NODE)?;
    let status = node.wait_end().await?;
    ensure!(!status.success(), "it was to abort at {point}");
    node.start(&[])?;
    sandbox.ended(run).await?;
    // An archive bears the second in which its job began, and one of another run is never replaced.
    let second = || clock::now().as_millis() / 1000;
    let last = second();
    wait_until("the next second", PATIENCE, || second() > last).await?;
    Ok(run)
}

fn all_succeeded(agreed: &Agreed, runs: usize, jobs: usize) {
    assert_eq!((agreed.runs, agreed.reports), (runs, jobs), "{agreed:?}");
    assert_eq!(agreed.outcomes.get(&Outcome::Succeeded), Some(&jobs), "{agreed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t03_t05_an_agent_that_dies_between_two_durable_acts_starts_nothing_twice() -> Result<()> {
    let mut sandbox = Sandbox::start(1).await?;
    for point in POINTS {
        let run = die_at(&mut sandbox, point, "short").await?;
        let view = job(&sandbox, run).await?;
        assert_eq!(view.item.attempt.0, 1, "{point}");
        let tries: Vec<_> =
            view.report.iter().flat_map(|report| &report.steps).map(|step| step.tries).collect();
        assert!(tries.len() == 2 && tries[1] == 1, "{point}: {tries:?}");
    }
    let agreed = agreement::check(&sandbox).await?;
    all_succeeded(&agreed, POINTS.len(), POINTS.len());
    assert_eq!((agreed.archives, agreed.updates), (POINTS.len(), POINTS.len()));
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_cannot_be_repeated_is_done_once_or_its_effect_is_called_unknown() -> Result<()> {
    let mut sandbox = Sandbox::start(1).await?;
    for (index, point) in POINTS.into_iter().enumerate() {
        let run = die_at(&mut sandbox, point, "signatures").await?;
        let view = job(&sandbox, run).await?;
        let state = serde_json::to_string(&view.item.state)?;
        eprintln!("{point}: {state}");
        assert!(sandbox.node(NODE)?.updates() <= index + 1, "{point}: {state}");
    }
    let agreed = agreement::check(&sandbox).await?;
    assert_eq!((agreed.runs, agreed.reports), (POINTS.len(), POINTS.len()), "{agreed:?}");
    assert!(agreed.outcomes.get(&Outcome::Succeeded) >= Some(&(POINTS.len() - 1)), "{agreed:?}");
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn t02_a_controller_that_is_killed_twice_during_a_step_adopts_the_job() -> Result<()> {
    let mut sandbox = Sandbox::start(1).await?;
    sandbox.nodes[0].hold()?;
    let run = sandbox.start_run("short").await?;
    sandbox.nodes[0].updating(1).await?;
    for _ in 0..2 {
        sandbox.controller.kill_and_restart().await?;
        wait_for("the job to be seen running again", PATIENCE, async || {
            let state = job(&sandbox, run).await?.item.state;
            Ok(matches!(state, fleet_types::job::JobState::Running { .. }).then_some(()))
        })
        .await?;
    }
    sandbox.nodes[0].release()?;
    sandbox.ended(run).await?;
    assert_eq!(job(&sandbox, run).await?.item.attempt.0, 1);
    let agreed = agreement::check(&sandbox).await?;
    all_succeeded(&agreed, 1, 1);
    assert_eq!((agreed.archives, agreed.updates), (1, 1));
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_its_controller_finishes_and_reports_when_it_is_back() -> Result<()> {
    let mut sandbox = Sandbox::start(2).await?;
    for node in &sandbox.nodes {
        node.hold()?;
    }
    let run = sandbox.start_run("short").await?;
    for node in &sandbox.nodes {
        node.updating(1).await?;
    }
    sandbox.controller.kill().await?;
    for node in &sandbox.nodes {
        node.release()?;
        wait_for("the job to end without a controller", PATIENCE, async || {
            let journal = node.journal().await?;
            ensure!(journal.jobs.iter().all(|job| !job.acknowledged), "nobody was there to acknowledge");
            Ok(journal.jobs.iter().all(|job| job.report.is_some()).then_some(()))
        })
        .await?;
    }
    sandbox.controller.start().await?;
    sandbox.ended(run).await?;
    let agreed = agreement::check(&sandbox).await?;
    all_succeeded(&agreed, 1, 2);
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_outlives_its_agent_and_is_found_again() -> Result<()> {
    let mut sandbox = Sandbox::start(1).await?;
    let root = sandbox.nodes[0].root();
    // Once the step still runs when the agent is back, once it has ended in between.
    for (count, ends_alone) in [(1, false), (2, true)] {
        sandbox.nodes[0].hold()?;
        let run = sandbox.start_run("signatures").await?;
        sandbox.nodes[0].updating(count).await?;
        sandbox.nodes[0].kill().await?;
        if ends_alone {
            sandbox.nodes[0].release()?;
            wait_until("the step to end alone", PATIENCE, || {
                processes::below(&root).is_ok_and(|left| left.is_empty())
            })
            .await?;
        }
        sandbox.nodes[0].start(&[])?;
        sandbox.online(NODE).await?;
        if !ends_alone {
            sandbox.nodes[0].release()?;
        }
        sandbox.ended(run).await?;
    }
    let agreed = agreement::check(&sandbox).await?;
    all_succeeded(&agreed, 2, 2);
    assert_eq!(agreed.updates, 2);
    sandbox.finish().await
}
