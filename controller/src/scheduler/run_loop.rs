//! The timer of the scheduler. Started by the program; bounded: a turn at least each minute, because runs end and clocks
//! jump without a ring.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::turn::Scheduler;
use crate::context::Context;

/// The longest between two looks; a clock that jumps is seen so soon.
const EVERY: Duration = Duration::from_mins(1);
/// The shortest, whatever rings.
const AT_MOST: Duration = Duration::from_millis(200);

/// Runs until it is told to stop.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let mut scheduler = Scheduler::new(&context.storage.clock);
    let work = async {
        loop {
            // Registered before the turn, so that what changes meanwhile is not missed.
            let changed = context.memory.schedule_changes.notified();
            let next = match scheduler.turn(&context).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!("schedules cannot be looked at; tried again in a minute: {error}");
                    None
                }
            };
            let until = next.map_or(EVERY, |next| next.since(context.storage.clock.now()));
            timeout(until.clamp(AT_MOST, EVERY), changed).await.ok();
            timeout(AT_MOST, std::future::pending::<()>()).await.ok();
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}
