//! Calling a task on a thread of its own, bounded by a deadline.
//!
//! A task that panics has failed; one that overruns its deadline is left behind and counted, because a
//! thread cannot be stopped from outside. Called by a run's steps and plans alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use super::life::RunSurroundings;
use crate::journal::JobKey;
use crate::resolve::{Resolution, ResolvedStep};
use crate::tasks::{CancelFlag, StepIdentity, TaskContext, TaskError};

/// This many threads may be left behind before the node starts no more changes: each may hold a hanging
/// program or file system, and a node with four of them needs a person.
pub const MAX_ABANDONED: usize = 4;

/// Counts the threads that were left behind and have not come back.
#[derive(Debug, Clone, Default)]
pub struct Abandoned(Arc<AtomicUsize>);

impl Abandoned {
    /// Why the node starts no changes, if it does not.
    pub fn reason(&self) -> Option<String> {
        let count = self.0.load(Ordering::Acquire);
        (count >= MAX_ABANDONED)
            .then(|| format!("{count} tasks overran their deadline and have not come back"))
    }
}

/// How a call ended.
#[derive(Debug)]
pub enum Called<T> {
    /// The task answered.
    Answered(Result<T, TaskError>),
    /// It overran its deadline and the grace after it.
    Overran,
    /// It panicked.
    Panicked,
}

/// What a call is for.
#[derive(Debug, Clone)]
pub struct Call {
    /// The job.
    pub key: JobKey,
    /// The step and its try.
    pub identity: StepIdentity,
    /// Time it has.
    pub limit: Duration,
    /// Asked to stop?
    pub cancel: CancelFlag,
}

/// Calls `work` with the context of `step` on a thread of its own.
pub fn call<T: Send + 'static>(
    surroundings: &RunSurroundings,
    resolution: &Resolution,
    step: &ResolvedStep,
    call: Call,
    work: impl FnOnce(&TaskContext<'_>) -> Result<T, TaskError> + Send + 'static,
) -> Called<T> {
    // One answer, then the thread ends.
    let (answer, answered) = sync_channel(1);
    let host = Arc::clone(&surroundings.host);
    let profile = Arc::clone(&resolution.profile);
    let facts = Arc::clone(&resolution.facts);
    let placeholders = Arc::clone(&resolution.placeholders);
    let with = Arc::clone(&step.with);
    let output = surroundings.output.open(call.key, &step.id);
    let limit = call.limit;
    let left_behind = surroundings.abandoned.clone();
    // Whoever comes second of waiter and thread puts the count right.
    let overran = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&overran);
    let spawned = thread::Builder::new().name(format!("task {}", step.action)).spawn(move || {
        let _back = CountBack { overran: seen, left_behind };
        let context = TaskContext {
            host: host.as_ref(),
            profile: &profile,
            with: &with,
            facts: &facts,
            step: &call.identity,
            placeholders: &placeholders,
            output: &output,
            cancel: &call.cancel,
            deadline: host.clock().instant() + call.limit,
        };
        let result = work(&context);
        // The waiter may be gone; its report says that this overran.
        let _ = answer.send(result);
    });
    if let Err(error) = spawned {
        return Called::Answered(Err(TaskError::Declared(format!("no thread for the task: {error}"))));
    }
    match answered.recv_timeout(limit + surroundings.overrun_grace) {
        Ok(result) => Called::Answered(result),
        Err(RecvTimeoutError::Disconnected) => Called::Panicked,
        Err(RecvTimeoutError::Timeout) => {
            if overran.swap(1, Ordering::AcqRel) == 0 {
                surroundings.abandoned.0.fetch_add(1, Ordering::AcqRel);
            }
            Called::Overran
        }
    }
}

/// Runs when the thread ends, in whatever way.
struct CountBack {
    overran: Arc<AtomicUsize>,
    left_behind: Abandoned,
}

impl Drop for CountBack {
    fn drop(&mut self) {
        if self.overran.swap(2, Ordering::AcqRel) == 1 {
            self.left_behind.0.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
