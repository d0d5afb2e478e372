//! A call that has begun is carried out to its end, whatever its client does.
//!
//! A client that resets its stream or goes away drops the future of its call. Between a commit and what follows
//! from it in memory that must not happen: the store would say one thing and memory another until the next start.
//! So every handler runs as a task of its own, which a drain waits for. The one place for all services; a
//! session and the streams are tasks already.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// Carries out a call as a task; `places` bounds what one connection has under way, those calls among them that
/// nobody waits for any more. `None` when the call panicked.
pub async fn carry_out<T: Send + 'static>(
    tracker: TaskTracker,
    places: Arc<Semaphore>,
    call: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    // Whoever goes away before this has begun nothing. The semaphore is never closed.
    let place = places.acquire_owned().await.ok()?;
    let task = tracker.spawn(async move {
        let result = call.await;
        drop(place);
        result
    });
    task.await.inspect_err(|error| tracing::error!("a call ended without an answer: {error}")).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleet_certs::csr::PrivateKey;
    use fleet_certs::token::{Token, TokenKind};
    use fleet_types::label::Labels;
    use fleet_types::seal::SigningKey;

    use super::*;
    use crate::service::enrolment::{EnrolmentRequest, JoinOrder, create_join_token, enrol_node};
    use crate::service::inventory;
    use crate::testing::{StagedStore, TestContext, operator};

    /// Limit of a test for one thing to happen.
    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_client_that_goes_away_in_mid_commit_leaves_memory_as_the_store_is() {
        let store = Arc::new(StagedStore::default());
        let test = TestContext::over(store.clone()).await;
        let context = test.context.clone();
        let order = JoinOrder {
            name: "fw-a".parse().unwrap(),
            labels: Labels::default(),
            replace_labels: false,
            lifetime: Duration::ZERO,
        };
        let order = create_join_token(&context, &operator(), order, "").await;
        let order = order.unwrap();
        let token = Token::parse(TokenKind::Node, &order.token).unwrap();
        let tracker = TaskTracker::new();
        let held = store.hold_next();
        let call = carry_out(tracker.clone(), Arc::new(Semaphore::new(1)), {
            let context = context.clone();
            async move {
                let request = EnrolmentRequest {
                    token_id: &token.id.to_string(),
                    secret: token.secret.expose(),
                    csr: &PrivateKey::generate().unwrap().request().unwrap(),
                    second_key: SigningKey::generate().unwrap().0.public(),
                    address: "127.0.0.1",
                };
                enrol_node(&context, &request).await.map(|_| ())
            }
        });
        tokio::select! {
            _ = call => panic!("its answer is held back"),
            written = held.written => written.unwrap(),
        }
        // The select has dropped the call; the commit's answer comes now.
        held.answer.send(()).unwrap();
        tracker.close();
        tokio::time::timeout(SOON, tracker.wait()).await.expect("an end of the task");
        inventory::check_active(&context.memory, &context.settings, order.node_id)
            .expect("active, as the store says");
    }

    #[tokio::test]
    async fn calls_that_nobody_waits_for_count_among_those_of_their_connection() {
        let (tracker, places) = (TaskTracker::new(), Arc::new(Semaphore::new(1)));
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let mut first = Box::pin(carry_out(tracker.clone(), Arc::clone(&places), wait));
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut first).await.is_err());
        drop(first);
        let mut second = Box::pin(carry_out(tracker.clone(), Arc::clone(&places), async { 7 }));
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut second).await.is_err());
        go.send(()).unwrap();
        assert_eq!(tokio::time::timeout(SOON, second).await.unwrap(), Some(7));
        assert_eq!(carry_out(tracker, places, async { panic!("a defect") }).await, None::<()>);
    }
}
