//! Why a certificate was refused, so that people are told what to do.
//!
//! [`CertFault`] is what we found wrong with a certificate (the peer's, or our own before it is
//! used); [`OwnFault`] is what the other side said about ours. Both are read out of rustls' errors
//! here and nowhere else.

use std::error::Error;

use fleet_types::digest::Digest;
use fleet_types::time::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, OtherError};

use crate::verify::NameError;

/// What is wrong with a certificate that we checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertFault {
    /// Its time is over, by this machine's clock.
    #[error(
        "the certificate ended {not_after} and this machine's clock says {now}: renew it, or set the clock if it is wrong"
    )]
    Expired {
        /// End of validity.
        not_after: Timestamp,
        /// The time that it was compared with.
        now: Timestamp,
    },
    /// Its time has not come, by this machine's clock.
    #[error("the certificate starts {not_before} and this machine's clock says {now}: set the clock")]
    NotYetValid {
        /// Start of validity.
        not_before: Timestamp,
        /// The time that it was compared with.
        now: Timestamp,
    },
    /// No authority that we trust issued it, or its signature is wrong.
    #[error("no authority of this fleet issued the certificate")]
    UnknownIssuer,
    /// It is not for the configured server name.
    #[error("the certificate is not for \"{expected}\" but for {}: check server_name", presented.join(", "))]
    WrongServerName {
        /// The configured name.
        expected: String,
        /// The names in the certificate.
        presented: Vec<String>,
    },
    /// A client's certificate where a server's was needed, or the reverse.
    #[error("the certificate is for another purpose (client and server certificates were mixed up)")]
    WrongPurpose,
    /// Name, usages or key are not as they must be.
    #[error("the certificate is not of the form that this fleet issues")]
    Name(#[source] NameError),
    /// None of the presented authorities is pinned by the token.
    #[error(
        "the controller's authority is not the one in the token: another controller answered, or the token is of another fleet"
    )]
    NotPinned {
        /// Pins of the authorities that were presented.
        presented: Vec<Digest>,
    },
    /// On the deny list.
    #[error("the certificate was revoked")]
    Revoked,
    /// The peer sent none.
    #[error("no certificate was presented")]
    Missing,
    /// Anything else that rustls refuses.
    #[error("the certificate is refused: {0}")]
    Other(String),
}

impl CertFault {
    /// The fault in an error of rustls; `None` when the error is not about a certificate.
    pub fn of(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::NoCertificatesPresented => Some(Self::Missing),
            rustls::Error::InvalidCertificate(fault) => Some(Self::of_certificate(fault)),
            _ => None,
        }
    }

    /// The same, looking through an I/O error as tokio-rustls returns it.
    pub fn of_io(error: &std::io::Error) -> Option<Self> {
        rustls_error(error).and_then(Self::of)
    }

    fn of_certificate(fault: &CertificateError) -> Self {
        use CertificateError as E;
        match fault {
            E::ExpiredContext { time, not_after } => {
                Self::Expired { not_after: stamp(*not_after), now: stamp(*time) }
            }
            E::NotValidYetContext { time, not_before } => {
                Self::NotYetValid { not_before: stamp(*not_before), now: stamp(*time) }
            }
            E::UnknownIssuer | E::BadSignature => Self::UnknownIssuer,
            E::NotValidForNameContext { expected, presented } => Self::WrongServerName {
                expected: expected.to_str().into_owned(),
                presented: presented.iter().filter_map(|name| host_name(name)).collect(),
            },
            E::InvalidPurpose | E::InvalidPurposeContext { .. } => Self::WrongPurpose,
            E::Revoked => Self::Revoked,
            E::Other(OtherError(inner)) => {
                let inner: &(dyn Error + 'static) = inner.as_ref();
                inner
                    .downcast_ref::<Self>()
                    .cloned()
                    .or_else(|| inner.downcast_ref::<NameError>().cloned().map(Self::Name))
                    .unwrap_or_else(|| Self::Other(inner.to_string()))
            }
            other => Self::Other(other.to_string()),
        }
    }
}

/// What the other side said about our certificate, in the words of a TLS alert (RFC 8446 §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OwnFault {
    /// `certificate_expired`, which also stands for "not yet valid".
    #[error(
        "the controller says that our certificate is not valid at its time: renew it (log in or rejoin), or set the clock that is wrong"
    )]
    NotValidNow,
    /// `certificate_revoked`.
    #[error("the controller says that our certificate was revoked: ask a security-admin")]
    Revoked,
    /// `unknown_ca`.
    #[error(
        "the controller does not know the authority of our certificate: it belongs to another fleet, or the authority was replaced; enrol again"
    )]
    UnknownAuthority,
    /// `unsupported_certificate`.
    #[error("our certificate is not for this purpose: it is a server's or of another role")]
    WrongPurpose,
    /// `certificate_required`.
    #[error("the controller requires a client certificate and we have none: log in or enrol first")]
    Missing,
    /// `bad_certificate`, `certificate_unknown`, `access_denied`: its name or form is not accepted.
    #[error(
        "the controller does not accept the name or form of our certificate: enrol again; the controller's log says what is wrong"
    )]
    NotAccepted,
}

impl OwnFault {
    /// Reads an alert; `None` for alerts that say nothing about a certificate.
    pub fn of(error: &rustls::Error) -> Option<Self> {
        let rustls::Error::AlertReceived(alert) = error else { return None };
        match alert {
            AlertDescription::CertificateExpired => Some(Self::NotValidNow),
            AlertDescription::CertificateRevoked => Some(Self::Revoked),
            AlertDescription::UnknownCA => Some(Self::UnknownAuthority),
            AlertDescription::UnsupportedCertificate => Some(Self::WrongPurpose),
            AlertDescription::CertificateRequired => Some(Self::Missing),
            AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError => Some(Self::NotAccepted),
            _ => None,
        }
    }

    /// The same, looking through an I/O error as tokio-rustls returns it.
    pub fn of_io(error: &std::io::Error) -> Option<Self> {
        rustls_error(error).and_then(Self::of)
    }
}

fn rustls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

/// rustls gives names as `DnsName("fleet.example")` and `IpAddress(192.0.2.7)`; people need what is in
/// the brackets, and the URI name does not help them here.
fn host_name(described: &str) -> Option<String> {
    let bare = |prefix| described.strip_prefix(prefix)?.strip_suffix(')');
    match bare("DnsName(").or_else(|| bare("IpAddress(")) {
        Some(name) => Some(name.trim_matches('"').replace(|c: char| !c.is_ascii_graphic(), "?")),
        None if described.starts_with("UniformResourceIdentifier") => None,
        None => Some("a name of another kind".to_owned()),
    }
}

fn stamp(time: UnixTime) -> Timestamp {
    Timestamp::clamped(i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000))
}
