//! What a certificate must say, checked after its chain was validated (security-and-delivery §1.4).
//!
//! rustls alone accepts client certificates without a name, with two, or without key usages; this
//! module refuses everything but the one form that [`crate::issue`] makes. It must never be used
//! instead of chain validation: called by the verifiers in [`crate::trust`], by
//! [`crate::accept`] for a handshake that has passed them, and for the facts of one's own certificate.

use fleet_types::digest::Digest;
use fleet_types::id::FleetId;
use fleet_types::time::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::csr::p256_point;
use crate::name::{Identity, IdentityError, Role};
use crate::serial::Serial;

/// Who the other side is, from its verified certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The name.
    pub identity: Identity,
    /// The certificate's serial number.
    pub serial: Serial,
    /// Start of validity (back-dated by [`crate::ca::BACK_DATED`]).
    pub not_before: Timestamp,
    /// End of validity; the stream must end here too (§1.10).
    pub not_after: Timestamp,
    /// SHA-256 of the certificate, as audit records name it.
    pub fingerprint: Digest,
}

/// A certificate that an authority of ours issued and that was refused all the same, for the audit
/// record. What it says is not believed any further than that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// SHA-256 of the certificate.
    pub fingerprint: Digest,
    /// Its serial, where it can be read.
    pub serial: Option<Serial>,
    /// The name in it, where it has exactly one that is well formed.
    pub name: Option<Identity>,
}

impl Presented {
    /// Reads what can be read.
    pub fn of(end_entity: &[u8]) -> Self {
        let parsed = parse(end_entity).ok();
        let parsed = parsed.as_ref();
        Self {
            fingerprint: Digest::of(end_entity),
            serial: parsed.and_then(|certificate| Serial::from_bytes(certificate.raw_serial()).ok()),
            name: parsed.and_then(|certificate| one_name(certificate, true).ok()?.parse().ok()),
        }
    }
}

/// Why a certificate with a valid chain is refused all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a certificate, an extension twice, or one that cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(&'static str),
    /// No URI among the alternative names.
    #[error("the certificate has no fleet:// name")]
    NoName,
    /// More than one URI.
    #[error("the certificate has {0} URI names, exactly one is allowed")]
    ManyNames(usize),
    /// A client certificate with a name of another kind.
    #[error("the certificate has a {0} name beside its fleet:// name, which a client's must not have")]
    OtherName(&'static str),
    /// The URI is malformed.
    #[error("the certificate's name is malformed")]
    Malformed(#[from] IdentityError),
    /// The name's role is not that of the issuing authority.
    #[error("the certificate names a peer of role {named}, but was issued or presented as {expected}")]
    WrongRole {
        /// The role in the name.
        named: Role,
        /// The role of the issuing authority.
        expected: Role,
    },
    /// Another fleet's certificate.
    #[error("the certificate belongs to fleet {named}, not to {expected}")]
    OtherFleet {
        /// The fleet in the name.
        named: FleetId,
        /// Ours.
        expected: FleetId,
    },
    /// Extended key usage is missing.
    #[error("the certificate has no extended key usage")]
    NoExtendedKeyUsage,
    /// Extended key usage is not exactly what the role needs.
    #[error("the certificate's extended key usage is not exactly {0}")]
    WrongExtendedKeyUsage(&'static str),
    /// Key usage is missing or not "digital signature" alone.
    #[error("the certificate's key usage is not exactly digital signature")]
    WrongKeyUsage,
    /// The key is not P-256.
    #[error("the certificate's key is not ECDSA P-256")]
    KeyType,
}

/// Checks one end entity certificate against the form of `expected` and returns who it is.
///
/// `fleet` is ours; `None` only while enrolling, when the joining side learns the fleet from a
/// controller whose authority it has pinned.
pub fn verify_peer_certificate(
    end_entity: &[u8],
    expected: Role,
    fleet: Option<FleetId>,
) -> Result<PeerIdentity, NameError> {
    let certificate = parse(end_entity)?;
    let peer = read(&certificate, end_entity, expected == Role::Controller)?;
    let named = peer.identity.role();
    if named != expected {
        return Err(NameError::WrongRole { named, expected });
    }
    if let Some(ours) = fleet.filter(|ours| *ours != peer.identity.fleet()) {
        return Err(NameError::OtherFleet { named: peer.identity.fleet(), expected: ours });
    }
    check_usages(&certificate, expected)?;
    Ok(peer)
}

/// The same facts of one's own certificate, for showing it and planning its renewal. Checks its form
/// by the role in its own name.
pub fn describe(end_entity: &CertificateDer<'_>) -> Result<PeerIdentity, NameError> {
    let certificate = parse(end_entity)?;
    let role = read(&certificate, end_entity, true)?.identity.role();
    verify_peer_certificate(end_entity, role, None)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, NameError> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|_| NameError::Unreadable("not an X.509 certificate"))?;
    if !rest.is_empty() {
        return Err(NameError::Unreadable("bytes follow the certificate"));
    }
    Ok(certificate)
}

fn read(
    certificate: &X509Certificate<'_>,
    der: &[u8],
    host_names_allowed: bool,
) -> Result<PeerIdentity, NameError> {
    let identity = one_name(certificate, host_names_allowed)?.parse()?;
    if p256_point(certificate.public_key()).is_none() {
        return Err(NameError::KeyType);
    }
    let time = |seconds: i64| {
        let ms = seconds.checked_mul(1000).ok_or(NameError::Unreadable("validity out of range"))?;
        Timestamp::from_millis(ms)
            .map_err(|_| NameError::Unreadable("validity outside the years 2000 to 2100"))
    };
    Ok(PeerIdentity {
        identity,
        serial: Serial::from_bytes(certificate.raw_serial())
            .map_err(|_| NameError::Unreadable("serial is not positive or too long"))?,
        not_before: time(certificate.validity().not_before.timestamp())?,
        not_after: time(certificate.validity().not_after.timestamp())?,
        fingerprint: Digest::of(der),
    })
}

/// The single URI. DNS names and addresses may stand beside it only in a server's certificate.
fn one_name<'a>(
    certificate: &'a X509Certificate<'_>,
    host_names_allowed: bool,
) -> Result<&'a str, NameError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| NameError::Unreadable("alternative names are malformed or given twice"))?
        .ok_or(NameError::NoName)?;
    let mut uris = Vec::new();
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(_) | GeneralName::IPAddress(_) if host_names_allowed => {}
            other => return Err(NameError::OtherName(kind(other))),
        }
    }
    match uris[..] {
        [uri] => Ok(uri),
        [] => Err(NameError::NoName),
        _ => Err(NameError::ManyNames(uris.len())),
    }
}

