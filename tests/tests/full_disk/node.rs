//! T12: a node's disk fills up before, in and after the steps of a job.

use anyhow::{Result, ensure};
use fleet_tests::sandbox::node::SandboxNode;
use fleet_tests::sandbox::{Sandbox, agreement, processes};
use fleet_tests::small_disk::{MIB, SmallDisk};
use fleet_tests::wait::{PATIENCE, wait_until};
use fleet_types::id::RunId;
use fleet_types::job::{JobState, Outcome};
use fleet_types::report::StepState;
use fleet_types::view::JobView;
use fleetctl::dev::node_spec::nodes;

/// Room for the node, its reserve of 8 MiB and what the stories write.
const DISK_MIB: u64 = 64;
const NODE: &str = "fw-ams2-01";
/// More than the reserve: when that is given up, the node still has too little to begin anything.
const POLICY: &str = "[policy]\nmode = \"enforce\"\nrequire_healthy_partner = false\n\
                      max_disruptive_jobs = { count = 1000, within = \"24h\" }\nmin_free_disk = \"16MiB\"\n";

/// A fleet of one node: all of it lies on the disk, or what is the agent's own.
async fn start(disk: &SmallDisk, with_root: bool) -> Result<Sandbox> {
    let mut sandbox = Sandbox::without_nodes().await?;
    let spec = nodes(1).remove(0);
    let node = if with_root {
        SandboxNode::lay_out(disk.path(), &spec)?
    } else {
        SandboxNode::lay_out(&sandbox.path("nodes"), &spec)?.keeping_in(disk.path())
    };
    sandbox.join_as(node, &spec, POLICY).await?.start(&[])?;
    sandbox.all_online().await?;
    sandbox.apply_documents().await?;
    Ok(sandbox)
}

async fn job(sandbox: &Sandbox, run: RunId) -> Result<JobView> {
    sandbox.operator.json(&["run", "show", &format!("{run}/{NODE}")]).await
}

/// Carries a procedure out; how its job ended, and why.
async fn carry_out(sandbox: &Sandbox, procedure: &str) -> Result<(Outcome, String, JobView)> {
    let run = sandbox.start_run(procedure).await?;
    end(sandbox, run).await
}

async fn end(sandbox: &Sandbox, run: RunId) -> Result<(Outcome, String, JobView)> {
    sandbox.ended(run).await?;
    let view = job(sandbox, run).await?;
    match view.item.state.clone() {
        JobState::Ended { outcome, reason, .. } => Ok((outcome, reason, view)),
        open => anyhow::bail!("the run has ended and its job is {open:?}"),
    }
}

fn reserve_is_held(node: &SandboxNode) -> bool {
    node.state().join("reserve").exists()
}

/// Nothing of an archive that did not become one.
fn no_half_archive(node: &SandboxNode, whole: usize) -> Result<()> {
    let found = node.archives()?;
    ensure!(found.len() == 2 * whole, "{whole} archives with their checksums were to be there: {found:?}");
    Ok(())
}

