//! Record, journals, archives on disk and audit log of a sandbox compared: nothing lost, nothing twice.
//!
//! Called at the end of stories that kill. Every job must be terminal by then. What the controller shows comes
//! from the real fleetctl, what a node knows from its own journal and its own files.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use fleet_types::digest::Digest;
use fleet_types::id::{NodeId, RunId};
use fleet_types::job::{JobState, Outcome};
use fleet_types::report::{Report, StepState};
use fleet_types::view::{AuditItem, JobItem, JobView, NodeItem, Page, RunItem};
use serde::Deserialize;

use super::Sandbox;
use super::node::{Journal, SandboxNode};
use crate::wait::{PATIENCE, wait_for};

/// Most records and runs that a story makes.
const ALL: &str = "10000";
/// The folder of backups as procedures name it.
const BACKUPS: &str = "/var/backups/zehrasec/";

/// What was compared.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// Runs.
    pub runs: usize,
    /// Jobs with a stored report.
    pub reports: usize,
    /// Archives on disk.
    pub archives: usize,
    /// Signature updates.
    pub updates: usize,
    /// Jobs by outcome.
    pub outcomes: BTreeMap<Outcome, usize>,
    /// What did not go well, in words: node, step and its summary.
    pub trouble: Vec<String>,
}

#[derive(Deserialize)]
struct ShownRun {
    jobs: Vec<JobItem>,
}

/// Compares everything of all runs.
pub async fn check(sandbox: &Sandbox) -> Result<Agreed> {
    let runs: Page<RunItem> = sandbox.operator.json(&["run", "list", "--limit", "500"]).await?;
    let nodes: Page<NodeItem> = sandbox.operator.json(&["node", "list"]).await?;
    let ids: BTreeMap<NodeId, String> =
        nodes.items.iter().map(|node| (node.id, node.name.to_string())).collect();
    let mut stored: BTreeMap<(RunId, String), JobView> = BTreeMap::new();
    for item in &runs.items {
        ensure!(item.state.is_terminal(), "run {} is {}", item.run, item.state.as_str());
        let shown: ShownRun = sandbox.operator.json(&["run", "show", &item.run.to_string()]).await?;
        for job in shown.jobs {
            let name = ids.get(&job.node).context("a job of a node that is not listed")?.clone();
            let path = format!("{}/{name}", item.run);
            let view: JobView = sandbox.operator.json(&["run", "show", &path]).await?;
            ensure!(stored.insert((item.run, name), view).is_none(), "job {path} is there twice");
        }
    }
    leaves(sandbox, &stored, &ids).await?;
    let mut agreed = Agreed { runs: runs.items.len(), ..Agreed::default() };
    for view in stored.values() {
        let outcome = outcome(&view.item.state)?;
        *agreed.outcomes.entry(outcome).or_default() += 1;
        agreed.trouble.extend(trouble(view)?);
    }
    for node in &sandbox.nodes {
        let jobs: BTreeMap<RunId, &JobView> = stored
            .iter()
            .filter(|((_, name), _)| *name == node.name)
            .map(|((run, _), job)| (*run, job))
            .collect();
        agreed.reports += journal(node, &jobs).await?;
        agreed.archives += archives(node, &jobs)?;
        agreed.updates += updates(node, &jobs)?;
    }
    Ok(agreed)
}

fn outcome(state: &JobState) -> Result<Outcome> {
    match state {
        JobState::Ended { outcome, .. } => Ok(*outcome),
        open => bail!("a job is still {open:?}"),
    }
}

/// Exactly one leaf a job, with its outcome and report.
async fn leaves(
    sandbox: &Sandbox,
    stored: &BTreeMap<(RunId, String), JobView>,
    ids: &BTreeMap<NodeId, String>,
) -> Result<()> {
    let page: Page<AuditItem> =
        sandbox.operator.json(&["audit", "list", "--action", "job.end", "--limit", ALL]).await?;
    let mut seen = BTreeSet::new();
    for item in &page.items {
        let job = item.record.job.context("a job.end without its job")?;
        let key = (job.run, ids.get(&job.node).context("a leaf of a node that is not listed")?.clone());
        let view = stored.get(&key).with_context(|| format!("a leaf of {key:?}, which is no job"))?;
        ensure!(item.record.outcome == Some(outcome(&view.item.state)?), "leaf and record of {key:?} differ");
        ensure!(item.record.report == view.report_digest, "the report of {key:?} is not that of its leaf");
        ensure!(seen.insert(key.clone()), "{key:?} has two leaves");
    }
    ensure!(seen.len() == stored.len(), "{} jobs have {} leaves", stored.len(), seen.len());
    Ok(())
}