const fn kind(name: &GeneralName<'_>) -> &'static str {
    match name {
        GeneralName::DNSName(_) => "DNS",
        GeneralName::IPAddress(_) => "address",
        GeneralName::RFC822Name(_) => "mail",
        GeneralName::DirectoryName(_) => "directory",
        GeneralName::Invalid(..) => "malformed",
        _ => "foreign",
    }
}

fn check_usages(certificate: &X509Certificate<'_>, role: Role) -> Result<(), NameError> {
    let extended = certificate
        .extended_key_usage()
        .map_err(|_| NameError::Unreadable("extended key usage is malformed or given twice"))?
        .ok_or(NameError::NoExtendedKeyUsage)?
        .value;
    let server = role == Role::Controller;
    let foreign = extended.any
        || extended.code_signing
        || extended.email_protection
        || extended.time_stamping
        || extended.ocsp_signing
        || !extended.other.is_empty();
    if foreign || extended.server_auth != server || extended.client_auth == server {
        let wanted = if server { "server authentication" } else { "client authentication" };
        return Err(NameError::WrongExtendedKeyUsage(wanted));
    }
    let usage = certificate.key_usage().ok().flatten().ok_or(NameError::WrongKeyUsage)?.value;
    // Bit 0 is digital signature (RFC 5280 §4.2.1.3); nothing else may be set.
    if usage.flags == 1 { Ok(()) } else { Err(NameError::WrongKeyUsage) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType,
    };

    use super::*;
    use crate::ca::Authority;
    use crate::csr::{PrivateKey, RequestedKey};
    use crate::issue;

    const NAME: &str =
        "fleet://0192f0c1-0000-7000-8000-000000000001/agent/0192f0c1-0000-7000-8000-000000000002";

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(NAME.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = time::OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap();
        params.not_after = params.not_before + time::Duration::DAY;
        params
    }

    /// Chains are not looked at here, so the forgeries sign themselves.
    fn check(params: &CertificateParams, key: &KeyPair) -> Result<PeerIdentity, NameError> {
        verify_peer_certificate(params.self_signed(key).unwrap().der(), Role::Agent, None)
    }

    #[test]
    fn other_keys_times_and_doubled_extensions_are_refused() {
        let p256 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        assert_eq!(check(&params(), &p256).unwrap().identity.to_string(), NAME);
        for other in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let key = KeyPair::generate_for(other).unwrap();
            assert_eq!(check(&params(), &key), Err(NameError::KeyType));
        }
        let mut endless = params();
        endless.not_after = time::OffsetDateTime::from_unix_timestamp(253_402_300_799).unwrap();
        assert!(matches!(check(&endless, &p256), Err(NameError::Unreadable(_))));
        // A second list of names, and a second list of purposes: SEQUENCE {} in each.
        for oid in [&[2, 5, 29, 17][..], &[2, 5, 29, 37]] {
            let mut doubled = params();
            doubled.custom_extensions.push(CustomExtension::from_oid_content(oid, vec![0x30, 0x00]));
            assert!(matches!(check(&doubled, &p256), Err(NameError::Unreadable(_))), "{oid:?}");
        }
        let mut bytes = params().self_signed(&p256).unwrap().der().to_vec();
        bytes.push(0);
        assert!(matches!(verify_peer_certificate(&bytes, Role::Agent, None), Err(NameError::Unreadable(_))));
    }

    #[test]
    fn no_damaged_certificate_panics_and_no_part_is_accepted() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let fleet: FleetId = "0192f0c1-0000-7000-8000-000000000001".parse().unwrap();
        let authority = Authority::create(Role::Agent, fleet, now, Duration::from_hours(100)).unwrap();
        let key = RequestedKey::of(&PrivateKey::generate().unwrap()).unwrap();
        let node = "0192f0c1-0000-7000-8000-000000000002".parse().unwrap();
        let issued = issue::agent(&authority, fleet, node, &key, now, issue::AGENT_LIFETIME).unwrap();
        assert_eq!(Presented::of(issued.der()).name, Some(issued.identity));
        for at in 0..issued.der().len() {
            for flip in [0x01, 0x20, 0x80, 0xff] {
                let mut bad = issued.der().to_vec();
                bad[at] ^= flip;
                // A digit of the name may become another digit; the chain's signature is what notices.
                let _ = Presented::of(&bad);
                if let Ok(peer) = verify_peer_certificate(&bad, Role::Agent, Some(fleet)) {
                    assert_ne!(peer.fingerprint, issued.fingerprint);
                }
                assert!(verify_peer_certificate(&bad[..at], Role::Agent, None).is_err());
            }
        }
    }
}
