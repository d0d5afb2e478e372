//! What the controller does by itself from time to time: end the jobs of nodes that get no work where that was not
//! finished, take away what is older than its period, and keep the tree over the audit log up to date.
//!
//! Started by the program; never in anybody's way: small commits, and a first turn some time after the start.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::audit::{self, Tree};
use super::holds;
use super::retention::{self, Swept};
use crate::context::Context;

/// After the start, when the fleet has come back.
const FIRST: Duration = Duration::from_mins(10);
/// Periods are counted in days: a quarter of one is soon enough.
const EVERY: Duration = Duration::from_hours(6);

/// Runs until it is told to stop.
pub async fn run(context: Arc<Context>, tree: Arc<Tree>, stop: CancellationToken) {
    let mut wait = FIRST;
    while timeout(wait, stop.cancelled()).await.is_err() {
        wait = EVERY;
        // A stop in the middle leaves less to do for the next turn.
        let turn = async {
            if let Err(error) = holds::take_up_again(&context).await {
                tracing::error!("ending the jobs of nodes that are held or removed: {error}");
            }
            match retention::sweep(&context.storage, &context.files).await {
                Ok(swept) if swept == Swept::default() => {}
                Ok(swept) => tracing::info!(
                    runs = swept.runs,
                    bodies = swept.bodies,
                    others = swept.others,
                    "what was kept long enough is gone"
                ),
                Err(error) => tracing::error!("taking away what was kept long enough: {error}"),
            }
            if let Err(error) = audit::head(&context.storage, &context.identities, &tree).await {
                tracing::error!("the tree over the audit log: {error}");
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = turn => {}
        }
    }
}
