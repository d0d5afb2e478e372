//! Asking the core whether the way to a controller is open: the executor opens no connection itself.
//!
//! A question may get no answer, because there is no core or it was ended: whoever asks waits within a limit and asks
//! again. Called by runs; answered by the dispatcher.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::draft::RunEvent;

/// What a core needs at most: every endpoint and every witness with their limits. Then it is asked again.
pub const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// Is the way to a controller open?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathQuestion {
    /// Names it in its answer.
    pub id: u64,
    /// Asked where no controller answers.
    pub witnesses: Vec<String>,
}

/// Who answers on a new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// The controller at this endpoint.
    Controller(String),
    /// This witness, and no controller.
    Witness(String),
    /// Nobody; why no controller.
    Nobody(String),
}

/// The questions that wait for an answer; one a run, so as many as there are runs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PathDesk(Arc<Desk>);

#[derive(Debug, Default)]
struct Desk {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, SyncSender<Way>>>,
}

impl PathDesk {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, SyncSender<Way>>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks and waits; none when nobody answered within `limit`.
    pub fn ask(
        &self,
        events: &mpsc::Sender<RunEvent>,
        witnesses: Vec<String>,
        limit: Duration,
    ) -> Option<Way> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = sync_channel(1);
        self.waiting().insert(id, answer);
        // The dispatcher is gone only when the executor is.
        let _ = events.blocking_send(RunEvent::AskPath(PathQuestion { id, witnesses }));
        let answer = answered.recv_timeout(limit.min(ANSWER_LIMIT)).ok();
        self.waiting().remove(&id);
        answer
    }

    /// Hands an answer over; to a question that nobody waits for any more it is dropped.
    pub fn answer(&self, question: u64, way: Way) {
        if let Some(waits) = self.waiting().remove(&question) {
            // Whoever asked may have given up this moment.
            let _ = waits.send(way);
        }
    }
}
