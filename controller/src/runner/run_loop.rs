//! Wakes passes: when the notifier rings, when a deadline of a run is due, and periodically in case a ring was
//! lost. Starting up and running on are the same code: at start every open run is read.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use fleet_rollout::{Holds, Moment, Mono, Scope};
use fleet_store::Direction;
use fleet_types::id::{NodeId, RunId};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::active::Active;
use super::cancel_retries::CancelRetries;
use super::pass;
use super::unloadable;
use crate::context::{Context, Memory, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::rebuild::{self, Known};
use crate::repo::codec::Mark;
use crate::repo::holds;
use crate::repo::reader::PAGE;
use crate::repo::runs;
use crate::wake::Changes;

/// The loop looks at least so often whether the machine stood still meanwhile.
const LOOK_PERIOD: Duration = Duration::from_secs(5);
/// A look that is so late means that the machine or the process stood still, and that nobody listened to the
/// nodes. A pass over very many jobs may be as slow on a loaded machine; that it is taken for a standstill only
/// gives silent nodes more time.
const STANDSTILL: Duration = Duration::from_secs(15);

/// The loop's own state: open runs, and which runs a node takes part in or what is limited binds.
#[derive(Default)]
pub(super) struct Runs {
    active: HashMap<RunId, Active>,
    by_node: BTreeMap<NodeId, BTreeSet<RunId>>,
    by_scope: BTreeMap<Scope, BTreeSet<RunId>>,
    holds: Holds,
    /// Since when nodes are listened to without a break.
    listening_since: Mono,
    looked: Mono,
    /// Who was told to stop, by run, as long as the run is open.
    cancel_retries: HashMap<RunId, CancelRetries>,
}

impl Runs {
    fn insert(&mut self, active: Active) {
        let model = active.open.read();
        let run = model.run.record.run;
        for node in model.nodes() {
            self.by_node.entry(node).or_default().insert(run);
        }
        for scope in model.rollout().plan().scopes() {
            self.by_scope.entry(scope).or_default().insert(run);
        }
        drop(model);
        self.active.insert(run, active);
    }

    /// Notices that nobody listened for a while, before anything is decided about silence.
    fn look(&mut self, storage: &Storage) {
        let now = storage.clock.moment().mono;
        if now.since(self.looked) >= STANDSTILL {
            tracing::warn!(
                seconds = now.since(self.looked).as_secs(),
                "the controller stood still; no node is held to have been silent meanwhile"
            );
            self.listening_since = now;
            for active in self.active.values() {
                active.open.write().listening_from(now);
            }
        }
        self.looked = now;
    }

    /// Tells every run of what was taken or became free. Gives the runs that were told.
    fn tell_holds(&mut self, storage: &Storage) -> BTreeSet<RunId> {
        let mut told = BTreeSet::new();
        for place in self.holds.take_changed() {
            for run in self.by_scope.get(&place.scope).into_iter().flatten() {
                let Some(active) = self.active.get(run) else { continue };
                if let Err(error) = pass::tell_hold(storage, active, &self.holds, &place) {
                    log(&format!("run {run}"), &error);
                }
                told.insert(*run);
            }
        }
        told
    }

    /// The runs that are to be settled now, oldest first: what several wait for goes to the one that has waited
    /// longest, and not to the one that happened to be looked at.
    fn in_turn(&self, touched: &BTreeSet<RunId>, now: Moment) -> Vec<RunId> {
        let mut turn = Vec::new();
        for (run, active) in &self.active {
            let model = active.open.read();
            if touched.contains(run) || !model.rollout().wanted(now).is_empty() {
                turn.push((model.run.record.started, *run));
            }
        }
        turn.sort_unstable();
        turn.into_iter().map(|(_, run)| run).collect()
    }

    /// Takes out a run that could not be handled, to be read anew: at once after a conflict, else when the period is
    /// over.
    fn set_aside(&mut self, memory: &Memory, run: RunId, error: &ControllerError) {
        if let Some(active) = self.active.remove(&run) {
            self.forget(&active);
        }
        if error.kind == Kind::Conflict {
            memory.notifier.run_changed(run);
        } else {
            log(&format!("run {run}"), error);
        }
    }

    /// Takes a run's nodes out of the index; the run itself was taken out before.
    fn forget(&mut self, active: &Active) {
        let model = active.open.read();
        let run = model.run.record.run;
        for node in model.nodes() {
            remove(&mut self.by_node, &node, run);
        }
        for scope in model.rollout().plan().scopes() {
            remove(&mut self.by_scope, &scope, run);
        }
    }
}

/// Takes a run out of an index, and the entry when it was its last.
fn remove<K: Ord + Borrow<Q>, Q: Ord + ?Sized>(
    index: &mut BTreeMap<K, BTreeSet<RunId>>,
    key: &Q,
    run: RunId,
) {
    if let Some(runs) = index.get_mut(key) {
        runs.remove(&run);
        if runs.is_empty() {
            index.remove(key);
        }
    }
}

/// Runs until it is told to stop.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let started = context.storage.clock.moment().mono;
    let mut runs = Runs { listening_since: started, looked: started, ..Runs::default() };
    let mut read_all = true;
    let mut next_full = Instant::now() + context.settings.pass_period;
    while !stop.is_cancelled() {
        if read_all {
            match read_open(&context.storage, &context.memory, &mut runs).await {
                Ok(()) => read_all = false,
                Err(error) => log("reading open runs", &error),
            }
        }
        round(&context, &mut runs).await;
        // On a clock of its own, however often the notifier rings: a run that was set aside is read again, and a
        // lost ring is made good.
        if Instant::now() >= next_full {
            read_all = true;
            next_full = Instant::now() + context.settings.pass_period;
            continue;
        }
        let next = next_wake(&context.storage, &runs).min(next_full);
        tokio::select! {
            () = stop.cancelled() => {}
            _ = timeout_at(next, context.memory.notifier.rung()) => {}
        }
    }
}

