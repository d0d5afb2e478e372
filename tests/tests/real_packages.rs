//! T04 and Z07 with a real controller, a real agent and the machine's own dpkg: updates that lose their agent, their
//! controller or both in the middle, and what is on the node afterwards.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use fleet_tests::clock;
use fleet_tests::sandbox::node::SandboxNode;
use fleet_tests::sandbox::{ENFORCE, Sandbox, agreement, processes};
use fleet_tests::wait::{PATIENCE, wait_for, wait_until};
use fleet_types::id::RunId;
use fleet_types::job::{JobState, Outcome};
use fleet_types::view::{JobView, RunView};
use fleetctl::dev::node_spec::nodes;
use fleetctl::dev::packages::archive::Archive;
use fleetctl::dev::packages::installed::Installed;
use fleetctl::dev::packages::product::{BROKEN, GOOD, Product, releases};
use fleetctl::dev::packages::programs::Caller;
use tokio::time::timeout;

const NODE: &str = "fw-ams2-01";
/// Waits in its script after unpacking while a story holds it, and notes that it began.
const SLOW: &str = "#!/bin/sh\nset -e\n[ \"$1\" = configure ] || exit 0\necho \"$2\" >>\"$DPKG_ROOT/configured\"\n\
                    while [ -e \"$DPKG_ROOT/hold\" ]; do sleep 0.02; done\n";
/// The same files as [`GOOD`], slowly.
const SLOW_ONES: [&str; 2] = ["1.3", "1.4"];

/// A fleet of one node with packages, whose services run and whose firewall is at [`GOOD`].
struct Story {
    sandbox: Sandbox,
    _archive: tempfile::TempDir,
}

