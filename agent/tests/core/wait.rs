//! Waiting for a condition, with a limit, saying what for.

use std::time::Duration;

use tokio::time::timeout;

/// Generous for a machine that builds something else meanwhile; nothing waits this long when all is well.
pub const LIMIT: Duration = Duration::from_secs(20);

/// The future's output, or a panic that says what did not happen.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("did not happen within {LIMIT:?}: {what}"))
}