/// Brings every run up to date that something happened to, and only then lets them go on, each in its turn.
pub(super) async fn round(context: &Context, runs: &mut Runs) {
    let changes = context.memory.notifier.take();
    let mut news = BTreeSet::new();
    for (run, (jobs, nodes)) in touched(runs, &changes) {
        refresh(context, runs, run, changes.runs.contains(&run), &jobs, &nodes).await;
        news.insert(run);
    }
    news.extend(runs.tell_holds(&context.storage));
    // And every run whose time has come, whether or not something changed.
    runs.look(&context.storage);
    for run in runs.in_turn(&news, context.storage.clock.moment()) {
        settle(context, runs, run).await;
    }
}

async fn read_open(storage: &Storage, memory: &Memory, runs: &mut Runs) -> Result<()> {
    let mut after = None;
    loop {
        let page = storage.repo.page::<Mark>(runs::OPEN, after.as_ref(), PAGE, Direction::Ascending).await?;
        let last = page.len() < PAGE;
        for (key, _) in page {
            let run = runs::run_in(&key, runs::OPEN);
            after = Some(key);
            let Some(run) = run else { continue };
            if !runs.active.contains_key(&run) {
                memory.notifier.run_changed(run);
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

/// Reads a run if need be, and brings it up to date. One that cannot be handled is set aside until the next period
/// and never stops the others.
async fn refresh(
    context: &Context,
    runs: &mut Runs,
    run: RunId,
    reread: bool,
    jobs: &BTreeSet<NodeId>,
    nodes: &BTreeSet<NodeId>,
) {
    runs.look(&context.storage);
    if reread || !runs.active.contains_key(&run) {
        if let Some(old) = runs.active.remove(&run) {
            runs.forget(&old);
        }
        match read(context, runs, run).await {
            Ok(Some(active)) => {
                context.memory.open_runs.publish(run, Arc::clone(&active.open));
                runs.insert(active);
            }
            Ok(None) => {
                runs.cancel_retries.remove(&run);
                context.memory.open_runs.forget(run);
            }
            Err(error) => {
                log(&format!("run {run}"), &error);
                if error.detail.code == rebuild::UNLOADABLE
                    && let Err(error) =
                        unloadable::end(&context.storage, &context.memory, run, &error.detail.message).await
                {
                    log(&format!("ending run {run}"), &error);
                }
            }
        }
    }
    let Some(active) = runs.active.get(&run) else { return };
    if let Err(error) =
        pass::refresh(&context.storage, &context.memory, active, &mut runs.holds, jobs, nodes).await
    {
        runs.set_aside(&context.memory, run, &error);
    }
}

/// Reads a run and all that is held; `None` when it has ended.
async fn read(context: &Context, runs: &mut Runs, run: RunId) -> Result<Option<Active>> {
    runs.holds.set_all(holds::holds(&context.storage.repo).await?);
    // What was known of silent jobs outlives a conflict: their time must not begin anew with each.
    let known = Known { before: context.memory.open_runs.of(run), listening_since: runs.listening_since };
    let active = Active::load(context, run, &known, &runs.holds).await?;
    let has_ended = active.run().record.state.is_terminal();
    Ok((!has_ended).then_some(active))
}

/// Saves and says what one run wants now.
async fn settle(context: &Context, runs: &mut Runs, run: RunId) {
    runs.look(&context.storage);
    let Some(active) = runs.active.get(&run) else { return };
    let cancel_retries = runs.cancel_retries.entry(run).or_default();
    let outcome = pass::settle(context, active, &mut runs.holds, cancel_retries).await;
    active.open.tell(context.storage.clock.moment());
    match outcome {
        Ok(false) => {}
        Ok(true) => {
            context.memory.open_runs.forget(run);
            runs.cancel_retries.remove(&run);
            if let Some(active) = runs.active.remove(&run) {
                runs.forget(&active);
            }
        }
        Err(error) => runs.set_aside(&context.memory, run, &error),
    }
    for told in runs.tell_holds(&context.storage) {
        if let Some(active) = runs.active.get(&told) {
            active.open.tell(context.storage.clock.moment());
        }
    }
}

fn log(what: &str, error: &ControllerError) {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::error!("{what}: {error}: {source}");
}

fn next_wake(storage: &Storage, runs: &Runs) -> Instant {
    let now = storage.clock.moment();
    let waits = runs.active.values().filter_map(|active| active.open.read().rollout().next_look(now));
    // What became free may let another run go on at once.
    let due = runs.active.values().any(|active| !active.open.read().rollout().wanted(now).offer.is_empty());
    let wait = if due { Duration::ZERO } else { waits.min().unwrap_or(LOOK_PERIOD) };
    Instant::now() + wait.min(LOOK_PERIOD) + Duration::from_millis(1)
}
