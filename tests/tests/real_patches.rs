//! Z08 with a real controller, a real agent, the machine's own dpkg and fleetctl: an advisory comes in, its finding and
//! deadline are shown, and both go with the upgrade.

use anyhow::{Context as _, Result, ensure};
use fleet_tests::clock;
use fleet_tests::sandbox::node::SandboxNode;
use fleet_tests::sandbox::{ENFORCE, Sandbox};
use fleet_tests::wait::{PATIENCE, wait_for};
use fleet_types::finding_hold::HoldKind;
use fleet_types::job::Outcome;
use fleet_types::time::Timestamp;
use fleet_types::view::{
    AdvisoryImport, AdvisorySource, DeadlineState, Done, FindingHoldItem, FixState, JobView, NodePackages,
    Page, PatchItem, PatchPlan, PatchSla, PatchView, RunView, Status,
};
use fleetctl::dev::node_spec::nodes;
use fleetctl::dev::packages::archive::Archive;
use fleetctl::dev::packages::product::{GOOD, NAME, releases};
use fleetctl::dev::packages::programs::Caller;
use fleetctl::render::read_printed;

const NODE: &str = "fw-ams2-01";
const CVE: &str = "CVE-2026-4242";

/// An advisory of the stand-in, fixed in [`GOOD`], for the distribution of this machine.
fn advisory(os: &str, os_version: &str) -> Result<String> {
    let ecosystem = match os {
        "debian" => format!("Debian:{os_version}"),
        "ubuntu" => format!("Ubuntu:{os_version}"),
        other => anyhow::bail!("this story is for Debian and Ubuntu, this machine has {other}"),
    };
    Ok(format!(
        r#"{{"id":"ZSA-1","aliases":["{CVE}"],"summary":"stand-in hole","published":"2026-01-01T00:00:00Z",
        "modified":"2026-01-02T00:00:00Z","severity":[{{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}}],
        "affected":[{{"package":{{"ecosystem":"{ecosystem}","name":"{NAME}"}},
        "ranges":[{{"type":"ECOSYSTEM","events":[{{"introduced":"0"}},{{"fixed":"{GOOD}"}}]}}]}}]}}"#
    ))
}

/// Somebody answers for its staying for a while.
async fn held(sandbox: &Sandbox, due: Option<Timestamp>) -> Result<()> {
    // What names no nodes, no finding or no end is refused.
    for (wrong, why) in [
        (vec!["patch", "hold", CVE, "--for", "7d"], "no target was given"),
        (vec!["patch", "hold", "CVE-2026-4243", "--for", "7d", "--all"], "CVE-2026-4243"),
        (vec!["patch", "hold", CVE, "--for", "93d", "--all"], "92 days"),
        (vec!["patch", "hold", CVE, "--for", "7d", "-l", "site=none"], "CVE-2026-4242"),
        (vec!["patch", "release", CVE, "--all"], "fleetctl patch holds"),
    ] {
        let refused = sandbox.operator.ask(&[&wrong, &["--yes", "--reason", "a story"][..]].concat()).await?;
        ensure!(refused.code != Some(0) && refused.err.contains(why), "{wrong:?}: {refused:?}");
    }
    let hold =
        ["patch", "hold", CVE, "--for", "7d", "--site", "ams2", "--owner", "the data centre", "--waive"];
    let why = ["--yes", "--reason", "not reachable from outside"];
    let _: Done = sandbox.operator.json(&[&hold[..], &why].concat()).await?;
    let patch: PatchView = sandbox.operator.json(&["patch", "show", CVE]).await?;
    let by = patch.nodes[0].held.as_ref().context("nobody answers for it")?;
    assert_eq!((patch.nodes[0].deadline, by.kind), (DeadlineState::Held, HoldKind::Waiver));
    assert_eq!((by.owner.as_str(), by.reason.as_str()), ("the data centre", "not reachable from outside"));
    assert_eq!(patch.nodes[0].due, due, "the clock runs on below");
    Ok(())
}

