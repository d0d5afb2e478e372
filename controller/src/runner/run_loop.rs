//! Wakes passes: when the notifier rings, when a deadline of a run is due, and periodically in case a ring was
//! lost. Starting up and running on are the same code: at start every open run is read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fleet_store::Direction;
use fleet_types::id::{NodeId, RunId};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::active::Active;
use super::cancel_retries::CancelRetries;
use super::pass;
use crate::context::Context;
use crate::error::{Kind, Result};
use crate::repo::keys;
use crate::repo::reader::PAGE;
use crate::repo::records::Mark;
use crate::wake::Changes;

/// The loop's own state: open runs, and which runs a node takes part in.
#[derive(Default)]
struct Runs {
    active: HashMap<RunId, Active>,
    by_node: BTreeMap<NodeId, BTreeSet<RunId>>,
    /// Who was told to stop, by run, as long as the run is open.
    cancel_retries: HashMap<RunId, CancelRetries>,
}

impl Runs {
    fn insert(&mut self, active: Active) {
        let run = active.run.record.run;
        for node in active.jobs.keys() {
            self.by_node.entry(*node).or_default().insert(run);
        }
        self.active.insert(run, active);
    }

    /// Takes a run's nodes out of the index; the run itself was taken out before.
    fn forget(&mut self, active: &Active) {
        for node in active.jobs.keys() {
            if let Some(runs) = self.by_node.get_mut(node) {
                runs.remove(&active.run.record.run);
                if runs.is_empty() {
                    self.by_node.remove(node);
                }
            }
        }
    }
}

/// Runs until it is told to stop.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let mut runs = Runs::default();
    let mut read_all = true;
    let mut next_full = Instant::now() + context.settings.pass_period;
    while !stop.is_cancelled() {
        if read_all {
            match read_open(&context, &mut runs).await {
                Ok(()) => read_all = false,
                Err(error) => log("reading open runs", &error),
            }
        }
        let changes = context.notifier.take();
        let touched = touched(&runs, &changes);
        for (run, (jobs, nodes)) in touched {
            one(&context, &mut runs, run, changes.runs.contains(&run), &jobs, &nodes).await;
        }
        // Deadlines: every run whose time has come, whether or not something changed.
        let now = context.clock.now();
        let due: Vec<RunId> = runs
            .active
            .iter()
            .filter(|(_, active)| !active.rollout.wanted(now).is_empty())
            .map(|(run, _)| *run)
            .collect();
        for run in due {
            one(&context, &mut runs, run, false, &BTreeSet::new(), &BTreeSet::new()).await;
        }
        // On a clock of its own, however often the notifier rings: a run that was set aside is read again, and a
        // lost ring is made good.
        if Instant::now() >= next_full {
            read_all = true;
            next_full = Instant::now() + context.settings.pass_period;
            continue;
        }
        let next = next_wake(&context, &runs).unwrap_or(next_full).min(next_full);
        tokio::select! {
            () = stop.cancelled() => {}
            _ = timeout_at(next, context.notifier.rung()) => {}
        }
    }
}

async fn read_open(context: &Context, runs: &mut Runs) -> Result<()> {
    let mut after = None;
    loop {
        let page =
            context.repo.page::<Mark>(keys::OPEN_RUNS, after.as_ref(), PAGE, Direction::Ascending).await?;
        let last = page.len() < PAGE;
        for (key, _) in page {
            let run = keys::run_in(&key, keys::OPEN_RUNS);
            after = Some(key);
            let Some(run) = run else { continue };
            if !runs.active.contains_key(&run) {
                context.notifier.run_changed(run);
            }
        }
        if last {
            return Ok(());
        }
    }
}

/// Which runs a set of changes concerns: their changed jobs, and their nodes that came or went.
fn touched(runs: &Runs, changes: &Changes) -> BTreeMap<RunId, (BTreeSet<NodeId>, BTreeSet<NodeId>)> {
    let mut touched: BTreeMap<RunId, (BTreeSet<NodeId>, BTreeSet<NodeId>)> = BTreeMap::new();
    for run in &changes.runs {
        touched.entry(*run).or_default();
    }
    for (run, node) in &changes.jobs {
        touched.entry(*run).or_default().0.insert(*node);
    }
    for node in &changes.nodes {
        for run in runs.by_node.get(node).into_iter().flatten() {
            touched.entry(*run).or_default().1.insert(*node);
        }
    }
    touched
}

/// One run: read it if need be, bring it up to date, settle it. A run that cannot be handled is set aside
/// until the next period and never stops the others.
async fn one(
    context: &Context,
    runs: &mut Runs,
    run: RunId,
    reread: bool,
    jobs: &BTreeSet<NodeId>,
    nodes: &BTreeSet<NodeId>,
) {
    let (mut active, fresh) = match runs.active.remove(&run) {
        Some(active) if !reread => (active, false),
        old => {
            if let Some(old) = old {
                runs.forget(&old);
            }
            match Active::load(context, run).await {
                Ok(active) if active.run.record.state.is_terminal() => {
                    runs.cancel_retries.remove(&run);
                    return;
                }
                Ok(active) => (active, true),
                Err(error) => return log(&format!("run {run}"), &error),
            }
        }
    };
    let cancel_retries = runs.cancel_retries.entry(run).or_default();
    let outcome = async {
        pass::refresh(context, &mut active, jobs, nodes).await?;
        pass::settle(context, &mut active, cancel_retries).await
    }
    .await;
    match &outcome {
        Ok(false) => context.progress.note(run, active.rollout.summary(context.clock.now()).tally),
        Ok(true) => context.progress.forget(run),
        Err(_) => {}
    }
    // What the pass wrote is shown somewhere.
    context.notifier.shown_changed();
    match outcome {
        Ok(false) if fresh => runs.insert(active),
        // The index holds its nodes already: an event must not cost as much as the run has nodes.
        Ok(false) => {
            runs.active.insert(run, active);
        }
        Ok(true) => {
            runs.forget(&active);
            runs.cancel_retries.remove(&run);
        }
        Err(error) => {
            runs.forget(&active);
            // Read it anew: at once after a conflict, else when the period is over.
            if error.kind == Kind::Conflict {
                context.notifier.run_changed(run);
            } else {
                log(&format!("run {run}"), &error);
            }
        }
    }
}

fn log(what: &str, error: &crate::error::ControllerError) {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::error!("{what}: {error}: {source}");
}

fn next_wake(context: &Context, runs: &Runs) -> Option<Instant> {
    let now = context.clock.now();
    let next = runs.active.values().filter_map(|active| active.rollout.next_deadline(now)).min()?;
    Some(Instant::now() + next.since(now) + std::time::Duration::from_millis(1))
}