impl Story {
    async fn begin() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut products = releases();
        let good =
            products.iter().find(|product| product.version == GOOD).context("no such release")?.clone();
        products.extend(SLOW_ONES.map(|version| {
            let mut slow: Product = good.renamed(version);
            slow.postinst = Some(SLOW.to_owned());
            slow
        }));
        let caller = Caller::new(&folder.path().join("log"));
        let archive = Archive::make(folder.path(), &products, clock::now(), &caller)?;
        let mut sandbox = Sandbox::without_nodes().await?;
        let spec = nodes(1).swap_remove(0);
        let node = SandboxNode::lay_out(&sandbox.path("nodes"), &spec)?;
        archive.install(&node.root())?;
        sandbox.join_as(node, &spec, ENFORCE).await?.start(&[])?;
        sandbox.all_online().await?;
        sandbox.apply_documents().await?;
        let story = Self { sandbox, _archive: folder };
        let boot = story.sandbox.start_run("start-services").await?;
        story.sandbox.ended(boot).await?;
        // What the sandbox changed in a file of the package is as published from here on.
        let run = story.update(GOOD).await?;
        story.ends(run, Outcome::Succeeded).await?;
        Ok(story)
    }

    async fn update(&self, version: &str) -> Result<RunId> {
        let version = format!("version={version}");
        let arguments = ["run", "start", "update", "--param", &version, "--node", NODE, "--yes", "--no-wait"];
        Ok(self.sandbox.operator.json::<RunView>(&arguments).await?.item.run)
    }

    async fn job(&self, run: RunId) -> Result<JobView> {
        self.sandbox.operator.json(&["run", "show", &format!("{run}/{NODE}")]).await
    }

    /// Waits for the end, which must be this one, with one attempt and a report.
    async fn ends(&self, run: RunId, expected: Outcome) -> Result<JobView> {
        self.sandbox.ended(run).await?;
        let view = self.job(run).await?;
        ensure!(view.item.state.outcome() == Some(expected), "{:?}: {:#?}", view.item.state, view.report);
        ensure!(view.item.attempt.0 == 1 && view.report.is_some(), "{:?}", view.item);
        Ok(view)
    }

    fn look(&self) -> Result<Installed> {
        Ok(Installed::look(&self.sandbox.nodes[0].root())?)
    }

    /// Waits until the script of a slow package has begun so often.
    async fn configuring(&self, times: usize) -> Result<()> {
        let began = self.sandbox.nodes[0].root().join("configured");
        let count = || std::fs::read_to_string(&began).map_or(0, |text| text.lines().count());
        wait_until("dpkg to be in the middle of a package", PATIENCE * 2, || count() == times).await
    }

    /// Nothing is half-done, by dpkg's own word.
    async fn is_clean(&self) -> Result<()> {
        let mut dpkg = tokio::process::Command::from(Caller::command("dpkg"));
        let root = self.sandbox.nodes[0].root();
        let output = dpkg.arg(format!("--root={}", root.display())).arg("--audit").output().await?;
        ensure!(output.status.success() && output.stdout.is_empty(), "{output:?}");
        Ok(())
    }

    /// Record, journal and log agree; everything ends.
    async fn finish(self, runs: usize) -> Result<()> {
        let agreed = agreement::check(&self.sandbox).await?;
        assert_eq!((agreed.runs, agreed.reports), (runs, runs), "{agreed:?}");
        self.sandbox.finish().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t04_dpkg_outlives_its_agent_and_is_found_again() -> Result<()> {
    let mut story = Story::begin().await?;
    // Once dpkg still works when the agent is back, once it has ended in between.
    for (index, version) in SLOW_ONES.into_iter().enumerate() {
        let node = &mut story.sandbox.nodes[0];
        node.hold()?;
        let run = story.update(version).await?;
        story.configuring(index + 1).await?;
        story.sandbox.nodes[0].kill().await?;
        if index == 1 {
            let root = story.sandbox.nodes[0].root();
            story.sandbox.nodes[0].release()?;
            wait_until("dpkg to end alone", PATIENCE, || {
                let whole = Installed::look(&root).is_ok_and(|found| found.version() == Some(version));
                let left = processes::below(&root).unwrap_or_default();
                whole && !left.iter().any(|line| line.contains("dpkg"))
            })
            .await?;
        }
        story.sandbox.nodes[0].start(&[])?;
        story.sandbox.online(NODE).await?;
        if index == 0 {
            story.sandbox.nodes[0].release()?;
        }
        let view = story.ends(run, Outcome::Succeeded).await?;
        let report = view.report.context("it was there just now")?;
        let upgrade = report.steps.iter().find(|step| step.id == "upgrade").context("no such step")?;
        assert_eq!(upgrade.body.changes.len(), 1, "{upgrade:#?}");
        story.configuring(index + 1).await.context("the script ran once")?;
        assert_eq!(story.look()?.version(), Some(version));
        story.is_clean().await?;
    }
    story.finish(4).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_ends_without_its_controller_and_is_reported_once() -> Result<()> {
    let mut story = Story::begin().await?;
    story.sandbox.nodes[0].hold()?;
    let run = story.update(SLOW_ONES[0]).await?;
    story.configuring(1).await?;
    story.sandbox.controller.kill().await?;
    story.sandbox.nodes[0].release()?;
    wait_for("the update to end without a controller", PATIENCE * 2, async || {
        let journal = story.sandbox.nodes[0].journal().await?;
        let job = journal.jobs.iter().find(|job| job.run == run).context("the node forgot its job")?;
        Ok(job.report.is_some().then_some(()))
    })
    .await?;
    assert_eq!(story.look()?.version(), Some(SLOW_ONES[0]));
    story.is_clean().await?;
    story.sandbox.controller.start().await?;
    story.ends(run, Outcome::Succeeded).await?;
    story.finish(3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn z07_a_broken_update_is_put_back_however_often_its_agent_dies() -> Result<()> {
    let mut story = Story::begin().await?;
    let before = story.look()?;
    let run = story.update(BROKEN).await?;
    let mut died_at = BTreeSet::new();
    // Once in each step that is seen: those that take long are, whatever the machine is busy with.
    let dying = async {
        loop {
            let step = match story.job(run).await?.item.state {
                JobState::Ended { .. } => return anyhow::Ok(()),
                JobState::Running { step, .. } | JobState::RollingBack { step } => step,
                _ => continue,
            };
            if died_at.insert(step) {
                story.sandbox.nodes[0].kill().await?;
                story.sandbox.nodes[0].start(&[])?;
            }
        }
    };
    timeout(PATIENCE * 6, dying).await.context("the update does not end")??;
    for step in ["upgrade", "start", "start-former"] {
        assert!(died_at.contains(step), "{died_at:?}");
    }
    story.ends(run, Outcome::RolledBack).await?;
    assert_eq!(before.differences(&story.look()?), Vec::<String>::new(), "{died_at:?}");
    assert_eq!(before.daemons.len(), 2, "{before:?}");
    story.is_clean().await?;
    story.finish(3).await
}