/// Files that no archive makes smaller.
fn noise(bytes: u64) -> Vec<u8> {
    let mut state = 1u64;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u8::try_from(state >> 56).unwrap_or_default()
    });
    words.take(usize::try_from(bytes).unwrap_or(usize::MAX)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_a_node_with_a_full_disk_refuses_or_fails_with_a_report_and_goes_on_after() -> Result<()> {
    let Some(disk) = SmallDisk::mount("T12, a node's full disk", DISK_MIB)? else { return Ok(()) };
    let sandbox = start(&disk, true).await?;
    let node = &sandbox.nodes[0];

    // Before: refused by its rule, in a report that only the reserve has room for; nothing was begun.
    disk.fill(0)?;
    let (outcome, reason, view) = carry_out(&sandbox, "short").await?;
    assert!(outcome == Outcome::Refused && reason.contains("min-free-disk"), "{outcome:?}: {reason}");
    assert!(view.report.is_some() && !reserve_is_held(node), "the report is not from the reserve");
    no_half_archive(node, 0)?;
    assert_eq!(node.updates(), 0);
    disk.clear()?;

    // In the backup: it was accepted with enough space, and the archive does not fit.
    let large = node.root().join("var/lib/zehrasec/config/large.json");
    std::fs::write(&large, noise(20 * MIB))?;
    disk.fill(18 * MIB)?;
    let (outcome, reason, view) = carry_out(&sandbox, "short").await?;
    assert_eq!(outcome, Outcome::Failed, "{reason}");
    let report = view.report.unwrap_or_else(|| panic!("a failed job has its report"));
    let problems = &report.steps[0].body.problems;
    assert!(problems.iter().any(|problem| problem.code == "disk_full"), "{problems:?}");
    assert_eq!(report.steps[1].state, StepState::Skipped);
    no_half_archive(node, 0)?;
    assert!(disk.free()? > 17 * MIB, "what the backup wrote is gone again");

    // Space, and the next run succeeds.
    std::fs::remove_file(&large)?;
    disk.clear()?;
    let (outcome, reason, _) = carry_out(&sandbox, "short").await?;
    assert_eq!(outcome, Outcome::Succeeded, "{reason}");
    no_half_archive(node, 1)?;
    let agreed = agreement::check(&sandbox).await?;
    assert_eq!((agreed.runs, agreed.reports, agreed.archives, agreed.updates), (3, 3, 1, 1), "{agreed:?}");
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_a_job_whose_disk_fills_up_is_reported_from_the_reserve_or_when_there_is_space() -> Result<()> {
    let Some(disk) = SmallDisk::mount("T12, a disk that fills up in a step", DISK_MIB)? else {
        return Ok(());
    };
    let mut sandbox = start(&disk, false).await?;

    // In the last step: its end and the report go into the room that the reserve gives up.
    sandbox.nodes[0].hold()?;
    let run = sandbox.start_run("short").await?;
    sandbox.nodes[0].updating(1).await?;
    disk.fill(0)?;
    sandbox.nodes[0].release()?;
    let (outcome, reason, _) = end(&sandbox, run).await?;
    assert_eq!(outcome, Outcome::Succeeded, "{reason}");
    assert!(!reserve_is_held(&sandbox.nodes[0]), "the report is not from the reserve");
    disk.clear()?;

    // Once more, and there is no reserve. Whether the journal's last block has room for one more entry is chance:
    // the agent waits with the report, or stops with a word because it cannot keep what it does.
    sandbox.nodes[0].hold()?;
    let run = sandbox.start_run("short").await?;
    sandbox.nodes[0].updating(2).await?;
    disk.fill(0)?;
    sandbox.nodes[0].release()?;
    let node = &mut sandbox.nodes[0];
    wait_until("the agent to say that it cannot keep the job's end", PATIENCE, || {
        node.log().contains("the report cannot be stored; it is tried again") || !node.is_running()
    })
    .await?;
    if !node.is_running() {
        assert_eq!(node.wait_end().await?.code(), Some(75), "{}", node.log_tail());
        // The step went on without its agent, and its supervisor notes how it ended.
        wait_until("the step to end", PATIENCE, || {
            processes::below(disk.path()).is_ok_and(|left| left.is_empty())
        })
        .await?;
    }
    let view = job(&sandbox, run).await?;
    assert!(view.item.state.outcome().is_none() && view.report.is_none(), "{:?}", view.item.state);
    disk.clear()?;
    // As its supervisor would.
    if !sandbox.nodes[0].is_running() {
        sandbox.nodes[0].start(&[])?;
    }
    let (outcome, reason, _) = end(&sandbox, run).await?;
    // The step's own record had its room before it began, so that nothing is unknown and nothing repeated.
    assert_eq!(outcome, Outcome::Succeeded, "{reason}");
    let (next, reason, _) = carry_out(&sandbox, "short").await?;
    assert_eq!(next, Outcome::Succeeded, "{reason}");
    sandbox.nodes[0].stop().await?;
    sandbox.nodes[0].start(&[])?;
    sandbox.online(NODE).await?;
    assert!(reserve_is_held(&sandbox.nodes[0]), "a start lays the reserve again");
    let agreed = agreement::check(&sandbox).await?;
    assert_eq!((agreed.runs, agreed.reports, agreed.updates), (3, 3, 3), "{agreed:?}");
    sandbox.finish().await
}
