//! The output's own stream: it is opened when there is output, and opened again when it broke.
//!
//! Separate from the session, so that output never delays control messages (security-and-delivery §2.9);
//! what may be under way is bounded by the controller's credits.

use fleet_proto::pb;
use fleet_proto::pb::agent_service_client::AgentServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tracing::debug;

/// Pieces between the owner and the stream; credits bound what is under way, this only smooths.
const PIECES: usize = 4;
/// Credits between the stream and the owner, who takes them as they come.
const CREDITS: usize = 16;

/// An open stream. Dropping it ends it.
#[derive(Debug)]
pub struct OutputStream {
    /// Pieces to send.
    pub pieces: mpsc::Sender<pb::OutputChunk>,
    /// Credits of the controller; closed when the stream has ended.
    pub credits: mpsc::Receiver<pb::OutputCredit>,
    _pump: AbortOnDropHandle<()>,
}

impl OutputStream {
    /// Opens a stream.
    pub fn open(client: AgentServiceClient<Channel>) -> Self {
        let (pieces, outgoing) = mpsc::channel(PIECES);
        let (incoming, credits) = mpsc::channel(CREDITS);
        let pump = AbortOnDropHandle::new(tokio::spawn(pump(client, outgoing, incoming)));
        Self { pieces, credits, _pump: pump }
    }
}

async fn pump(
    mut client: AgentServiceClient<Channel>,
    outgoing: mpsc::Receiver<pb::OutputChunk>,
    incoming: mpsc::Sender<pb::OutputCredit>,
) {
    let mut credits = match client.output(ReceiverStream::new(outgoing)).await {
        Ok(reply) => reply.into_inner(),
        Err(status) => {
            debug!(code = ?status.code(), "controller takes no output now");
            return;
        }
    };
    while let Ok(Some(credit)) = credits.message().await {
        if incoming.send(credit).await.is_err() {
            return;
        }
    }
}
