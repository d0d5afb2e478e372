//! What the controller does by itself from time to time: end the jobs of nodes that get no work where that was not
//! finished, take away what is older than its period, and keep the tree over the audit log up to date.
//!
//! Started by the program; never in anybody's way: small commits, and a first turn some time after the start.

use std::sync::Arc;
use std::time::Duration;

use fleet_rollout::Moment;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::audit::{self, Tree};
use super::holds;
use super::retention::{self, Swept};
use super::revocation;
use crate::context::Context;

/// After the start, when the fleet has come back.
const FIRST: Duration = Duration::from_mins(10);
/// Periods are counted in days: a quarter of one is soon enough. No setting: a turn that finds nothing costs one pass over
/// the runs that are kept, and what came due a few hours ago is missed by nobody.
const EVERY: Duration = Duration::from_hours(6);
/// How often it looks whether a turn is due. Timers stand still while the machine is suspended; a turn that came due
/// meanwhile is taken so soon after it woke.
const LOOK: Duration = Duration::from_mins(1);

/// Runs until it is told to stop.
pub async fn run(context: Arc<Context>, tree: Arc<Tree>, stop: CancellationToken) {
    let clock = &context.storage.clock;
    let (mut wait, mut since) = (FIRST, clock.moment());
    while timeout(LOOK, stop.cancelled()).await.is_err() {
        let now = clock.moment();
        if !is_due(since, now, wait) {
            continue;
        }
        (wait, since) = (EVERY, now);
        // A stop in the middle leaves less to do for the next turn.
        let turn = async {
            if let Err(error) = holds::take_up_again(&context).await {
                tracing::error!("ending the jobs of nodes that are held or removed: {error}");
            }
            if let Err(error) = revocation::take_up_again(&context).await {
                tracing::error!("ending the jobs of nodes that are revoked: {error}");
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

/// Has so much time passed by either clock? The monotonic one does not count what was slept through, the other one may
/// be set back.
fn is_due(since: Moment, now: Moment, wait: Duration) -> bool {
    now.mono.since(since.mono) >= wait || now.wall >= since.wall.plus(wait)
}

#[cfg(test)]
mod tests {
    use fleet_rollout::Mono;
    use fleet_types::time::Timestamp;

    use super::*;

    #[test]
    fn a_turn_is_due_after_a_sleep_of_the_machine_and_with_a_clock_that_was_set_back() {
        let at = |wall_hours: i64, mono_hours: u64| Moment {
            wall: Timestamp::clamped(1_800_000_000_000 + wall_hours * 3_600_000),
            mono: Mono::new(Duration::from_hours(mono_hours)),
        };
        let due = |now| is_due(at(0, 1), now, EVERY);
        assert!(!due(at(5, 6)), "five hours of both");
        assert!(due(at(6, 7)));
        assert!(due(at(48, 1)), "two days asleep");
        assert!(due(at(-100, 7)), "set back by four days, six hours later");
        assert!(!due(at(-100, 6)));
    }
}
