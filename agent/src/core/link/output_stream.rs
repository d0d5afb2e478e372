//! The output's own stream: it is opened when there is output, and opened again when it broke.
//!
//! Separate from the session, so that output never delays control messages (security-and-delivery §2.9);
//! how fast it goes is HTTP/2's flow control.

use fleet_proto::pb;
use fleet_proto::pb::agent_service_client::AgentServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;
use tonic::transport::Channel;
use tracing::debug;

use super::documents::is_final;

/// Pieces between the owner and the stream.
const PIECES: usize = 4;
/// Answers between the stream and the owner, who takes them as they come.
const ANSWERS: usize = 16;

/// What the controller says on the stream.
#[derive(Debug)]
pub enum Heard {
    /// Stored so far.
    Stored(pb::OutputStored),
    /// A plain "no" to something that was sent: an unknown job, a malformed piece.
    Refused,
}

/// An open stream. Dropping it ends it.
#[derive(Debug)]
pub struct OutputStream {
    /// Pieces to send.
    pub pieces: mpsc::Sender<pb::OutputChunk>,
    /// Answers of the controller, and how the stream ended.
    pub said: mpsc::Receiver<Heard>,
    _pump: AbortOnDropHandle<()>,
}

impl OutputStream {
    /// Opens a stream.
    pub fn open(client: AgentServiceClient<Channel>) -> Self {
        let (pieces, outgoing) = mpsc::channel(PIECES);
        let (incoming, said) = mpsc::channel(ANSWERS);
        let pump = AbortOnDropHandle::new(tokio::spawn(pump(client, outgoing, incoming)));
        Self { pieces, said, _pump: pump }
    }
}

/// What the output stream says; waits for ever when no output stream is open.
pub async fn heard(said: Option<&mut mpsc::Receiver<Heard>>) -> Option<Heard> {
    match said {
        Some(said) => said.recv().await,
        None => std::future::pending().await,
    }
}

/// Room for a piece; waits for ever when no output stream is open, false when it has ended.
pub async fn has_room(pieces: Option<&mpsc::Sender<pb::OutputChunk>>) -> bool {
    match pieces {
        Some(pieces) => pieces.reserve().await.is_ok(),
        None => std::future::pending().await,
    }
}

async fn pump(
    mut client: AgentServiceClient<Channel>,
    outgoing: mpsc::Receiver<pb::OutputChunk>,
    incoming: mpsc::Sender<Heard>,
) {
    let status = match client.output(ReceiverStream::new(outgoing)).await {
        Ok(reply) => listen(reply.into_inner(), &incoming).await,
        Err(status) => Some(status),
    };
    let Some(status) = status else { return };
    debug!(code = ?status.code(), "the output stream ended: {}", status.message());
    if is_final(status.code()) {
        // Fails when the owner is gone, which needs to know nothing any more.
        let _ = incoming.send(Heard::Refused).await;
    }
}

/// Passes answers on until the stream ends; with its status where it has one.
async fn listen(
    mut answers: Streaming<pb::OutputStored>,
    incoming: &mpsc::Sender<Heard>,
) -> Option<tonic::Status> {
    loop {
        match answers.message().await {
            Ok(Some(stored)) => incoming.send(Heard::Stored(stored)).await.ok()?,
            Ok(None) => return None,
            Err(status) => return Some(status),
        }
    }
}
