//! The server's half of one handshake, with a limit and a named reason when it fails.
//!
//! The accept loop itself, its caps and its admission belong to the controller's edge; a failure here
//! concerns one connection and must never end that loop (security-and-delivery §1.22). Before a failed
//! connection is dropped, what the client still sends is drained for a moment: a socket closed with
//! unread bytes is reset, and the reset would destroy the alert that tells the client what is wrong.

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use fleet_types::id::FleetId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

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

/// Runs one handshake with the configuration that is published now.
pub async fn handshake(tls: &ServerTls, stream: TcpStream) -> Result<TlsStream<TcpStream>, AcceptError> {
    handshake_within(tls, stream, HANDSHAKE_LIMIT).await
}

/// The same with another limit, for settings that scale all timers.
pub async fn handshake_within(
    tls: &ServerTls,
    stream: TcpStream,
    limit: Duration,
) -> Result<TlsStream<TcpStream>, AcceptError> {
    let config = tls.borrow().clone();
    let accepting = async {
        let outcome = TlsAcceptor::from(config).accept(stream).into_fallible().await;
        outcome.map_err(|(error, stream)| (error, stream, REFUSED.with(RefCell::take)))
    };
    match timeout(limit, REFUSED.scope(RefCell::default(), accepting)).await {
        Err(_) => Err(AcceptError::Timeout),
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err((error, stream, presented))) => {
            linger(stream).await;
            Err(match CertFault::of_io(&error) {
                Some(fault) => AcceptError::Certificate { fault, presented },
                None => AcceptError::Handshake(error),
            })
        }
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

/// Closes our side and reads the rest, within limits; errors do not matter any more.
async fn linger(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let mut rest = stream.take(LINGER_BYTES);
    let _ = timeout(LINGER_LIMIT, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}
