//! The client's connector: TCP, socket options, TLS, and errors that say what to do.
//!
//! A `tower` service over [`http::Uri`], for tonic's `Endpoint::connect_with_connector`. The URI says
//! which address to dial; the certificate is checked against the configured server name, which may be
//! another (security-and-delivery §1.4). It never retries and never waits without a limit: pauses and
//! retries belong to the caller's link.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fault::{CertFault, OwnFault};
use crate::tls::ClientTls;

/// Longest wait for name resolution and TCP together, over all addresses of the name.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for one address: a host name with a dead IPv6 address must still reach its IPv4 one
/// within [`CONNECT_LIMIT`]. Covers two lost SYNs (resent after 1 s and 3 s).
const ADDRESS_LIMIT: Duration = Duration::from_secs(4);
/// Longest TLS handshake, as on the server (§1.22).
pub const HANDSHAKE_LIMIT: Duration = crate::accept::HANDSHAKE_LIMIT;
/// Unacknowledged data older than this ends the connection (§2.13).
const TCP_USER_TIMEOUT_MS: u32 = 60_000;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The URI names no host and port.
    #[error("\"{0}\" names no controller address: write host:port")]
    Address(String),
    /// The host name does not resolve.
    #[error("host name in \"{address}\" does not resolve: check it and the name servers")]
    Resolve {
        /// As configured.
        address: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nobody listens.
    #[error("{address} refused the connection: the controller is not running or listens elsewhere")]
    Refused {
        /// As configured.
        address: String,
    },
    /// No route, or another network error.
    #[error("{address} cannot be reached: check network and packet filters on the way")]
    Unreachable {
        /// As configured.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// No answer in time.
    #[error("{address} did not answer {stage} within {} s", limit.as_secs())]
    Timeout {
        /// As configured.
        address: String,
        /// "the connection" or "the tls handshake".
        stage: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The controller's certificate is not acceptable.
    #[error("{address} showed a certificate that is refused for {server_name}")]
    TheirCertificate {
        /// As configured.
        address: String,
        /// The configured server name.
        server_name: String,
        /// What is wrong with it.
        #[source]
        fault: CertFault,
    },
    /// The controller does not accept ours.
    #[error("{address} refused our certificate")]
    OurCertificate {
        /// As configured.
        address: String,
        /// What it said.
        #[source]
        fault: OwnFault,
    },
    /// Not TLS, another protocol, or the connection broke.
    #[error("tls with {address} failed: check that this is the controller's port")]
    Handshake {
        /// As configured.
        address: String,
        /// What happened.
        source: io::Error,
    },
    /// The server did not agree on HTTP/2.
    #[error("{address} does not speak http/2: check that this is the controller's port")]
    NotHttp2 {
        /// As configured.
        address: String,
    },
}

impl DialError {
    /// Finds this error in the chain of another, for example tonic's transport error.
    pub fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(error), |e| e.source()).find_map(|e| e.downcast_ref())
    }
}

/// Remembers what the controller said about our certificate.
///
/// In TLS 1.3 the client's handshake ends before the server has looked at the client's certificate, so
/// a refusal arrives as an alert on the first read, deep inside HTTP/2, where the reason gets lost.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Mutex<Option<OwnFault>>>);

impl Refusals {
    /// The last refusal of our certificate, and forgets it. Ask after a call has failed.
    pub fn take(&self) -> Option<OwnFault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, error: &io::Error) {
        if let Some(fault) = OwnFault::of_io(error) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        }
    }
}

/// Dials controllers. Cheap to clone; clones share their [`Refusals`].
#[derive(Debug, Clone)]
pub struct Connector {
    tls: ClientTls,
    server_name: ServerName<'static>,
    refusals: Refusals,
    connect_limit: Duration,
    handshake_limit: Duration,
}

impl Connector {
    /// Uses the configuration published on `tls` at the time of each dial. `server_name` is sent as
    /// SNI; the configuration checks the certificate against the name that it was built with.
    pub fn new(tls: ClientTls, server_name: ServerName<'static>) -> Self {
        Self {
            tls,
            server_name,
            refusals: Refusals::default(),
            connect_limit: CONNECT_LIMIT,
            handshake_limit: HANDSHAKE_LIMIT,
        }
    }

    /// Other limits, for settings that scale all timers.
    #[must_use]
    pub const fn with_limits(mut self, connect: Duration, handshake: Duration) -> Self {
        self.connect_limit = connect;
        self.handshake_limit = handshake;
        self
    }

