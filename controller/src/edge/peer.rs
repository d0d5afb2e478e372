//! The identity of a connection: from its verified certificate, once, at the handshake.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context as TaskContext, Poll};

use fleet_certs::PeerIdentity;
use fleet_certs::name::Identity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tonic::{Request, Status};

use crate::context::{Identities, Memory, Storage};
use crate::error::{ControllerError, Kind};
use crate::service::caller::{Agent, Operator};
use crate::settings::Settings;

use super::entrance::Place;
use super::identity_places::IdentityPlace;
use super::status::to_status;
use super::stream_permit::StreamPermit;
use super::timed::Timed;

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// From the certificate; none on the enrolment port.
    pub identity: Option<Arc<PeerIdentity>>,
    /// Where it comes from.
    pub address: SocketAddr,
    /// Places for the connection's calls under way.
    pub calls: Arc<Semaphore>,
    /// Has a call of an operator been let in over it? Such a connection may go on with a certificate that is replaced.
    pub is_known: Arc<AtomicBool>,
}

/// A connection after its handshake. Holds its places until it is dropped.
pub struct PeerStream {
    /// Under its limits.
    pub stream: Timed<TlsStream<TcpStream>>,
    /// Who is at the other end.
    pub peer: Peer,
    /// Among the port's connections.
    pub place: Place,
    /// Among those of its identity, where it has one.
    pub identity_place: Option<IdentityPlace>,
}

impl Connected for PeerStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The peer of a request; the accept loop put it there.
pub fn of<T>(request: &Request<T>) -> Result<Peer, Status> {
    request.extensions().get::<Peer>().cloned().ok_or_else(|| Status::unauthenticated("no identity"))
}

/// How long the caller of a request may hold its stream.
pub fn permit<T>(
    storage: &Storage,
    identities: &Identities,
    request: &Request<T>,
    stop: &CancellationToken,
) -> Result<StreamPermit, Status> {
    let identity = of(request)?.identity.ok_or_else(|| Status::unauthenticated("no identity"))?;
    Ok(StreamPermit::new(Arc::clone(&identities.denied), identity, storage.clock.now(), stop.clone()))
}

/// The operator behind a request.
pub fn operator<T>(identities: &Identities, request: &Request<T>) -> Result<Operator, Status> {
    let peer = of(request)?;
    let unknown = || {
        to_status(
            ControllerError::new(
                Kind::Unauthenticated,
                "operator-unknown",
                "this controller does not know you",
            )
            .fix("fleetctl login with a new invite"),
        )
    };
    let identity = peer.identity.ok_or_else(unknown)?;
    let Identity::Operator(_, id) = identity.identity else { return Err(unknown()) };
    Ok(Operator {
        record: identities.operators.get(id).ok_or_else(unknown)?,
        certificate: identity,
        address: peer.address.ip().to_string(),
    })
}

/// The agent behind a request. Its node must have a record and be active.
pub fn agent<T>(
    memory: &Memory,
    settings: &Settings,
    request: &Request<T>,
) -> Result<(Agent, Arc<PeerIdentity>), Status> {
    let peer = of(request)?;
    let identity = peer.identity.ok_or_else(|| Status::unauthenticated("no identity"))?;
    let Identity::Agent(_, node) = identity.identity else {
        return Err(Status::permission_denied("not an agent's certificate"));
    };
    let known = crate::service::inventory::check_active(memory, settings, node).map_err(to_status)?;
    let agent = Agent {
        node,
        name: known.record.name.clone(),
        certificate: Arc::clone(&identity),
        address: peer.address.ip().to_string(),
    };
    Ok((agent, identity))
}
