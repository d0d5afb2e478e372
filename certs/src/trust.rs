//! The verifiers that rustls calls during a handshake.
//!
//! Each lets webpki validate chain, time and purpose first, and then applies [`crate::verify`]: so a
//! certificate is looked at in detail only when an authority of ours vouches for it. Time is the one
//! that rustls hands in (see [`crate::tls::TlsClock`]). Used by [`crate::tls`] only.

use std::cell::RefCell;
use std::sync::Arc;

use fleet_types::digest::Digest;
use fleet_types::id::FleetId;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::fault::CertFault;
use crate::name::Role;
use crate::revoke::DenyList;
use crate::tls::TlsError;
use crate::verify::{PeerIdentity, Presented, verify_peer_certificate};

/// An authority of ours signs end entities itself, so whatever a peer sends besides its own certificate
/// is not offered for path building. webpki does not apply the path length of a trust anchor, so an
/// authority below ours would otherwise be believed.
const NO_INTERMEDIATES: &[CertificateDer<'static>] = &[];

tokio::task_local! {
    /// The certificate that was refused in the handshake of this task. An error of rustls has room for
    /// an alert or for our details, not for both, and the controller must audit whom it refused (T31)
    /// while the client is told why.
    pub(crate) static REFUSED: RefCell<Option<Presented>>;
}

/// Outside of [`crate::accept`] nobody asks, and nothing is kept.
fn note_refused(end_entity: &CertificateDer<'_>) {
    let _ = REFUSED.try_with(|cell| *cell.borrow_mut() = Some(Presented::of(end_entity)));
}

/// Checks clients on a listener that takes agents, operators or both: the role comes from the issuing
/// authority and must equal the role in the name (security-and-delivery §1.1).
#[derive(Debug)]
pub(crate) struct FleetClientVerifier {
    fleet: FleetId,
    issuers: Vec<(Role, Arc<dyn ClientCertVerifier>)>,
    hints: Vec<DistinguishedName>,
    denied: Arc<DenyList>,
    provider: Arc<CryptoProvider>,
}

impl FleetClientVerifier {
    /// One entry of `issuers` a role, with its authorities' certificates (several while one rotates).
    /// A role without authorities cannot connect.
    pub(crate) fn new(
        fleet: FleetId,
        issuers: &[(Role, &[CertificateDer<'static>])],
        denied: Arc<DenyList>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let mut verifiers: Vec<(Role, Arc<dyn ClientCertVerifier>)> = Vec::new();
        for (role, certificates) in issuers.iter().filter(|(_, certificates)| !certificates.is_empty()) {
            let roots = Arc::new(root_store(certificates)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
                .build()
                .map_err(|e| TlsError::Trust(e.to_string()))?;
            verifiers.push((*role, verifier));
        }
        if verifiers.is_empty() {
            return Err(TlsError::NoAuthorities);
        }
        let hints =
            verifiers.iter().flat_map(|(_, verifier)| verifier.root_hint_subjects().to_vec()).collect();
        Ok(Self { fleet, issuers: verifiers, hints, denied, provider: Arc::clone(provider) })
    }

    /// Which authority issued the certificate: the first whose chain holds. When none does, the most
    /// telling reason, which is any other than "unknown issuer".
    fn issuing_role(&self, end_entity: &CertificateDer<'_>, now: UnixTime) -> Result<Role, Error> {
        let mut reason = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        for (role, verifier) in &self.issuers {
            match verifier.verify_client_cert(end_entity, NO_INTERMEDIATES, now) {
                Ok(_) => return Ok(*role),
                Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {}
                Err(other) => reason = other,
            }
        }
        Err(reason)
    }
}

impl ClientCertVerifier for FleetClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _sent: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let role = self.issuing_role(end_entity, now)?;
        let checked = named(end_entity, role, Some(self.fleet)).and_then(|peer| {
            // The alert "revoked" tells an honest client what to do.
            self.denied.check(&peer).map_err(|_| Error::InvalidCertificate(CertificateError::Revoked))
        });
        if checked.is_err() {
            note_refused(end_entity);
        }
        checked.map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a client trusts to vouch for a controller.
#[derive(Debug)]
enum Anchor {
    /// The controller authorities from the identity's trust.
    Authorities(Arc<WebPkiServerVerifier>),
    /// Digests from a join token: exactly an authority with such a key, sent along by the controller.
    Pins(Vec<Digest>),
}

/// Checks a controller: chain, configured server name whatever address was dialled, and name.
#[derive(Debug)]
pub(crate) struct ControllerVerifier {
    fleet: Option<FleetId>,
    server_name: ServerName<'static>,
    anchor: Anchor,
    provider: Arc<CryptoProvider>,
}

impl ControllerVerifier {
    /// Trusts the given controller authorities.
    pub(crate) fn trusting(
        fleet: FleetId,
        server_name: ServerName<'static>,
        authorities: &[CertificateDer<'static>],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let anchor =
            Anchor::Authorities(webpki(root_store(authorities)?, provider).map_err(TlsError::Trust)?);
        Ok(Self { fleet: Some(fleet), server_name, anchor, provider: Arc::clone(provider) })
    }

    /// Trusts the authorities whose public key is pinned, for enrolment.
    pub(crate) fn pinned(
        fleet: Option<FleetId>,
        server_name: ServerName<'static>,
        pins: Vec<Digest>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        if pins.is_empty() {
            return Err(TlsError::NoAuthorities);
        }
        Ok(Self { fleet, server_name, anchor: Anchor::Pins(pins), provider: Arc::clone(provider) })
    }

    /// The pinned authorities among those that the server sent.
    fn pinned_anchor(
        &self,
        pins: &[Digest],
        sent: &[CertificateDer<'_>],
    ) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let mut presented = Vec::new();
        let mut roots = RootCertStore::empty();
        for certificate in sent {
            let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { continue };
            let pin = Digest::of(parsed.public_key().raw);
            presented.push(pin);
            // Only the key of an anchor counts in path building, and that is what is pinned.
            if pins.contains(&pin) && roots.add(certificate.clone().into_owned()).is_err() {
                return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
            }
        }
        if roots.is_empty() {
            return Err(other(CertFault::NotPinned { presented }));
        }
        webpki(roots, &self.provider).map_err(Error::General)
    }
}

impl ServerCertVerifier for ControllerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = match &self.anchor {
            Anchor::Authorities(verifier) => Arc::clone(verifier),
            Anchor::Pins(pins) => self.pinned_anchor(pins, sent)?,
        };
        chain.verify_server_cert(end_entity, NO_INTERMEDIATES, &self.server_name, ocsp, now)?;
        named(end_entity, Role::Controller, self.fleet)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn root_store(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        // Refuses a certificate that is not an authority's before it becomes an anchor.
        crate::ca::pin_of(certificate)?;
        roots.add(certificate.clone()).map_err(|e| TlsError::Trust(e.to_string()))?;
    }
    if roots.is_empty() { Err(TlsError::NoAuthorities) } else { Ok(roots) }
}

fn webpki(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|e| e.to_string())
}

fn named(
    certificate: &CertificateDer<'_>,
    role: Role,
    fleet: Option<FleetId>,
) -> Result<PeerIdentity, Error> {
    verify_peer_certificate(certificate, role, fleet).map_err(|e| other(CertFault::Name(e)))
}

fn other(fault: CertFault) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault))))
}

/// Cannot be reached, since only TLS 1.3 is offered.
fn only_tls13() -> Error {
    Error::General("only TLS 1.3 is spoken".to_owned())
}
