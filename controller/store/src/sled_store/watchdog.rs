//! A writer that is stuck ends the process.
//!
//! sled has been seen to deadlock under load (security-and-delivery §4.2). Nobody inside the process can free it, so
//! after a limit the watchdog acts: by default it aborts the process. It must never do anything else.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::settings::StuckAction;

/// The thread that looks at the writer, and what they share.
pub(crate) struct Watchdog {
    watched: Arc<Watched>,
    thread: JoinHandle<()>,
}

/// What the writer tells.
#[derive(Default)]
pub(crate) struct Watched {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    busy_since: Option<Instant>,
    is_reported: bool,
    is_stopped: bool,
}

impl Watched {
    /// A group begins.
    pub(crate) fn begin(&self) {
        let mut state = self.lock();
        state.busy_since = Some(Instant::now());
        state.is_reported = false;
    }

    /// The group has ended.
    pub(crate) fn end(&self) {
        self.lock().busy_since = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, store: &str, limit: Duration, on_stuck: &StuckAction) {
        // Four looks in each limit: noticed at the latest after a quarter more.
        let look_every = (limit / 4).max(Duration::from_millis(1));
        let mut state = self.lock();
        while !state.is_stopped {
            state = self.stopped.wait_timeout(state, look_every).unwrap_or_else(PoisonError::into_inner).0;
            let busy_for = state.busy_since.map_or(Duration::ZERO, |since| since.elapsed());
            if busy_for > limit && !state.is_reported {
                state.is_reported = true;
                drop(state);
                on_stuck(&format!(
                    "the writer of the store at {store} has been stuck for {} ms",
                    busy_for.as_millis()
                ));
                state = self.lock();
            }
        }
    }
}

impl Watchdog {
    /// Starts the thread.
    pub(crate) fn start(path: &Path, limit: Duration, on_stuck: StuckAction) -> io::Result<Self> {
        let watched = Arc::new(Watched::default());
        let shared = watched.clone();
        let store = path.display().to_string();
        let thread = Builder::new()
            .name("store-watchdog".to_owned())
            .spawn(move || shared.watch(&store, limit, &on_stuck))?;
        Ok(Self { watched, thread })
    }

    /// What the writer tells.
    pub(crate) fn watched(&self) -> Arc<Watched> {
        self.watched.clone()
    }

    /// Lets the thread end without waiting for it.
    pub(crate) fn release(&self) {
        self.watched.lock().is_stopped = true;
        self.watched.stopped.notify_all();
    }

    /// Ends the thread.
    pub(crate) fn stop(self) {
        self.release();
        if self.thread.join().is_err() {
            tracing::error!("the store's watchdog has panicked");
        }
    }
}
