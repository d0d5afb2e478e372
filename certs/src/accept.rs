//! The server's half of one handshake, in its two steps, with a named reason when it fails.
//!
//! The accept loop itself, its caps and its admission belong to the controller's edge; a failure here
//! concerns one connection and must never end that loop (security-and-delivery §1.22). Before a failed
//! connection is dropped, what the client still sends is drained for a moment: a socket closed with
//! unread bytes is reset, and the reset would destroy the alert that tells the client what is wrong.

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use fleet_types::id::FleetId;
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::fault::CertFault;
use crate::name::Role;
use crate::tls::ServerTls;
use crate::trust::REFUSED;
use crate::verify::{PeerIdentity, Presented, describe, verify_peer_certificate};

/// Longest handshake (§1.22). An honest one takes two round trips; ten seconds bear a bad line.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for the client to close after it was refused.
const LINGER_LIMIT: Duration = Duration::from_secs(1);
/// Most bytes drained after a refusal: a client's last flight with a certificate is a few KiB.
const LINGER_BYTES: u64 = 64 * 1024;

/// Why a connection did not get past its handshake.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Too slow.
    #[error("no complete tls handshake within {} s", HANDSHAKE_LIMIT.as_secs())]
    Timeout,
    /// The client's certificate was refused.
    #[error("client certificate refused")]
    Certificate {
        /// What is wrong with it.
        #[source]
        fault: CertFault,
        /// What the certificate says, when an authority of ours issued it: to be audited.
        presented: Option<Presented>,
    },
    /// The client refused us, spoke no TLS, or went away.
    #[error("tls handshake failed")]
    Handshake(#[source] io::Error),
}

/// A client that has sent its whole `ClientHello`: until then it costs next to nothing, from now on a handshake.
pub struct Hello(Box<StartHandshake<TcpStream>>);

/// Waits for the whole `ClientHello`; the caller sets the limit.
pub async fn client_hello(stream: TcpStream) -> Result<Hello, AcceptError> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await;
    start.map(|start| Hello(Box::new(start))).map_err(AcceptError::Handshake)
}

impl Hello {
    /// The rest of the handshake, with the configuration that is published now; the caller sets the limit.
    pub async fn answer(self, tls: &ServerTls) -> Result<TlsStream<TcpStream>, Refused> {
        let config = tls.borrow().clone();
        let accepting = async {
            let outcome = self.0.into_stream(config).into_fallible().await;
            outcome.map_err(|(error, stream)| {
                let error = match CertFault::of_io(&error) {
                    Some(fault) => AcceptError::Certificate { fault, presented: REFUSED.with(RefCell::take) },
                    None => AcceptError::Handshake(error),
                };
                Refused { error, stream }
            })
        };
        REFUSED.scope(RefCell::default(), accepting).await
    }
}

/// A failed handshake whose connection is still open, so that the client can read why.
pub struct Refused {
    /// Why.
    pub error: AcceptError,
    stream: TcpStream,
}

impl Refused {
    /// Closes our side and reads the rest, within limits; what fails now does not matter any more.
    pub async fn close(self) -> AcceptError {
        let Self { error, mut stream } = self;
        let _ = stream.shutdown().await;
        let mut rest = stream.take(LINGER_BYTES);
        let _ = timeout(LINGER_LIMIT, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
        error
    }
}

/// Runs one handshake with the configuration that is published now.
pub async fn handshake(tls: &ServerTls, stream: TcpStream) -> Result<TlsStream<TcpStream>, AcceptError> {
    handshake_within(tls, stream, HANDSHAKE_LIMIT).await
}

/// The same with another limit.
pub async fn handshake_within(
    tls: &ServerTls,
    stream: TcpStream,
    limit: Duration,
) -> Result<TlsStream<TcpStream>, AcceptError> {
    let whole = Box::pin(async { Ok(client_hello(stream).await?.answer(tls).await) });
    match timeout(limit, whole).await {
        Err(_) => Err(AcceptError::Timeout),
        Ok(Err(error)) => Err(error),
        Ok(Ok(Ok(stream))) => Ok(stream),
        Ok(Ok(Err(refused))) => Err(refused.close().await),
    }
}

/// Who the client of a mutual handshake is. The handshake has checked the certificate already; this
/// reads it again, by the same rules, and fails only where no certificate was asked for.
pub fn peer(stream: &TlsStream<TcpStream>, fleet: FleetId) -> Result<PeerIdentity, CertFault> {
    let certificate =
        stream.get_ref().1.peer_certificates().and_then(<[_]>::first).ok_or(CertFault::Missing)?;
    let role = describe(certificate).map_err(CertFault::Name)?.identity.role();
    if role == Role::Controller {
        return Err(CertFault::WrongPurpose);
    }
    verify_peer_certificate(certificate, role, Some(fleet)).map_err(CertFault::Name)
}
