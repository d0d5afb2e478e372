//! Our own accept loop (security-and-delivery §1.22): a handshake limit, caps on handshakes and connections,
//! settings that are replaced while running. A failed handshake concerns one connection and never ends it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleet_certs::accept::{self, AcceptError};
use fleet_certs::tls::ServerTls;
use fleet_types::id::FleetId;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::peer::{Peer, PeerStream};
use super::refusals::Refusals;
use crate::settings::Port;

/// Connections that have their handshake behind them and wait for the server to take them: it takes them at
/// once, so a few are enough.
const READY: usize = 64;
/// Wait after the kernel refused to accept (no descriptors left): accepting again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that the kernel holds for us until they are accepted. After a restart a fleet comes all at once, and
/// one that finds no room is tried again by its kernel a second later, all of them in the same second. Linux
/// holds no more than this by default (`net.core.somaxconn`), and a few hundred bytes each.
const BACKLOG: u32 = 4096;

/// Opens a port.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait until the kernel has forgotten the connections of the process before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

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
    pub fn start(self, port: &Port, stop: CancellationToken) -> ReceiverStream<std::io::Result<PeerStream>> {
        let (ready, stream) = mpsc::channel(READY);
        let (places, limits) = (ConnectionPermits::new(port), port.limits);
        let listener = Arc::new(self);
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = places.admit(&listener.socket) => accepted,
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
                        let _ = ready.send(Ok(PeerStream::new(tls, peer, place, limits))).await;
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

/// The places of one listener.
struct ConnectionPermits {
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl ConnectionPermits {
    fn new(port: &Port) -> Self {
        Self {
            handshakes: Arc::new(Semaphore::new(port.handshakes_at_once)),
            connections: Arc::new(Semaphore::new(port.connections)),
        }
    }

    /// Takes a connection when there is a place for it and its handshake; until then the kernel holds it.
    async fn admit(&self, socket: &TcpListener) -> Option<Admitted> {
        // Neither semaphore is ever closed.
        let place = Arc::clone(&self.connections).acquire_owned().await.ok()?;
        let handshake = Arc::clone(&self.handshakes).acquire_owned().await.ok()?;
        match socket.accept().await {
            Ok((stream, address)) => Some((stream, address, handshake, place)),
            Err(error) => {
                tracing::warn!("accept failed: {error}");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limit of a test for one thing to happen.
    const SOON: Duration = Duration::from_secs(5);
    /// In which something that must not happen would have happened.
    const AT_ONCE: Duration = Duration::from_millis(50);

    async fn port(connections: usize) -> (TcpListener, ConnectionPermits) {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (socket, ConnectionPermits::new(&Port { handshakes_at_once: 8, connections, limits: None }))
    }

    #[tokio::test]
    async fn a_full_port_takes_no_place_of_the_other_and_goes_on_when_one_is_given_back() {
        let ((strangers, few), (agents, own)) = (port(2).await, port(1).await);
        let dial =
            async |socket: &TcpListener| TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
        let (mut held, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            clients.push(dial(&strangers).await);
        }
        for _ in 0..2 {
            held.push(tokio::time::timeout(SOON, few.admit(&strangers)).await.unwrap());
        }
        assert!(tokio::time::timeout(AT_ONCE, few.admit(&strangers)).await.is_err(), "a third place");
        clients.push(dial(&agents).await);
        let agent = tokio::time::timeout(SOON, own.admit(&agents)).await;
        assert!(agent.unwrap().is_some(), "the other port has its own places");
        held.pop();
        assert!(tokio::time::timeout(SOON, few.admit(&strangers)).await.unwrap().is_some(), "given back");
    }

    #[tokio::test]
    async fn a_fleet_that_comes_all_at_once_finds_room_before_anybody_accepts() {
        let socket = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        // Where a machine is set to hold fewer, that is its owner's wish.
        let kernel = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let count = kernel.trim().parse::<usize>().unwrap().min(600);
        let mut held = Vec::new();
        for _ in 0..count {
            let dialled = tokio::time::timeout(SOON, TcpStream::connect(address)).await;
            held.push(dialled.expect("room in the kernel's queue").unwrap());
        }
        assert_eq!(held.len(), count);
    }

    #[test]
    fn both_ports_fit_into_the_files_of_a_process_and_strangers_have_the_smaller_part() {
        let settings = crate::settings::Settings::default();
        let (agents, strangers) = (&settings.agent_port, &settings.enrol_port);
        // 20,000 files, less what store, output and listeners have open.
        assert!(agents.connections + strangers.connections <= 20_000 - 2_000);
        assert!(strangers.connections * 10 <= agents.connections);
        for by in [1, 50, 1000] {
            let limits = crate::settings::Settings::default().scaled(by).enrol_port.limits.unwrap();
            assert!(limits.idle >= Duration::from_secs(2) && limits.idle <= Duration::from_secs(10));
            assert!(limits.life > limits.idle);
        }
    }
}
