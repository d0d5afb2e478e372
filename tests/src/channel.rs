//! Connections of fakes: enrolment with a token's pins, and mutual TLS with a certificate of the story's choice.
//!
//! Stories dial with the same connector as agents and operators do. The simulator needs several source addresses
//! of the loopback network, which no product client does; [`SourceConnector`] is for it alone.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet_certs::dial::Connector;
use fleet_certs::tls::{EnrolmentClient, MutualClient, TlsClock, TlsIdentity, publish};
use fleet_certs::token::Token;
use fleet_certs::{CertificateDer, ClientConfig, ServerName};
use fleet_types::id::FleetId;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::clock;

/// The name that every controller of this crate has in its certificate.
pub const SERVER_NAME: &str = "localhost";
/// As agents and fleetctl have it (security-and-delivery §2.13).
const PING: Duration = Duration::from_secs(20);
/// Longest wait for a connection, so that a story on a dead port goes on.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The server name for TLS.
pub fn server_name() -> ServerName<'static> {
    // A fixed host name always parses.
    ServerName::try_from(SERVER_NAME).unwrap_or(ServerName::IpAddress(IpAddr::from([127, 0, 0, 1]).into()))
}

/// TLS of somebody who joins.
pub fn enrolment_tls(token: &Token) -> Result<Arc<ClientConfig>> {
    let client = EnrolmentClient {
        pins: token.controller_pins.clone(),
        fleet: None,
        server_name: server_name(),
        clock: TlsClock::reading(clock::now),
    };
    Ok(client.build()?)
}

/// TLS of somebody with a certificate, good or bad: nothing is checked on this side.
pub fn mutual_tls(
    fleet: FleetId,
    identity: TlsIdentity,
    controllers: Vec<CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>> {
    let client = MutualClient {
        fleet,
        identity,
        own_authorities: vec![],
        controller_authorities: controllers,
        server_name: server_name(),
        clock: TlsClock::reading(clock::now),
    };
    Ok(client.build_unchecked()?)
}

/// The connector that agents and operators use.
pub fn connector(tls: &Arc<ClientConfig>) -> Connector {
    Connector::new(publish(Arc::clone(tls)).1, server_name())
}

fn endpoint(address: SocketAddr) -> Result<Endpoint> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_LIMIT)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(true))
}

/// Connects now.
pub async fn connect(address: SocketAddr, tls: &Arc<ClientConfig>) -> Result<Channel> {
    endpoint(address)?
        .connect_with_connector(connector(tls))
        .await
        .with_context(|| format!("{address} was not reached"))
}

/// Connects when it is used, and again after a loss.
pub fn connect_lazily(address: SocketAddr, tls: &Arc<ClientConfig>) -> Result<Channel> {
    Ok(endpoint(address)?.connect_with_connector_lazy(connector(tls)))
}

/// Connects now, from one of the machine's own addresses.
pub async fn connect_from(source: IpAddr, address: SocketAddr, tls: &Arc<ClientConfig>) -> Result<Channel> {
    let connector = SourceConnector { source, address, tls: Arc::clone(tls) };
    endpoint(address)?
        .connect_with_connector(connector)
        .await
        .with_context(|| format!("{address} was not reached from {source}"))
}

/// Dials from a chosen source address.
#[derive(Debug, Clone)]
pub struct SourceConnector {
    source: IpAddr,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl SourceConnector {
    async fn dial(self) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.source, 0))?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(self.tls).connect(server_name(), stream).await
    }
}

impl tower::Service<http::Uri> for SourceConnector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let dial = self.clone().dial();
        Box::pin(async move { dial.await.map(TokioIo::new) })
    }
}
