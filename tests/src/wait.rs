//! Waiting for a condition, with a limit, so that a timeout explains itself (examples 29).
//!
//! Called by stories, fakes and the simulator. Nothing here sleeps for a guess: a condition is looked at again
//! and again until it holds, and a failed look is an answer like "not yet" that the timeout tells.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// How often a condition is looked at: short against what a person would notice, long against a call.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Limit of a story for one thing to happen. Generous: tests share two cores with builds.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks until `look` gives a value, at most for `limit`. `what` ends the sentence "waited for …".
pub async fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let ends = Instant::now() + limit;
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = String::from("it was looked at and did not hold");
    loop {
        ticks.tick().await;
        match timeout(ends.saturating_duration_since(Instant::now()), look()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => last = format!("the last look failed: {error:#}"),
            Err(_) => {
                bail!("waited {} s for {what}; the last look did not end; before: {last}", limit.as_secs())
            }
        }
        if Instant::now() >= ends {
            bail!("waited {} s for {what}; {last}", limit.as_secs());
        }
    }
}

/// Waits until a plain condition holds.
pub async fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, limit, async || Ok(holds().then_some(()))).await
}

/// Passes some time on purpose: how long a scripted agent works, when a storm strikes. Not for conditions.
pub async fn pass(time: Duration) {
    let _ = timeout(time, std::future::pending::<()>()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_timeout_says_what_was_waited_for_and_why_it_was_not_so() {
        let limit = Duration::from_millis(60);
        let error = wait_for::<()>("the moon", limit, async || bail!("it is cloudy")).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("the moon") && text.contains("it is cloudy"), "{text}");
        assert!(wait_until("the sun", limit, || false).await.is_err());
    }

    #[tokio::test]
    async fn a_look_that_hangs_ends_with_the_limit() {
        let limit = Duration::from_millis(60);
        let outcome = wait_for::<()>("an answer", limit, async || std::future::pending().await).await;
        assert!(outcome.unwrap_err().to_string().contains("did not end"));
    }

    #[tokio::test]
    async fn the_value_of_the_first_good_look_comes_back() {
        let mut looks = 0;
        let found = wait_for("the third look", PATIENCE, async || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.await.unwrap(), 3);
    }
}
