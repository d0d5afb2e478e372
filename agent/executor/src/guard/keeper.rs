//! The executor's side of the guard: arming, looking after the guard's process, letting go.
//!
//! One change of a node is pending at a time (security-and-delivery §2.10). Must not undo anything itself. Called by runs,
//! and by the dispatcher at its start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fleet_types::id::{Attempt, RunId};

use super::order::GuardOrder;
use super::pending::{Deadline, Decision, Pending};
use crate::durable;

/// A guard that was started has this long to take its lock: a machine that swaps makes a process wait for seconds.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Starts the guard's process for a folder.
pub trait StartGuard: Send + Sync {
    /// Lays down what a guard needs of its own, in the state's folder, before a change is armed.
    fn prepare(&self, _state: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Starts it and does not wait for it.
    fn start(&self, folder: &Path) -> io::Result<()>;
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Keeper {
    folder: PathBuf,
    guards: Arc<dyn StartGuard>,
}

impl Keeper {
    /// Changes lie below this folder of the executor's state.
    pub fn new(state: &Path, guards: Arc<dyn StartGuard>) -> Self {
        Self { folder: Self::folder_in(state), guards }
    }

    /// Where guarded changes lie.
    pub fn folder_in(state: &Path) -> PathBuf {
        state.join("guard")
    }

    /// The folder of a step's change.
    pub fn pending(&self, run: RunId, attempt: Attempt, step: &str) -> Pending {
        Pending::of(&self.folder, run, attempt, step)
    }

    /// Arms a change and starts its guard; when this returns well the guard lives.
    pub fn arm(&self, pending: &Pending, order: &GuardOrder, deadline: &Deadline) -> Result<(), String> {
        if let Some(other) = Pending::all(&self.folder).iter().find(|p| p.is_armed() && *p != pending) {
            let of = other.job().map_or_else(|| "an unknown run".to_owned(), |(run, _)| format!("run {run}"));
            return Err(format!("it still holds a change of {of}, see {}", other.folder().display()));
        }
        let state = self.folder.parent().unwrap_or(Path::new("/"));
        self.guards.prepare(state).map_err(|error| format!("its program cannot be laid down: {error}"))?;
        durable::make_private_directory(&self.folder)
            .and_then(|()| pending.arm(order, deadline))
            .map_err(|error| format!("its order cannot be written: {error}"))?;
        self.look_after(pending).inspect_err(|_| {
            // Nothing has changed yet: a guard that comes after all finds nothing.
            let _ = pending.remove();
        })
    }

    /// Starts a guard where there is none and waits until it is there.
    pub fn look_after(&self, pending: &Pending) -> Result<(), String> {
        if pending.is_watched() {
            return Ok(());
        }
        self.guards.start(pending.folder()).map_err(|error| format!("it cannot be started: {error}"))?;
        let until = Instant::now() + START_LIMIT;
        while !pending.is_watched() {
            // One that has done its work already is gone again.
            if matches!(pending.result(), Ok(Some(_))) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(format!("it did not begin within {} s", START_LIMIT.as_secs()));
            }
            thread::park_timeout(LOOK_EVERY);
        }
        Ok(())
    }

    /// After a start of the executor: what is pending gets a guard again, and what is over and of no open job is
    /// forgotten. Gives what a person should know.
    pub fn recover(&self, is_open: impl Fn((RunId, Attempt)) -> bool) -> Vec<String> {
        let mut told = Vec::new();
        for pending in Pending::all(&self.folder) {
            let open = pending.job().is_some_and(&is_open);
            let over = !pending.is_armed()
                || matches!(pending.decision(), Ok(Some(Decision::Confirmed)))
                || matches!(pending.result(), Ok(Some(_)));
            if !over && let Err(why) = self.look_after(&pending) {
                told.push(format!("the guard of {}: {why}", pending.folder().display()));
            }
            // Of an open job its run makes the end.
            if open || !over {
                continue;
            }
            for step in pending.result().ok().flatten().unwrap_or_default() {
                let (state, what) = (step.state, step.body.summary);
                told.push(format!(
                    "the guard put back {}, of which no job tells: {state:?}, {what}",
                    step.id
                ));
            }
            if let Err(error) = pending.remove() {
                told.push(format!("{} cannot be removed: {error}", pending.folder().display()));
            }
        }
        told
    }
}
