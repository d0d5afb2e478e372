//! Our own accept loop (security-and-delivery §1.22): a handshake limit, caps on handshakes and connections,
//! settings that are replaced while running. A failed handshake concerns one connection and never ends it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleet_certs::accept::{self, AcceptError};
use fleet_certs::tls::ServerTls;
use fleet_types::id::FleetId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::peer::{Peer, PeerStream};
use super::refusals::Refusals;
use crate::settings::Settings;

/// Connections that have their handshake behind them and wait for the server to take them: it takes them at
/// once, so a few are enough.
const READY: usize = 64;
/// Wait after the kernel refused to accept (no descriptors left): accepting again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What one listener needs.
pub struct Listener {
    /// Bound already.
    pub socket: TcpListener,
    /// TLS settings as published now.
    pub tls: ServerTls,
    /// Our fleet; `None` on the enrolment port, where no certificate is asked for.
    pub fleet: Option<FleetId>,
    /// Counts refused handshakes.
    pub refusals: Arc<Refusals>,
}

impl Listener {
    /// Accepts until told to stop; what passes its handshake comes out of the stream.
    pub fn start(
        self,
        settings: &Settings,
        stop: CancellationToken,
    ) -> ReceiverStream<std::io::Result<PeerStream>> {
        let (ready, stream) = mpsc::channel(READY);
        let handshakes = Arc::new(Semaphore::new(settings.handshakes_at_once));
        let connections = Arc::new(Semaphore::new(settings.connections));
        let listener = Arc::new(self);
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = admit(&listener.socket, &handshakes, &connections) => accepted,
                };
                let Some((socket, address, handshake, place)) = accepted else {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = pause() => continue,
                    }
                };
                let (listener, ready) = (Arc::clone(&listener), ready.clone());
                tokio::spawn(async move {
                    if let Some(peer) = listener.shake_hands(socket, address).await {
                        let (tls, peer) = peer;
                        drop(handshake);
                        // The server has stopped when nobody takes it; then the connection is closed.
                        let _ = ready.send(Ok(PeerStream::new(tls, peer, place))).await;
                    }
                });
            }
        });
        ReceiverStream::new(stream)
    }

    async fn shake_hands(
        &self,
        socket: TcpStream,
        address: SocketAddr,
    ) -> Option<(tokio_rustls::server::TlsStream<TcpStream>, Peer)> {
        let _ = socket.set_nodelay(true);
        let tls = match accept::handshake(&self.tls, socket).await {
            Ok(tls) => tls,
            Err(error) => {
                self.refused(address, &error);
                return None;
            }
        };
        let identity = match self.fleet.map(|fleet| accept::peer(&tls, fleet)).transpose() {
            Ok(identity) => identity.map(Arc::new),
            Err(fault) => {
                tracing::warn!(%address, "certificate refused: {fault}");
                self.refusals.count("handshake", &address.ip().to_string(), &fault.to_string());
                return None;
            }
        };
        Some((tls, Peer { identity, address }))
    }

    fn refused(&self, address: SocketAddr, error: &AcceptError) {
        match error {
            AcceptError::Certificate { fault, .. } => {
                tracing::warn!(%address, "client certificate refused: {fault}");
                self.refusals.count("handshake", &address.ip().to_string(), &fault.to_string());
            }
            // Port scanners and broken clients: not worth a leaf.
            other => tracing::debug!(%address, "{other}"),
        }
    }
}

async fn pause() {
    tokio::time::timeout(ACCEPT_PAUSE, std::future::pending::<()>()).await.ok();
}

type Admitted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit, tokio::sync::OwnedSemaphorePermit);

/// Takes a connection when there is a place for it and its handshake; until then the kernel holds it.
async fn admit(
    socket: &TcpListener,
    handshakes: &Arc<Semaphore>,
    connections: &Arc<Semaphore>,
) -> Option<Admitted> {
    // Neither semaphore is ever closed.
    let place = Arc::clone(connections).acquire_owned().await.ok()?;
    let handshake = Arc::clone(handshakes).acquire_owned().await.ok()?;
    match socket.accept().await {
        Ok((stream, address)) => Some((stream, address, handshake, place)),
        Err(error) => {
            tracing::warn!("accept failed: {error}");
            None
        }
    }
}
