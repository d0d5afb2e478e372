//! Opening a session: Hello goes out, Welcome comes in, within a limit.

use std::time::Duration;

use fleet_proto::pb::{self, agent_message};
use fleet_types::view::{ERROR_DETAIL_KEY, ErrorDetail};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::warn;

use super::dial::Clients;
use super::ending::Lost;
use super::session::Session;

/// Messages between the owner and HTTP/2: enough to keep a fast link busy; a slow one fills it and the rest
/// stays coalesced in the outbox.
const OUTGOING: usize = 8;
/// A controller that does not answer our leaving finds out by itself.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);
/// Heartbeat intervals that a controller may ask for: it must stay under the lease of 5 min.
const BEAT_LIMITS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_mins(4));

/// A session whose Welcome has come.
#[derive(Debug)]
pub struct Opened {
    /// The service over this connection.
    pub clients: Clients,
    /// The link's epoch.
    pub epoch: u64,
    /// What the controller said.
    pub welcome: pb::Welcome,
    /// Numbers and checks.
    pub session: Session,
    /// To the controller.
    pub outgoing: mpsc::Sender<pb::AgentMessage>,
    /// From the controller.
    pub incoming: Streaming<pb::ControllerMessage>,
}

/// When the controller said to come again.
fn named_retry(status: &tonic::Status) -> Option<Duration> {
    let bytes = status.metadata().get_bin(ERROR_DETAIL_KEY)?.to_bytes().ok()?;
    let detail: ErrorDetail = serde_json::from_slice(&bytes).ok()?;
    (detail.retry_after_ms > 0).then(|| Duration::from_millis(detail.retry_after_ms))
}

impl Opened {
    /// Says Hello and waits for Welcome. Without one the reason is in the log, and the error says before when
    /// another try is of no use, where the controller said so.
    pub async fn open(
        mut clients: Clients,
        hello: pb::Hello,
        limit: Duration,
    ) -> Result<Self, Option<Duration>> {
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let mut session = Session::default();
        // The channel is new and empty.
        outgoing.try_send(session.stamp(agent_message::Body::Hello(hello))).map_err(|_| None)?;
        let opening = async {
            let mut incoming = clients.control.session(ReceiverStream::new(messages)).await?.into_inner();
            let first = incoming.message().await?;
            Ok::<_, tonic::Status>((incoming, first))
        };
        let mut retry_after = None;
        let lost = match timeout(limit, opening).await {
            Err(_) => "no welcome in time".to_owned(),
            Ok(Err(status)) => {
                retry_after = named_retry(&status);
                Lost::Broken(status).to_string()
            }
            Ok(Ok((_, None))) => Lost::Closed.to_string(),
            Ok(Ok((incoming, Some(first)))) => match session.welcome(first) {
                Ok((epoch, welcome)) => {
                    return Ok(Self { clients, epoch, welcome, session, outgoing, incoming });
                }
                Err(fault) => fault.to_string(),
            },
        };
        warn!(endpoint = clients.endpoint, "no link: {lost}");
        Err(retry_after)
    }

    /// Ends the session in good order: our side closes, the controller's answer is waited for a moment.
    pub async fn leave(self) {
        let Self { outgoing, mut incoming, .. } = self;
        drop(outgoing);
        let rest = async { while let Ok(Some(_)) = incoming.message().await {} };
        let _ = timeout(LEAVE_LIMIT, rest).await;
    }

    /// The spread that the controller names; none when it names none.
    pub fn spread(&self) -> Option<Duration> {
        let ms = self.welcome.reconnect_spread_ms;
        (ms > 0).then(|| Duration::from_millis(ms.into()).min(Duration::from_mins(10)))
    }

    /// The heartbeat interval that the controller names, within limits.
    pub fn beat(&self, otherwise: Duration) -> Duration {
        match self.welcome.heartbeat_interval_ms {
            0 => otherwise,
            ms => Duration::from_millis(ms.into()).clamp(BEAT_LIMITS.0, BEAT_LIMITS.1),
        }
    }
}