/// Every job accepted once, ended as the record says, acknowledged; nothing open.
async fn journal(node: &SandboxNode, jobs: &BTreeMap<RunId, &JobView>) -> Result<usize> {
    // The last acknowledgements may be on their way.
    let journal: Journal = wait_for(&format!("{} to know its acks", node.name), PATIENCE, async || {
        let journal = node.journal().await?;
        ensure!(journal.jobs.iter().all(|job| job.acknowledged), "unacknowledged: {journal:?}");
        Ok(Some(journal))
    })
    .await?;
    ensure!(journal.damage.is_none(), "the journal of {} is damaged: {:?}", node.name, journal.damage);
    let mut reports = 0;
    for (run, view) in jobs {
        let entries: Vec<_> = journal.jobs.iter().filter(|job| job.run == *run).collect();
        let [entry] = entries[..] else {
            bail!("{} has {} entries of {run}: {:?}", node.name, entries.len(), view.item)
        };
        ensure!(entry.attempt == view.item.attempt.0, "{run} on {}: another attempt", node.name);
        ensure!(
            outcome(&entry.state)? == outcome(&view.item.state)?,
            "{run} on {}: {:?} there, {:?} here",
            node.name,
            entry.state,
            view.item.state
        );
        ensure!(
            entry.report == view.report_digest && entry.report.is_some(),
            "{run} on {}: another report: {:?}, {:?}",
            node.name,
            entry.report,
            view.report_digest
        );
        reports += 1;
    }
    ensure!(journal.jobs.len() == jobs.len(), "{} knows jobs that nobody else knows", node.name);
    Ok(reports)
}

fn report(view: &JobView) -> Result<&Report> {
    view.report.as_ref().with_context(|| format!("{}/{} has no report", view.item.run, view.item.node_name))
}

/// Steps that did not do what they should.
fn trouble(view: &JobView) -> Result<Vec<String>> {
    let steps = report(view)?.steps.iter().filter(|step| step.state != StepState::Succeeded);
    let told = steps.map(|step| {
        let problems: Vec<_> = step.body.problems.iter().map(|problem| problem.message.as_str()).collect();
        format!("{}: {}: {} {problems:?}", view.item.node_name, step.id, step.body.summary)
    });
    Ok(told.collect())
}

/// One archive on disk for each that a report names, with its size and digest, its checksum file, nothing else.
fn archives(node: &SandboxNode, jobs: &BTreeMap<RunId, &JobView>) -> Result<usize> {
    let mut expected: BTreeSet<String> = BTreeSet::new();
    let mut made = 0;
    for view in jobs.values() {
        let steps = report(view)?.steps.iter().filter(|step| step.action == "backup.run");
        for artifact in steps.flat_map(|step| &step.body.artifacts).filter(|one| one.kind == "backup") {
            let name = artifact.path.rsplit('/').next().context("an archive without a name")?.to_owned();
            ensure!(artifact.path.contains(BACKUPS), "an archive elsewhere: {}", artifact.path);
            let bytes = std::fs::read(node.root().join("var/backups/zehrasec").join(&name))
                .with_context(|| format!("{}: {}", node.name, artifact.path))?;
            ensure!(bytes.len() as u64 == artifact.size, "{name} has another size than reported");
            ensure!(Digest::of(&bytes) == artifact.sha256, "{name} has another digest than reported");
            ensure!(expected.insert(format!("{name}.sha256")), "two reports name {name}");
            expected.insert(name);
            made += 1;
        }
    }
    let found: BTreeSet<String> = node.archives()?.into_iter().collect();
    ensure!(found == expected, "{} has {found:?}, its reports name {expected:?}", node.name);
    Ok(made)
}

/// One signature update for each step that says it was done. One whose effect cannot be known may have begun.
fn updates(node: &SandboxNode, jobs: &BTreeMap<RunId, &JobView>) -> Result<usize> {
    let (mut done, mut unknown) = (0, 0);
    for view in jobs.values() {
        for step in report(view)?.steps.iter().filter(|step| step.id == "signature-update") {
            match step.state {
                StepState::Succeeded => done += 1,
                StepState::Skipped => {}
                StepState::Warned | StepState::Failed => {
                    let text = serde_json::to_string(step)?;
                    ensure!(text.contains("outcome_unknown"), "{}: {text}", node.name);
                    unknown += 1;
                }
            }
        }
    }
    let began = node.updates();
    ensure!(
        (done..=done + unknown).contains(&began),
        "{} began {began} signature updates; its reports tell {done} and {unknown} unknown",
        node.name
    );
    Ok(began)
}
