//! Our own accept loop (security-and-delivery §1.22): handshakes with limits, caps that keep nobody out,
//! settings that are replaced while running. A failed handshake concerns one connection and never ends it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleet_certs::PeerIdentity;
use fleet_certs::accept::{self, AcceptError};
use fleet_certs::fault::CertFault;
use fleet_certs::tls::ServerTls;
use fleet_types::audit::Actor;
use fleet_types::id::FleetId;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::entrance::{Entrance, Lost, Place};
use super::identity_places::IdentityPlaces;
use super::peer::{Peer, PeerStream};
use super::refusals::Refusals;
use super::server::STREAMS;
use super::timed::Timed;
use crate::settings::{Limits, Port};

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
    /// Its name in the audit log.
    pub name: &'static str,
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
        let entrance = Arc::new(Entrance::new(port));
        let Self { name, socket: listening, tls, fleet, refusals } = self;
        let (identities, preface, limits) = (Arc::default(), port.preface, port.limits);
        let welcome = Arc::new(Welcome { name, tls, fleet, refusals, identities, preface, limits });
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = async {
                        entrance.room().await;
                        listening.accept().await
                    } => accepted,
                };
                let (socket, address) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!("accept failed: {error}");
                        tokio::select! {
                            () = stop.cancelled() => return,
                            () = pause() => continue,
                        }
                    }
                };
                let Some(place) = entrance.enter(address.ip()) else {
                    welcome.refusals.count_lost(welcome.name, address.ip(), Lost::Evicted);
                    continue;
                };
                let (welcome, ready) = (Arc::clone(&welcome), ready.clone());
                tokio::spawn(async move {
                    if let Some(peer) = welcome.shake_hands(socket, address, place).await {
                        // The server has stopped when nobody takes it; then the connection is closed.
                        let _ = ready.send(Ok(peer)).await;
                    }
                });
            }
        });
        ReceiverStream::new(stream)
    }
}

/// What a port's handshakes share.
struct Welcome {
    name: &'static str,
    tls: ServerTls,
    fleet: Option<FleetId>,
    refusals: Arc<Refusals>,
    identities: Arc<IdentityPlaces>,
    preface: Duration,
    limits: Option<Limits>,
}

impl Welcome {
    async fn shake_hands(
        &self,
        socket: TcpStream,
        address: SocketAddr,
        mut place: Place,
    ) -> Option<PeerStream> {
        let _ = socket.set_nodelay(true);
        // In boxes, so that a connection that says nothing costs its socket and little more.
        let outcome = async {
            let hello = place.before_hello(Box::pin(accept::client_hello(socket))).await?;
            let hello = match hello {
                Ok(hello) => hello,
                // Port scanners and broken clients.
                Err(error) => {
                    tracing::debug!(%address, "{error}");
                    return Err(Lost::Silent);
                }
            };
            place.permit().await?;
            place.shake(Box::pin(hello.answer(&self.tls))).await
        };
        let answered = match outcome.await {
            Ok(answered) => answered,
            Err(lost) => {
                tracing::debug!(%address, "connection {lost}");
                self.refusals.count_lost(self.name, address.ip(), lost);
                return None;
            }
        };
        place.opened();
        let tls = match answered {
            Ok(tls) => tls,
            Err(refused) => {
                self.refused(address, &refused.close().await);
                return None;
            }
        };
        let identity = match self.fleet.map(|fleet| accept::peer(&tls, fleet)).transpose() {
            Ok(identity) => identity.map(Arc::new),
            Err(fault) => {
                self.certificate_refused(address, &fault);
                return None;
            }
        };
        Some(self.opened(
            tls,
            Peer {
                identity,
                address,
                calls: Arc::new(Semaphore::new(STREAMS.into())),
                is_known: Arc::default(),
            },
            place,
        ))
    }

    fn opened(&self, tls: TlsStream<TcpStream>, peer: Peer, place: Place) -> PeerStream {
        let entered = peer.identity.as_ref().map(|known| self.identities.enter(known.identity));
        if let Some(known) = peer.identity.as_ref().filter(|_| entered.as_ref().is_some_and(|e| e.is_over)) {
            let reason = "too many connections at once: the eldest was closed";
            self.refusals.count_actor("connection", known_actor(known, peer.address), reason);
        }
        let (identity_place, lost) = entered.map(|entered| (entered.place, entered.lost)).unzip();
        let stream = Timed::new(tls, self.preface, self.limits, lost);
        PeerStream { stream, peer, place, identity_place }
    }

    fn certificate_refused(&self, address: SocketAddr, fault: &CertFault) {
        tracing::warn!(%address, "client certificate refused: {fault}");
        self.refusals.count("handshake", address.ip(), &fault.to_string());
    }

    fn refused(&self, address: SocketAddr, error: &AcceptError) {
        match error {
            AcceptError::Certificate { fault, .. } => self.certificate_refused(address, fault),
            other => tracing::debug!(%address, "{other}"),
        }
    }
}

/// The owner of a certificate, for audit records.
pub fn known_actor(known: &PeerIdentity, address: SocketAddr) -> Actor {
    Actor {
        role: known.identity.role().to_string(),
        id: known.identity.uuid().to_string(),
        name: String::new(),
        certificate: Some(known.fingerprint),
        address: address.ip().to_string(),
    }
}

async fn pause() {
    tokio::time::timeout(ACCEPT_PAUSE, std::future::pending::<()>()).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limit of a test for one thing to happen.
    const SOON: Duration = Duration::from_secs(5);

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
