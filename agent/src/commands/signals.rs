//! SIGTERM and Ctrl-C: the first asks for an end in good order, a second for one at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Exit, Failure};

/// The two signals, heard from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to hear them.
    pub fn hear() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| Failure::of(Exit::Failed, &error));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    /// Waits for the next one. Safe to drop at its await.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
