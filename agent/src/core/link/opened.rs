//! Opening a session: Hello goes out, Welcome comes in, within a limit.

use std::time::Duration;

use fleet_proto::pb::{self, agent_message};
use fleet_types::view::CERTIFICATE_REFUSED;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::warn;

use super::dial::Clients;
use super::ending::{Lost, status_detail};
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

/// Why no session came about, as far as it decides what to do next. The words are in the log.
#[derive(Debug, Default)]
pub struct NotOpened {
    /// Before this another try is of no use.
    pub retry_after: Option<Duration>,
    /// It is our certificate that the controller does not accept.
    pub certificate_refused: bool,
}

impl Opened {
    /// Says Hello and waits for Welcome. Without one the reason is in the log.
    pub async fn open(mut clients: Clients, hello: pb::Hello, limit: Duration) -> Result<Self, NotOpened> {
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let mut session = Session::default();
        // The channel is new and empty.
        outgoing
            .try_send(session.stamp(agent_message::Body::Hello(hello)))
            .map_err(|_| NotOpened::default())?;
        let opening = async {
            let mut incoming = clients.control.session(ReceiverStream::new(messages)).await?.into_inner();
            let first = incoming.message().await?;
            Ok::<_, tonic::Status>((incoming, first))
        };
        let mut not_opened = NotOpened::default();
        let lost = match timeout(limit, opening).await {
            Err(_) => "no welcome in time".to_owned(),
            Ok(Err(status)) => {
                if let Some(detail) = status_detail(&status) {
                    let named = Duration::from_millis(detail.retry_after_ms);
                    not_opened.retry_after = (!named.is_zero()).then_some(named);
                    not_opened.certificate_refused = CERTIFICATE_REFUSED.contains(&detail.code.as_str());
                }
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
        Err(not_opened)
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
