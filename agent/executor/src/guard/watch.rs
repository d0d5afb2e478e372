//! The guard's loop: waits for a decision, and at the deadline decides.
//!
//! It must not need anybody: no network, no agent, no journal. What it finds broken it takes for "not confirmed". Called
//! by the guard's process.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::order::{GuardOrder, ORDER_VERSION};
use super::pending::{Decision, Pending};
use super::undo::put_back;
use crate::host::Host;
use crate::resolve::TaskTable;

/// How often it looks: a change that is let go is let go at once in people's eyes, and ten looks a second cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Whoever asks whether there is a guard holds the lock for an instant.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// A result that cannot be written is tried again so often, a look apart; then the lock is let go without one.
const RESULT_TRIES: u32 = 50;

/// How a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// Another guard has it.
    ByAnother,
    /// It was let go, or confirmed.
    LetGo,
    /// It was put back; the result says how that went.
    PutBack,
}

/// Watches one change to its end.
///
/// # Errors
///
/// The folder cannot be read or written. Whoever started the guard starts it again.
pub fn watch(pending: &Pending, host: &Arc<dyn Host>, tasks: &TaskTable) -> io::Result<Watched> {
    let Some(_lock) = lock(pending)? else { return Ok(Watched::ByAnother) };
    let Some(order) = pending.order()? else { return Ok(Watched::LetGo) };
    if order.version != ORDER_VERSION {
        return Err(io::Error::other(format!("the order has version {}", order.version)));
    }
    let clock = host.clock();
    let window = Duration::from_millis(order.window_ms);
    // Since when nobody has been at the change.
    let mut left_alone: Option<Duration> = None;
    loop {
        if !pending.is_armed() || pending.result()?.is_some() {
            return Ok(Watched::LetGo);
        }
        match pending.decision()? {
            Some(Decision::Confirmed) => return Ok(Watched::LetGo),
            // A guard before this one began it and did not come to the end.
            Some(Decision::Undoing) => break,
            None => {}
        }
        let now = clock.since_boot();
        left_alone = (!is_at_work(pending, host, &order)).then(|| left_alone.unwrap_or(now));
        // Never beside somebody who is still making it: then the deadline alone counts. As it does while the machine goes
        // down and comes up.
        let is_over = left_alone.is_some_and(|since| {
            (!order.restarts && now.saturating_sub(since) >= window)
                || pending.said(Decision::Undoing).is_some()
        });
        let left = if is_over { None } else { pending.left(&order, clock) };
        match left {
            Some(left) => thread::park_timeout(left.min(LOOK_EVERY)),
            None => match pending.decide(Decision::Undoing) {
                Ok(Decision::Confirmed) => return Ok(Watched::LetGo),
                Ok(Decision::Undoing) => break,
                Err(error) if !pending.is_armed() => {
                    tracing::debug!(%error, "let go at the last moment");
                    return Ok(Watched::LetGo);
                }
                Err(error) => return Err(error),
            },
        }
    }
    tracing::warn!(run = %order.step.run, step = order.step.step, "nobody confirmed the change: it is put back");
    if let Err(error) = pending.make_room() {
        tracing::warn!(%error, "the room that was kept for it cannot be given up");
    }
    let restart = |limit| restart(pending, host, limit);
    let steps = put_back(&Arc::new(order), host, tasks, pending.restarted_from().as_deref(), &restart);
    for step in &steps {
        tracing::warn!(step = step.id, state = ?step.state, summary = step.body.summary, "put back");
    }
    let mut tries = 0;
    while let Err(error) = pending.write_result(&steps) {
        tries += 1;
        if tries >= RESULT_TRIES {
            return Err(error);
        }
        thread::park_timeout(LOOK_EVERY);
    }
    Ok(Watched::PutBack)
}

/// Watches all changes below a folder, side by side; for the start of the machine.
///
/// # Errors
///
/// The first that a watch ended with.
pub fn watch_all(folder: &Path, host: &Arc<dyn Host>, tasks: &TaskTable) -> io::Result<()> {
    let all = Pending::all(folder);
    thread::scope(|scope| {
        let watches: Vec<_> =
            all.iter().map(|pending| scope.spawn(move || watch(pending, host, tasks))).collect();
        let ended = watches.into_iter().map(|watch| {
            watch.join().unwrap_or_else(|_| Err(io::Error::other("a watch broke off by a fault of its own")))
        });
        ended.collect::<io::Result<Vec<_>>>().map(drop)
    })
}

/// Has the machine restarted, and waits to be ended with it; the next guard goes on. Gives why that did not come.
fn restart(pending: &Pending, host: &Arc<dyn Host>, limit: Duration) -> String {
    let clock = host.clock();
    if let Err(error) = pending.note_restart(&clock.boot_id()) {
        return format!("a restart of the machine cannot be noted, and was not asked for: {error}");
    }
    if let Err(error) = host.units().restart_machine() {
        return format!("the machine was not restarted: {error}");
    }
    let asked = clock.since_boot();
    while clock.since_boot().saturating_sub(asked) < limit {
        thread::park_timeout(LOOK_EVERY);
    }
    format!("the machine was asked to restart and did not go down within {} s", limit.as_secs())
}

/// Is the executor at the change, or a program that it started for the job? The step's own time covers both; when they are
/// gone the change waits to be confirmed, and nobody has said so.
fn is_at_work(pending: &Pending, host: &Arc<dyn Host>, order: &GuardOrder) -> bool {
    pending.is_worked_on() || host.processes().living().iter().any(|program| program.run == order.step.run)
}

fn lock(pending: &Pending) -> io::Result<Option<std::fs::File>> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        // A folder that is gone has nothing to lock.
        if !pending.is_armed() {
            return Ok(None);
        }
        if let Some(lock) = pending.try_lock()? {
            return Ok(Some(lock));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        thread::park_timeout(Duration::from_millis(50));
    }
}
