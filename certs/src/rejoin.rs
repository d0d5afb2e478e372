//! Coming back with a certificate that has ended (security-and-delivery §1.9): the proof, by the key of that certificate, that
//! a request for a new one is its holder's.
//!
//! What is signed names the fleet, the certificate and the request, so that a signature serves for no other. It says
//! nothing about time: the same request brings the same certificate, which is of use to the holder of the new key alone. Made
//! by agents and `fleetctl`, checked by the controller; whether the holder may come back is not decided here.

use fleet_types::digest::Digest;
use fleet_types::id::FleetId;
use rcgen::SigningKey as _;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::csr::{PrivateKey, RequestError, p256_point};
use crate::name::Role;
use crate::revoke::{Denied, DenyList};
use crate::tls::{TlsError, provider};
use crate::trust::FleetClientVerifier;
use crate::verify::{NameError, PeerIdentity, describe};

/// Begins what is signed, so that the signature passes for nothing else.
const PURPOSE: &[u8] = b"fleet/v1/rejoin\n";

/// Why a certificate and its signature prove nothing.
#[derive(Debug, thiserror::Error)]
pub enum RejoinError {
    /// It is not of a client's form.
    #[error("the certificate is not one of this fleet")]
    Name(#[from] NameError),
    /// No authority of the fleet issued it to this role.
    #[error("no authority of this fleet issued the certificate")]
    NotIssued(#[source] rustls::Error),
    /// The authorities cannot be used.
    #[error("the authorities cannot be used")]
    Authorities(#[from] TlsError),
    /// The key of the certificate did not sign this request.
    #[error("the request is not signed with the key of the certificate")]
    Signature,
}

/// Digest of what is signed: by the certificate's key, and for an operator by the content key as well.
pub fn subject(fleet: FleetId, certificate: &[u8], request: &[u8]) -> Digest {
    let (certificate, request) = (Digest::of(certificate), Digest::of(request));
    Digest::of_parts(&[PURPOSE, fleet.to_string().as_bytes(), certificate.as_bytes(), request.as_bytes()])
}

/// Signs a request with the key of the certificate that has ended.
pub fn sign(key: &PrivateKey, subject: Digest) -> Result<Vec<u8>, RequestError> {
    key.pair().sign(subject.as_bytes()).map_err(|error| RequestError::Make(error.to_string()))
}

/// Checks everything about a certificate but its end and the deny list, and that its key signed `subject`.
pub fn verify(
    fleet: FleetId,
    issuers: &[(Role, &[CertificateDer<'static>])],
    certificate: &CertificateDer<'_>,
    (subject, signature): (Digest, &[u8]),
) -> Result<PeerIdentity, RejoinError> {
    let peer = describe(certificate)?;
    let nobody = DenyList::new(Denied::default());
    let verifier = FleetClientVerifier::new(fleet, issuers, nobody, &provider())?;
    // As it was judged on its first day.
    let seconds = u64::try_from(peer.not_before.as_millis() / 1000).unwrap_or(0);
    let first_day = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    verifier.verify_client_cert(certificate, &[], first_day).map_err(RejoinError::NotIssued)?;
    let parsed = X509Certificate::from_der(certificate).map_err(|_| RejoinError::Signature)?.1;
    let point = p256_point(parsed.public_key()).ok_or(RejoinError::Signature)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(subject.as_bytes(), signature)
        .map_err(|_| RejoinError::Signature)?;
    Ok(peer)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleet_types::time::Timestamp;

    use super::*;
    use crate::ca::Authority;
    use crate::csr::RequestedKey;
    use crate::issue;

    #[test]
    fn only_the_key_of_a_certificate_of_the_fleet_proves_anything() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let fleet: FleetId = "0192f0c1-0000-7000-8000-000000000001".parse().unwrap();
        let node = "0192f0c1-0000-7000-8000-000000000002".parse().unwrap();
        let make = |role| Authority::create(role, fleet, now, Duration::from_hours(9000)).unwrap();
        let (agents, operators, others) = (make(Role::Agent), make(Role::Operator), make(Role::Agent));
        let key = PrivateKey::generate().unwrap();
        let requested = RequestedKey::of(&key).unwrap();
        let of = |authority: &Authority| {
            issue::agent(authority, fleet, node, &requested, now, Duration::from_hours(72))
                .unwrap()
                .chain
                .remove(0)
        };
        let (own, foreign) = (of(&agents), of(&others));
        let request = PrivateKey::generate().unwrap().request().unwrap();
        let (agents, operators) = ([agents.certificate().clone()], [operators.certificate().clone()]);
        let issuers = [(Role::Agent, &agents[..]), (Role::Operator, &operators[..])];
        let subject = subject(fleet, &own, &request);
        let signature = sign(&key, subject).unwrap();
        let check = |certificate: &CertificateDer<'_>, digest, signature: &[u8]| {
            verify(fleet, &issuers, certificate, (digest, signature))
        };
        assert_eq!(check(&own, subject, &signature).unwrap().identity.node(), Some(node));
        let other_request = super::subject(fleet, &own, b"another request");
        assert!(matches!(check(&own, other_request, &signature), Err(RejoinError::Signature)));
        let stranger = sign(&PrivateKey::generate().unwrap(), subject).unwrap();
        assert!(matches!(check(&own, subject, &stranger), Err(RejoinError::Signature)));
        assert!(matches!(check(&foreign, subject, &signature), Err(RejoinError::NotIssued(_))));
        let garbage = CertificateDer::from(b"no certificate".to_vec());
        assert!(matches!(check(&garbage, subject, &signature), Err(RejoinError::Name(_))));
    }
}
