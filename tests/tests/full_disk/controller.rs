//! T11: the controller's disk fills up in the middle of a run. New work is refused, what is under way ends from the
//! reserve or waits in the agents, and nothing that was acknowledged is lost.

use anyhow::{Result, ensure};
use fleet_tests::controller_process::Options;
use fleet_tests::sandbox::{Sandbox, agreement};
use fleet_tests::small_disk::{MIB, SmallDisk};
use fleet_tests::wait::{PATIENCE, wait_for, wait_until};
use fleet_types::id::RunId;
use fleet_types::job::{JobState, Outcome};
use fleet_types::view::JobView;

/// Above the floor of 256 MiB that the store keeps free, and a little to work with.
const DISK_MIB: u64 = 320;
/// Below that floor, above the 64 MiB that are kept for stopping and for reports.
const RESERVE_ONLY: u64 = 128 * MIB;
/// A pair, and a node by itself.
const PAIR: [&str; 2] = ["fw-ams2-01", "fw-ams2-02"];
const SINGLE: &str = "fw-fra1-01";

async fn job(sandbox: &Sandbox, run: RunId, node: &str) -> Result<JobView> {
    sandbox.operator.json(&["run", "show", &format!("{run}/{node}")]).await
}

/// A change that must be refused for lack of space, in words that say what to do; nothing is written.
async fn refused(sandbox: &Sandbox, arguments: &[&str]) -> Result<()> {
    let said = sandbox.operator.ask(arguments).await?;
    ensure!(said.code == Some(6), "{arguments:?}: {said:?}");
    for part in [
        "error[store-full]: the controller's store has no space left and takes no new work",
        "cause: 256 MiB must stay free on its file system, ",
        "fix: free space on the controller's disk",
    ] {
        ensure!(said.err.contains(part), "{arguments:?} lacks {part:?}: {}", said.err);
    }
    Ok(())
}

/// Waits until a node has its report and nobody has acknowledged it.
async fn reported_in_vain(sandbox: &Sandbox, node: usize) -> Result<()> {
    let node = &sandbox.nodes[node];
    wait_for(&format!("{} to have ended its job", node.name), PATIENCE, async || {
        let journal = node.journal().await?;
        let last = journal.jobs.iter().find(|job| !job.acknowledged);
        Ok(last.is_some_and(|job| job.report.is_some()).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn t11_a_controller_with_a_full_disk_refuses_new_work_and_loses_nothing() -> Result<()> {
    let Some(disk) = SmallDisk::mount("T11, the controller's full disk", DISK_MIB)? else { return Ok(()) };
    let mut sandbox =
        Sandbox::start_with(Options { data: Some(disk.path().join("data")), ..Options::default() }, 3)
            .await?;
    for node in &sandbox.nodes {
        node.hold()?;
    }
    // One of the pair and the single node are in a step; the other one of the pair waits for its turn.
    let run = sandbox.start_run("short").await?;
    sandbox.nodes[2].updating(1).await?;
    wait_until("one of the pair to be in a step", PATIENCE, || {
        sandbox.nodes[..2].iter().any(|node| node.updates() == 1)
    })
    .await?;
    let (first, second) = if sandbox.nodes[0].updates() == 1 { (0, 1) } else { (1, 0) };

    // Below the floor: no new work, not even what the controller itself would begin.
    disk.fill(RESERVE_ONLY)?;
    let start = ["run", "start", "short", "--all", "--confirm", "dev", "--reason", "a story", "--no-wait"];
    refused(&sandbox, &start).await?;
    refused(&sandbox, &["join-token", "create", "fw-new-01"]).await?;
    // The result of what is under way goes into the reserve, and reading goes on.
    sandbox.nodes[2].release()?;
    wait_for("the single node's report to be stored from the reserve", PATIENCE, async || {
        let view = job(&sandbox, run, SINGLE).await?;
        Ok(view.report.map(|report| assert_eq!(report.outcome, Outcome::Succeeded)))
    })
    .await?;
    sandbox.operator.good(&["status"]).await?;

    // Really full: the result waits in the node.
    disk.fill(0)?;
    sandbox.nodes[first].release()?;
    reported_in_vain(&sandbox, first).await?;
    let view = job(&sandbox, run, PAIR[first]).await?;
    assert!(matches!(view.item.state, JobState::Running { .. } | JobState::Offered), "{:?}", view.item.state);
    wait_until("the controller's log to say why", PATIENCE, || {
        sandbox.controller.log().contains("bytes free, the store needs more than")
    })
    .await?;
    // A crash in this state, and a start that finds no space.
    sandbox.controller.kill().await?;
    assert_eq!(sandbox.controller.start_in_vain().await?, Some(75), "{}", sandbox.controller.log_tail());
    let log = sandbox.controller.log();
    assert!(
        log.contains("error[store]") && log.contains("free some space"),
        "{}",
        sandbox.controller.log_tail()
    );

    // Space: the supervisor's next start serves, and everything goes on where it was.
    disk.clear()?;
    sandbox.controller.start().await?;
    sandbox.nodes[second].updating(1).await?;
    sandbox.nodes[second].release()?;
    sandbox.ended(run).await?;
    let next = sandbox.start_run("signatures").await?;
    sandbox.ended(next).await?;
    let agreed = agreement::check(&sandbox).await?;
    assert_eq!((agreed.runs, agreed.reports), (2, 6), "{agreed:?}");
    assert_eq!(agreed.outcomes.get(&Outcome::Succeeded), Some(&6), "{agreed:?}");
    assert_eq!((agreed.archives, agreed.updates), (3, 6));
    sandbox.finish().await
}
