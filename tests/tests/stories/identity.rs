//! One machine, one identity: what cannot be the node that it says it is does no work until an operator decides.

use anyhow::{Context as _, Result, ensure};
use fleet_tests::audit_check::read_log;
use fleet_tests::fake_agent::{FakeAgent, Script, Work};
use fleet_tests::test_fleet::TestFleet;
use fleet_tests::wait::{PATIENCE, wait_for};
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, RunId};
use fleet_types::job::{JobState, Outcome};
use fleet_types::run::RunState;
use tonic::Code;

/// Waits until an agent is turned away because its node is held; the reason.
async fn turned_away(agent: &FakeAgent) -> Result<String> {
    wait_for("the node to be turned away", PATIENCE, async || {
        let ends = agent.links().ends;
        Ok(ends.into_iter().find(|(code, _)| *code == Some(Code::FailedPrecondition)).map(|(_, why)| why))
    })
    .await
}

/// The one record of a hold, and that it says why.
async fn told_once(fleet: &TestFleet, why: &str) -> Result<()> {
    let log = read_log(&fleet.operator).await?;
    let told: Vec<_> = log.iter().filter(|record| record.action == "node.hold").collect();
    let [one] = told[..] else { anyhow::bail!("{} records of a hold: {told:?}", told.len()) };
    ensure!(one.reason.contains(why), "{}", one.reason);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_restored_from_an_image_works_nothing_twice_until_it_is_released() -> Result<()> {
    let mut fleet = TestFleet::start(1).await?;
    fleet.script(|script| script.work = Work::Hold);
    let run = fleet.start_run(fleet.look, 1).await?;
    let original = fleet.agents.remove(0);
    original.started(run).await?;
    wait_for("the controller to hear of it", PATIENCE, async || {
        let state = fleet.operator.job(run, "fw-0").await?.item.state;
        Ok((!matches!(state, JobState::Queued | JobState::Offered)).then_some(()))
    })
    .await?;
    // The machine dies in mid-step, and the image that comes up is of before the job.
    let credentials = original.credentials().clone();
    drop(original);
    let image = fleet.agent(credentials, Script::default())?;
    let why = turned_away(&image).await?;
    ensure!(why.contains("restored from an image"), "{why}");
    let ended = fleet.operator.wait_run(run).await?;
    assert_eq!(ended.item.tally.ended.get(&Outcome::Lost), Some(&1));
    let shown = fleet.operator.node("fw-0").await?.item;
    ensure!(shown.hold.is_some_and(|hold| hold.reason.contains("restored from an image")), "it is shown");
    // It goes on dialling, a controller that starts anew turns it away, too, and the log has one record.
    fleet.controller.kill_and_restart().await?;
    let ends = image.links().ends.len();
    image.link_end(ends).await?;
    told_once(&fleet, "restored from an image").await?;
    ensure!(image.journal(|journal| journal.jobs.is_empty()), "the job was not offered again");
    fleet.operator.release("fw-0").await?;
    image.online().await?;
    fleet.agents.push(image);
    let run = fleet.start_run(fleet.look, 1).await?;
    assert_eq!(fleet.operator.wait_run(run).await?.item.state, RunState::Succeeded);
    fleet.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_contradicts_the_chain_holds_the_node_and_a_release_begins_a_new_one() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let agent = &fleet.agents[0];
    let before = agent.journal(|journal| (journal.reports, journal.previous));
    let run = fleet.start_run(fleet.look, 1).await?;
    agent.acknowledged(run).await?;
    fleet.operator.wait_run(run).await?;
    // The node forgets its newest report: the next one takes its number.
    agent.journal(|journal| (journal.reports, journal.previous) = before);
    let second = fleet.start_run(fleet.look, 1).await?;
    let why = turned_away(agent).await?;
    ensure!(why.contains("two reports with the number 1"), "{why}");
    assert_eq!(fleet.operator.wait_run(second).await?.item.tally.ended.get(&Outcome::Lost), Some(&1));
    told_once(&fleet, "two reports with the number 1").await?;
    fleet.operator.release(agent.name()).await?;
    // What it did is told after all, beside the end that stands.
    let late = agent.acknowledged(second).await?;
    assert_eq!(fleet.operator.job(second, agent.name()).await?.item.late_report, Some(late.digest));
    let third = fleet.start_run(fleet.look, 1).await?;
    assert_eq!(fleet.operator.wait_run(third).await?.item.state, RunState::Succeeded);
    fleet.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_no_offer_explains_is_not_stored() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let agent = &fleet.agents[0];
    // Of today: one of long ago may have been taken away, and is no sign of a thief.
    let run = RunId::new(fleet_tests::clock::now(), 77);
    agent.script(|script| script.work = Work::Hold);
    agent.journal(|journal| journal.on_assign((run, Attempt(1)), Digest::of(b"a request of nobody")))?;
    agent.release(run);
    let why = turned_away(agent).await?;
    ensure!(why.contains("which this store does not have"), "{why}");
    told_once(&fleet, "which this store does not have").await?;
    ensure!(agent.journal(|journal| journal.job(run).is_some_and(|job| !job.acked)), "it was not taken");
    // Released, the node may let the old report go; what comes behind it is the beginning of a new chain.
    fleet.operator.release(agent.name()).await?;
    agent.acknowledged(run).await?;
    agent.script(|script| script.work = Work::AtOnce);
    let next = fleet.start_run(fleet.look, 1).await?;
    assert_eq!(fleet.operator.wait_run(next).await?.item.state, RunState::Succeeded);
    let checked = fleet.finish().await?;
    assert_eq!((checked.reports, checked.of("job.end").count()), (1, 1), "nothing of it was kept");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_with_one_identity_are_held_and_a_removed_one_is_gone() -> Result<()> {
    let mut fleet = TestFleet::start(1).await?;
    let first = fleet.agents.remove(0);
    first.script(|script| script.pause = std::time::Duration::from_millis(50));
    let copy = Script { start_id: "another machine".to_owned(), ..Script::default() };
    let second = fleet.agent(first.credentials().clone(), copy)?;
    let why = turned_away(&first).await?;
    ensure!(why.contains("two machines"), "{why}");
    turned_away(&second).await?;
    told_once(&fleet, "two machines").await?;
    drop(second);
    fleet.operator.remove("fw-0").await?;
    let shut_out = wait_for("the certificate to open nothing", PATIENCE, async || {
        Ok(first.links().ends.last().filter(|(_, why)| !why.contains("held")).cloned())
    })
    .await?;
    ensure!(fleet.operator.nodes().await?.is_empty(), "{shut_out:?}");
    // The name is free for a new machine.
    drop(first);
    let labels = fleet_tests::test_fleet::labels(0);
    let next = fleet.join("fw-0", &labels, Script::default()).await.context("the name is free")?;
    next.online().await?;
    fleet.agents.push(next);
    let run = fleet.start_run(fleet.look, 1).await?;
    assert_eq!(fleet.operator.wait_run(run).await?.item.state, RunState::Succeeded);
    fleet.finish().await?;
    Ok(())
}