/// And does not any more.
async fn released(sandbox: &Sandbox) -> Result<()> {
    let holds: Page<FindingHoldItem> = sandbox.operator.json(&["patch", "holds"]).await?;
    let told: Vec<_> =
        holds.items.iter().map(|item| (item.finding.as_str(), item.selector.as_str(), item.nodes)).collect();
    assert_eq!(told, [(CVE, "site=ams2", 1)]);
    let release = ["patch", "release", CVE, "--site", "ams2", "--reason", "it is reachable after all"];
    let _: Done = sandbox.operator.json(&release).await?;
    let late: PatchView = sandbox.operator.json(&["patch", "show", CVE]).await?;
    assert_eq!((late.nodes[0].deadline, late.nodes[0].held.is_none()), (DeadlineState::Late, true));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn z08_a_hole_is_found_has_a_deadline_and_goes_with_the_upgrade() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let caller = Caller::new(&folder.path().join("log"));
    let archive = Archive::make(folder.path(), &releases(), clock::now(), &caller)?;
    let mut sandbox = Sandbox::without_nodes().await?;
    let spec = nodes(1).swap_remove(0);
    let node = SandboxNode::lay_out(&sandbox.path("nodes"), &spec)?;
    archive.install(&node.root())?;
    sandbox.join_as(node, &spec, ENFORCE).await?.start(&[])?;
    sandbox.all_online().await?;
    sandbox.apply_documents().await?;
    let boot = sandbox.start_run("start-services").await?;
    sandbox.ended(boot).await?;

    let packages: NodePackages = wait_for("the node to say what packages it has", PATIENCE * 2, async || {
        Ok(sandbox.operator.json(&["node", "packages", NODE]).await.ok())
    })
    .await?;
    let item = packages.items.iter().find(|item| item.name == NAME).context("the stand-in is not listed")?;
    assert_eq!(item.source_version, item.version);

    // A broken file beside a good one: nothing counts.
    let (good, broken) = (folder.path().join("good.json"), folder.path().join("broken.json"));
    std::fs::write(&good, advisory(&packages.os, &packages.os_version)?)?;
    std::fs::write(&broken, "{\"id\":\"ZSA-2\",")?;
    let (good, broken) = (good.display().to_string(), broken.display().to_string());
    let refused = sandbox.operator.ask(&["advisory", "import", &good, &broken, "--yes"]).await?;
    ensure!(refused.code == Some(2) && refused.err.contains("broken.json"), "{refused:?}");
    let sources: Page<AdvisorySource> = sandbox.operator.json(&["advisory", "list"]).await?;
    assert!(sources.items.is_empty(), "{sources:?}");

    let imported: AdvisoryImport = sandbox.operator.json(&["advisory", "import", &good, "--yes"]).await?;
    assert_eq!((imported.files, imported.sources.len(), imported.sources[0].entries), (1, 1, 1));
    let find = async |wanted: usize| {
        wait_for("the findings to be as they should", PATIENCE * 2, async || {
            let page: Page<PatchItem> = sandbox.operator.json(&["patch", "list"]).await?;
            Ok((page.items.len() == wanted).then_some(page))
        })
        .await
    };
    let found = find(1).await?;
    let item = &found.items[0];
    assert_eq!((item.id.as_str(), item.score.as_deref(), item.nodes), (CVE, Some("9.8"), 1));
    assert_eq!((item.severity.as_str(), item.deadlines.late), ("critical", 1));
    let first: PatchView = sandbox.operator.json(&["patch", "show", CVE]).await?;
    let line = &first.nodes[0];
    assert_eq!((line.node.as_str(), line.package.as_str(), line.deadline), (NODE, NAME, DeadlineState::Late));
    // Nobody has asked the node's archives yet.
    assert_eq!((line.started_by.as_str(), line.is), ("published", FixState::FixNotInArchive), "{line:?}");
    let task =
        ["run", "task", "package.refresh", "--profile", "dev-firewall", "--node", NODE, "--yes", "--no-wait"];
    let refresh = sandbox.operator.json::<RunView>(&task).await?.item.run;
    sandbox.ended(refresh).await?;
    let in_archive = wait_for("the fix to be in the node's archive", PATIENCE * 2, async || {
        let patch: PatchView = sandbox.operator.json(&["patch", "show", CVE]).await?;
        Ok((patch.nodes[0].is == FixState::FixInArchive).then_some(patch))
    })
    .await?;
    assert_eq!(in_archive.nodes[0].due, line.due, "what archives have moves no clock that runs already");
    let due = line.due;
    let status: Status = wait_for("the status to count it", PATIENCE, async || {
        let status: Status = sandbox.operator.json(&["status"]).await?;
        Ok(status.deadlines.as_ref().is_some_and(|deadlines| deadlines.late == 1).then_some(status))
    })
    .await?;
    assert!(status.deadlines.is_some());

    // It is late already, whatever a rollout does.
    let asked = sandbox.operator.ask(&["patch", "plan", "--policy", "dev", "-o", "json"]).await?;
    ensure!(asked.code == Some(6), "{asked:?}");
    let plan: PatchPlan = read_printed(&asked.out)?;
    assert_eq!((plan.missed_count, plan.missed[0].finding.as_str(), plan.missed[0].is_late), (1, CVE, true));
    assert_eq!((plan.rings.len(), plan.rings[0].nodes, plan.ways.len()), (1, 1, 3), "{plan:?}");
    ensure!(plan.missed[0].done.is_some_and(|done| done > plan.as_of), "{plan:?}");
    held(&sandbox, due).await?;
    let asked = sandbox.operator.ask(&["patch", "plan", "--policy", "dev"]).await?;
    ensure!(asked.code == Some(4) && asked.err.contains("nothing-to-patch"), "{asked:?}");

    // A restart knows it all again, and moves no clock.
    sandbox.controller.kill().await?;
    sandbox.controller.start().await?;
    sandbox.all_online().await?;
    find(1).await?;
    let again: PatchView = sandbox.operator.json(&["patch", "show", CVE]).await?;
    assert_eq!((again.nodes[0].due, again.nodes[0].deadline), (due, DeadlineState::Held));
    released(&sandbox).await?;

    let version = format!("version={GOOD}");
    let arguments = ["run", "start", "update", "--param", &version, "--node", NODE, "--yes", "--no-wait"];
    let run = sandbox.operator.json::<RunView>(&arguments).await?.item.run;
    sandbox.ended(run).await?;
    let job: JobView = sandbox.operator.json(&["run", "show", &format!("{run}/{NODE}")]).await?;
    ensure!(job.item.state.outcome() == Some(Outcome::Succeeded), "{:#?}", job.report);
    find(0).await?;
    let sla: PatchSla = sandbox.operator.json(&["patch", "sla"]).await?;
    assert_eq!((sla.deadlines.late, sla.deadlines.at_risk), (0, 0));
    sandbox.finish().await
}