    /// Where refusals of our certificate are kept.
    pub fn refusals(&self) -> Refusals {
        self.refusals.clone()
    }

    /// Connects to `host:port` of the URI.
    pub async fn dial(&self, uri: &Uri) -> Result<DialedStream, DialError> {
        let address = host_and_port(uri)?;
        let tcp = self.connect(&address).await?;
        let connector = TlsConnector::from(self.tls.borrow().clone());
        let stream = timeout(self.handshake_limit, connector.connect(self.server_name.clone(), tcp))
            .await
            .map_err(|_| DialError::Timeout {
                address: address.clone(),
                stage: "the tls handshake",
                limit: self.handshake_limit,
            })?
            .map_err(|error| self.handshake_error(&address, error))?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(DialError::NotHttp2 { address });
        }
        Ok(DialedStream { inner: stream, refusals: self.refusals() })
    }

    async fn connect(&self, address: &str) -> Result<TcpStream, DialError> {
        let late = |limit| DialError::Timeout { address: address.to_owned(), stage: "the connection", limit };
        let tcp = timeout(self.connect_limit, connect_any(address))
            .await
            .map_err(|_| late(self.connect_limit))??;
        let set = tcp
            .set_nodelay(true)
            .and_then(|()| Ok(rustix::net::sockopt::set_tcp_user_timeout(&tcp, TCP_USER_TIMEOUT_MS)?));
        set.map_err(|source| DialError::Unreachable { address: address.to_owned(), source })?;
        Ok(tcp)
    }

    fn handshake_error(&self, address: &str, error: io::Error) -> DialError {
        let address = address.to_owned();
        if let Some(fault) = CertFault::of_io(&error) {
            let server_name = self.server_name.to_str().into_owned();
            return DialError::TheirCertificate { address, server_name, fault };
        }
        match OwnFault::of_io(&error) {
            Some(fault) => DialError::OurCertificate { address, fault },
            None => DialError::Handshake { address, source: error },
        }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<DialedStream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.dial(&uri).await.map(TokioIo::new) })
    }
}

fn host_and_port(uri: &Uri) -> Result<String, DialError> {
    match (uri.host(), uri.port_u16()) {
        (Some(host), Some(port)) => Ok(format!("{host}:{port}")),
        _ => Err(DialError::Address(uri.to_string())),
    }
}

/// Tries the addresses of the name in the resolver's order; the last failure is told.
async fn connect_any(address: &str) -> Result<TcpStream, DialError> {
    let resolve = |source| DialError::Resolve { address: address.to_owned(), source };
    let addresses = tokio::net::lookup_host(address).await.map_err(resolve)?;
    let mut failure = resolve(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for candidate in addresses {
        match connect_one(address, candidate).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn connect_one(address: &str, candidate: SocketAddr) -> Result<TcpStream, DialError> {
    let address = address.to_owned();
    match timeout(ADDRESS_LIMIT, TcpStream::connect(candidate)).await {
        Ok(Ok(tcp)) => Ok(tcp),
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => Err(DialError::Refused { address }),
        Ok(Err(source)) => Err(DialError::Unreachable { address, source }),
        Err(_) => Err(DialError::Timeout { address, stage: "the connection", limit: ADDRESS_LIMIT }),
    }
}

/// A TLS connection to a controller whose certificate was accepted.
#[derive(Debug)]
pub struct DialedStream {
    inner: TlsStream<TcpStream>,
    refusals: Refusals,
}

impl DialedStream {
    /// The TLS connection, for its peer certificate and socket addresses.
    pub const fn tls(&self) -> &TlsStream<TcpStream> {
        &self.inner
    }

    /// Who the controller is; the handshake has checked it already.
    pub fn controller(&self) -> Result<crate::verify::PeerIdentity, CertFault> {
        let certificates = self.inner.get_ref().1.peer_certificates();
        let first = certificates.and_then(<[_]>::first).ok_or(CertFault::Missing)?;
        crate::verify::verify_peer_certificate(first, crate::name::Role::Controller, None)
            .map_err(CertFault::Name)
    }

    fn noted<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled {
            self.refusals.note(error);
        }
        polled
    }
}

impl AsyncRead for DialedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.noted(polled)
    }
}

impl AsyncWrite for DialedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.noted(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.noted(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.noted(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
