//! Calling a task on a thread of its own, bounded by a deadline.
//!
//! A task that panics has failed; one that overruns its deadline is left behind and remembered until it comes
//! back, because a thread cannot be stopped from outside. Called by a run's steps and plans alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::draft::RunEvent;
use super::life::RunSurroundings;
use crate::host::{Clock, Host};
use crate::journal::JobKey;
use crate::resolve::{Resolution, ResolvedStep};
use crate::tasks::{CancelFlag, JobView, StepIdentity, TaskContext, TaskError};

/// This many threads may be left behind before the node starts no more changes: each may hold a hanging
/// program or file system, and a node with four of them needs a person.
pub const MAX_ABANDONED: usize = 4;
/// How often boot time is looked at while a task works: a task's limit goes on while the machine sleeps, and
/// the wait for its answer does not.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A thread that was left behind.
#[derive(Debug)]
struct Left {
    job: JobKey,
    ended: Arc<AtomicBool>,
    changing: bool,
}

/// The threads that were left behind and have not come back. At most as many as there are runs and steps that
/// overran: [`MAX_ABANDONED`] stop further changes, and one that changes stops them at once.
#[derive(Debug, Clone, Default)]
pub struct Abandoned(Arc<Mutex<Vec<Left>>>);

impl Abandoned {
    fn lock(&self) -> MutexGuard<'_, Vec<Left>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the node takes no changes, if it does not.
    pub fn reason(&self) -> Option<String> {
        let count = self.lock().len();
        (count >= MAX_ABANDONED)
            .then(|| format!("{count} tasks overran their deadline and have not come back"))
    }

    /// A job whose task overran and may still be changing the node. No other change starts beside it.
    pub fn changing(&self) -> Option<JobKey> {
        self.lock().iter().find(|left| left.changing).map(|left| left.job)
    }

    /// Remembers a thread, unless it has come back by now.
    fn leave(&self, left: Left) {
        let mut all = self.lock();
        if !left.ended.load(Ordering::Acquire) {
            all.push(left);
        }
    }

    /// A thread ends; was it left behind?
    fn come_back(&self, ended: &Arc<AtomicBool>) -> bool {
        let mut all = self.lock();
        ended.store(true, Ordering::Release);
        let before = all.len();
        all.retain(|left| !Arc::ptr_eq(&left.ended, ended));
        all.len() < before
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
    /// May it change the node?
    pub changing: bool,
    /// What the task learns of its job.
    pub job: JobView,
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
    let host = Arc::clone(&surroundings.host);
    let profile = Arc::clone(&resolution.profile);
    let facts = Arc::clone(&resolution.facts);
    let placeholders = Arc::clone(&resolution.placeholders);
    let with = Arc::clone(&step.with);
    let output = surroundings.output.open(call.key, &step.id);
    let limit = call.limit + surroundings.overrun_grace;
    let ended = Arc::new(AtomicBool::new(false));
    let left = Left { job: call.key, ended: Arc::clone(&ended), changing: call.changing };
    let comes_back =
        ComesBack { ended, abandoned: surroundings.abandoned.clone(), events: surroundings.events.clone() };
    let called = on_thread(&surroundings.host, &format!("task {}", step.action), limit, move || {
        let _back = comes_back;
        let context = TaskContext {
            host: host.as_ref(),
            profile: &profile,
            with: &with,
            facts: &facts,
            step: &call.identity,
            placeholders: &placeholders,
            job: &call.job,
            output: &output,
            cancel: &call.cancel,
            deadline: host.clock().instant() + call.limit,
        };
        work(&context)
    });
    if matches!(called, Called::Overran) {
        surroundings.abandoned.leave(left);
    }
    called
}

/// Calls `work` on a thread of its own and waits for it no longer than `limit`.
pub fn on_thread<T: Send + 'static>(
    host: &Arc<dyn Host>,
    name: &str,
    limit: Duration,
    work: impl FnOnce() -> Result<T, TaskError> + Send + 'static,
) -> Called<T> {
    // One answer, then the thread ends.
    let (answer, answered) = sync_channel(1);
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
        // The waiter may be gone; its report says that this overran.
        let _ = answer.send(work());
    });
    if let Err(error) = spawned {
        return Called::Answered(Err(TaskError::Declared(format!("no thread for the task: {error}"))));
    }
    match answer_within(host.clock(), &answered, limit) {
        Ok(result) => Called::Answered(result),
        Err(RecvTimeoutError::Disconnected) => Called::Panicked,
        Err(RecvTimeoutError::Timeout) => Called::Overran,
    }
}

/// The answer, unless the limit passes before: on boot time or on this process's own clock.
fn answer_within<T>(
    clock: &dyn Clock,
    answered: &Receiver<T>,
    limit: Duration,
) -> Result<T, RecvTimeoutError> {
    let (began, began_boot) = (Instant::now(), clock.since_boot());
    loop {
        let gone = began.elapsed().max(clock.since_boot().saturating_sub(began_boot));
        match answered.recv_timeout(limit.saturating_sub(gone).min(LOOK_EVERY)) {
            Err(RecvTimeoutError::Timeout) if gone < limit => {}
            ended => return ended,
        }
    }
}

/// Runs when the thread ends, in whatever way.
struct ComesBack {
    ended: Arc<AtomicBool>,
    abandoned: Abandoned,
    events: mpsc::Sender<RunEvent>,
}

impl Drop for ComesBack {
    fn drop(&mut self) {
        if self.abandoned.come_back(&self.ended) {
            // The dispatcher is gone only when the executor is.
            let _ = self.events.blocking_send(RunEvent::CameBack);
        }
    }
}
