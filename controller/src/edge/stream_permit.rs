//! How long a caller may hold a stream: until the stop, until they are shut out, at most until their certificate ends
//! (security-and-delivery §1.10). For streams of operators and of output; a node's session asks by itself.

use std::sync::Arc;
use std::time::Duration;

use fleet_certs::PeerIdentity;
use fleet_certs::revoke::DenyList;
use fleet_types::time::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::status::to_status;
use crate::error::{ControllerError, Kind};

/// Wait for a reader to take the reason why the stream ends: one that reads takes it at once, one that does not
/// must not keep the stream.
const REASON_LIMIT: Duration = Duration::from_secs(1);

/// A caller's hold on one stream.
pub struct StreamPermit {
    denied: Arc<DenyList>,
    identity: Arc<PeerIdentity>,
    expires: Instant,
    stop: CancellationToken,
}

impl StreamPermit {
    /// For a caller that the guard let through at `now`.
    pub fn new(
        denied: Arc<DenyList>,
        identity: Arc<PeerIdentity>,
        now: Timestamp,
        stop: CancellationToken,
    ) -> Self {
        let expires = Instant::now() + identity.not_after.since(now);
        Self { denied, identity, expires, stop }
    }

    /// Does the work of a stream as long as it may be held, also when the work waits for a reader who takes
    /// nothing. Why it ended early is the last message.
    pub async fn hold<T>(self, out: &mpsc::Sender<Result<T, Status>>, work: impl Future<Output = ()>) {
        let ended = tokio::select! {
            () = work => None,
            ended = self.ended() => ended,
        };
        if let Some(error) = ended {
            let _ = timeout(REASON_LIMIT, out.send(Err(to_status(error)))).await;
        }
    }

    /// Waits for the end; no reason at the stop.
    async fn ended(&self) -> Option<ControllerError> {
        let mut list = self.denied.subscribe();
        loop {
            if let Err(revoked) = self.denied.check(&self.identity) {
                return Some(ControllerError::new(Kind::Refused, "revoked", revoked.to_string()));
            }
            let changed = tokio::select! {
                () = self.stop.cancelled() => return None,
                changed = timeout_at(self.expires, list.changed()) => changed,
            };
            if changed.is_err() {
                return Some(expired());
            }
        }
    }
}

/// The caller's certificate has ended.
pub fn expired() -> ControllerError {
    ControllerError::new(Kind::Unauthenticated, "certificate-expired", "your certificate has ended")
        .fix("sign in again: fleetctl login with a new invite; an agent renews by itself")
}

#[cfg(test)]
mod tests {
    use fleet_certs::revoke::Denied;
    use fleet_types::digest::Digest;
    use tonic::Code;

    use super::*;

    /// Limit of a test for one thing to happen; the rules ask for 5 s.
    const SOON: Duration = Duration::from_secs(5);
    const NOW: i64 = 1_790_000_000_000;

    fn operator(life: Duration) -> Arc<PeerIdentity> {
        let name =
            "fleet://0192f0c1-0000-7000-8000-000000000001/operator/0192f0c1-0000-7000-8000-000000000002";
        Arc::new(PeerIdentity {
            identity: name.parse().unwrap(),
            serial: "4001".parse().unwrap(),
            not_before: Timestamp::clamped(NOW),
            not_after: Timestamp::clamped(NOW).plus(life),
            fingerprint: Digest::of(b"x"),
        })
    }

    /// A stream that would go on for ever, with a reader that begins to read after `act`; why it ended.
    async fn held(life: Duration, act: impl AsyncFnOnce(&DenyList, &CancellationToken)) -> Option<Status> {
        let (denied, stop) = (DenyList::new(Denied::default()), CancellationToken::new());
        let (out, mut reader) = mpsc::channel::<Result<u32, Status>>(1);
        let permit = StreamPermit::new(denied.clone(), operator(life), Timestamp::clamped(NOW), stop.clone());
        let stream = tokio::spawn(async move {
            // The second message waits for a reader who never takes the first.
            permit
                .hold(&out, async {
                    for n in 0.. {
                        out.send(Ok(n)).await.unwrap();
                    }
                })
                .await;
        });
        act(&denied, &stop).await;
        // While the reason waits for room, the reader begins to read: it is there behind what came before.
        let mut last = None;
        let reading = async {
            while let Some(message) = reader.recv().await {
                last = message.err();
                if last.is_some() {
                    break;
                }
            }
        };
        timeout(SOON, reading).await.expect("the stream to end");
        timeout(SOON, stream).await.expect("the task to end").unwrap();
        last
    }

    #[tokio::test]
    async fn a_stream_ends_when_its_caller_is_shut_out() {
        let reason = held(Duration::from_hours(1), async |denied, _| {
            let identity = operator(Duration::ZERO).identity;
            let operators = identity.operator().into_iter().collect();
            denied.replace(Denied { version: 1, operators, ..Denied::default() }).unwrap();
        })
        .await;
        assert_eq!(reason.unwrap().code(), Code::PermissionDenied);
    }

    #[tokio::test]
    async fn a_list_that_names_others_ends_nothing_and_the_stop_ends_it_without_a_reason() {
        let reason = held(Duration::from_hours(1), async |denied, stop| {
            let serials = ["4002".parse().unwrap()].into_iter().collect();
            denied.replace(Denied { version: 1, serials, ..Denied::default() }).unwrap();
            tokio::task::yield_now().await;
            stop.cancel();
        })
        .await;
        assert!(reason.is_none(), "{reason:?}");
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_callers_certificate() {
        let reason = held(Duration::from_millis(50), async |_, _| {}).await;
        assert_eq!(reason.unwrap().code(), Code::Unauthenticated);
    }

    #[tokio::test]
    async fn a_reader_who_takes_nothing_keeps_no_stream() {
        let (denied, stop) = (DenyList::new(Denied::default()), CancellationToken::new());
        let (out, _reader) = mpsc::channel::<Result<u32, Status>>(1);
        out.send(Ok(0)).await.unwrap();
        let life = Duration::from_millis(50);
        let permit = StreamPermit::new(denied, operator(life), Timestamp::clamped(NOW), stop);
        timeout(SOON, permit.hold(&out, std::future::pending())).await.expect("the stream to end");
    }
}
