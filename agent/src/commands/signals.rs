//! SIGTERM and Ctrl-C: the first asks for an end in good order, a second for one at once. SIGHUP ends nothing.

use tokio::signal::unix::{Signal, SignalKind, signal};

use tracing::info;

use crate::error::{Exit, Failure};

/// The two signals, heard from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Begins to hear them.
    pub fn hear() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| Failure::of(Exit::Failed, &error));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one. Safe to drop at its await.
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    info!("SIGHUP: [policy] is read whenever it counts; other settings need a restart");
                }
            }
        }
    }
}
