//! The three certificate authorities: controller, agent and operator (security-and-delivery §1.1).
//!
//! Three, so that the role of a peer follows from who issued its certificate. They carry no name
//! constraints, because rustls-webpki refuses URI ones (§1.4). Only the controller holds authorities;
//! agents and operators hold the controller authority's certificate, never a key.

use std::time::Duration;

use base64::Engine as _;
use fleet_types::digest::Digest;
use fleet_types::id::FleetId;
use fleet_types::seal::Secret;
use fleet_types::time::Timestamp;
use fleet_types::trust;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::csr::{PrivateKey, RequestError, p256_point};
use crate::name::Role;
use crate::serial::Serial;

/// How far `not_before` lies before the time of issue: clocks of machines that have just booted and
/// not yet synchronised are commonly minutes off, and a certificate that is "not yet valid" on the
/// peer would make a fresh enrolment fail. Five minutes is also what Kerberos tolerates (RFC 4120).
pub const BACK_DATED: Duration = Duration::from_mins(5);

/// Why an authority could not be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The system's random numbers failed.
    #[error("the system gave no random numbers")]
    Random,
    /// The certificate could not be built.
    #[error("authority certificate could not be built")]
    Build(#[from] rcgen::Error),
    /// The key is missing, of another type, or could not be made.
    #[error("authority key cannot be used")]
    Key(#[from] RequestError),
    /// The PEM text holds no certificate, or more than one.
    #[error("authority file must hold exactly one PEM certificate, found {0}")]
    Count(usize),
    /// Not a certificate, or not one of an authority.
    #[error("the certificate is not one of a P-256 certificate authority without name constraints")]
    NotAnAuthority,
    /// Key and certificate do not belong together.
    #[error(
        "the key does not belong to the {0} authority's certificate: restore both files from the same backup"
    )]
    Mismatch(Role),
    /// Only the role's own authority may issue for the role.
    #[error("the {actual} authority was asked for a {wanted} certificate")]
    WrongAuthority {
        /// The authority that was asked.
        actual: Role,
        /// The one that would be right.
        wanted: Role,
    },
}

/// One authority with its key.
pub struct Authority {
    role: Role,
    certificate: CertificateDer<'static>,
    pin: Digest,
    not_after: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("role", &self.role).field("pin", &self.pin).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new authority with a new key, valid from shortly before `now` for `lifetime`.
    pub fn create(role: Role, fleet: FleetId, now: Timestamp, lifetime: Duration) -> Result<Self, CaError> {
        let key = PrivateKey::generate()?;
        let serial = Serial::random(&ring::rand::SystemRandom::new()).map_err(|_| CaError::Random)?;
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, format!("fleet {fleet}"));
        // The key's digest keeps the subjects of two generations apart while a rotation lasts. Nobody
        // may decide anything by this text (§1.5).
        name.push(DnType::CommonName, format!("fleet {role} authority {}", key.public_digest().short()));
        let mut params = CertificateParams::default();
        params.distinguished_name = name;
        // Path length 0: an authority issues end entities only.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
        params.not_before = date(now.minus(BACK_DATED));
        params.not_after = date(now.plus(lifetime));
        let certificate = params.self_signed(key.pair())?;
        Self::from_parts(role, certificate.der().clone(), key)
    }

    /// Loads an authority from its two PEM files and checks that they belong together.
    pub fn from_pem(role: Role, certificate_pem: &str, key_pem: &Secret) -> Result<Self, CaError> {
        let certificate = one_certificate(certificate_pem)?;
        Self::from_parts(role, certificate, PrivateKey::from_pem(key_pem)?)
    }

    fn from_parts(
        role: Role,
        certificate: CertificateDer<'static>,
        key: PrivateKey,
    ) -> Result<Self, CaError> {
        let facts = AuthorityFacts::of(&certificate)?;
        if facts.point != key.public_point() {
            return Err(CaError::Mismatch(role));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key.into_pair())?;
        Ok(Self { role, pin: facts.pin, not_after: facts.not_after, certificate, issuer })
    }

    /// Which certificates this authority issues.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The authority's own certificate.
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate in PEM, for peers and files.
    pub fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// The private key in PEM, for a file of mode 0600 on the controller.
    pub fn key_pem(&self) -> Secret {
        Secret::new(self.issuer.key().serialize_pem())
    }

    /// SHA-256 of the authority's public key info, the pin in join tokens (§1.6).
    pub const fn pin(&self) -> Digest {
        self.pin
    }

    /// When the authority's certificate ends; nothing that it issues may outlive it.
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The entry of the trust bundle for this authority.
    pub fn listed(&self) -> trust::Authority {
        trust::Authority {
            certificate: self.certificate.to_vec(),
            public_key: self.issuer.key().public_key_raw().to_vec(),
        }
    }

    pub(crate) const fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    pub(crate) fn must_be(&self, wanted: Role) -> Result<(), CaError> {
        if self.role == wanted { Ok(()) } else { Err(CaError::WrongAuthority { actual: self.role, wanted }) }
    }
}

/// What is needed of an authority's certificate.
struct AuthorityFacts {
    pin: Digest,
    point: Vec<u8>,
    not_after: Timestamp,
}

impl AuthorityFacts {
    fn of(der: &CertificateDer<'_>) -> Result<Self, CaError> {
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| CaError::NotAnAuthority)?;
        let point = p256_point(parsed.public_key()).ok_or(CaError::NotAnAuthority)?.to_vec();
        let signs = parsed.key_usage().ok().flatten().is_some_and(|usage| usage.value.key_cert_sign());
        let unconstrained = matches!(parsed.name_constraints(), Ok(None));
        if !rest.is_empty() || !parsed.is_ca() || !signs || !unconstrained {
            return Err(CaError::NotAnAuthority);
        }
        let not_after = Timestamp::clamped(parsed.validity().not_after.timestamp().saturating_mul(1000));
        Ok(Self { pin: Digest::of(parsed.public_key().raw), point, not_after })
    }
}

/// The pin of an authority's certificate; refuses what is not an authority's.
pub fn pin_of(certificate: &CertificateDer<'_>) -> Result<Digest, CaError> {
    AuthorityFacts::of(certificate).map(|facts| facts.pin)
}

/// All certificates in a PEM text.
pub fn certificates_from_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, CaError> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|_| CaError::Count(0))
}

/// PEM text of certificates, in their order.
pub fn certificates_to_pem(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(|der| pem("CERTIFICATE", der)).collect()
}

fn one_certificate(pem: &str) -> Result<CertificateDer<'static>, CaError> {
    let mut all = certificates_from_pem(pem)?;
    match (all.pop(), all.len()) {
        (Some(certificate), 0) => Ok(certificate),
        (last, more) => Err(CaError::Count(more + usize::from(last.is_some()))),
    }
}

/// RFC 7468 text. rcgen writes PEM only for certificates that it has just made.
fn pem(label: &str, der: &[u8]) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        // Base 64 is ASCII, so every position is a character boundary.
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text + &format!("-----END {label}-----\n")
}

/// Whole seconds, as certificates hold them.
pub(crate) fn date(at: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(at.as_millis() / 1000)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn fleet() -> FleetId {
        "0192f0c1-0000-7000-8000-000000000001".parse().unwrap()
    }

    #[test]
    fn an_authority_survives_its_files() {
        let made = Authority::create(Role::Agent, fleet(), now(), Duration::from_hours(24)).unwrap();
        let again = Authority::from_pem(Role::Agent, &made.certificate_pem(), &made.key_pem()).unwrap();
        assert_eq!((again.pin(), again.certificate()), (made.pin(), made.certificate()));
        assert_eq!(pin_of(made.certificate()).unwrap(), made.pin());
        assert_eq!(again.not_after(), now().plus(Duration::from_hours(24)));
        let (_, parsed) = X509Certificate::from_der(made.certificate()).unwrap();
        assert_eq!(parsed.validity().not_before.timestamp() * 1000, now().minus(BACK_DATED).as_millis());
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused() {
        let life = Duration::from_hours(24);
        let one = Authority::create(Role::Agent, fleet(), now(), life).unwrap();
        let two = Authority::create(Role::Agent, fleet(), now(), life).unwrap();
        let mixed = Authority::from_pem(Role::Agent, &one.certificate_pem(), &two.key_pem());
        assert!(matches!(mixed, Err(CaError::Mismatch(Role::Agent))));
        let both = one.certificate_pem() + &two.certificate_pem();
        assert!(matches!(Authority::from_pem(Role::Agent, &both, &one.key_pem()), Err(CaError::Count(2))));
        assert!(matches!(Authority::from_pem(Role::Agent, "", &one.key_pem()), Err(CaError::Count(0))));
    }

    #[test]
    fn a_leaf_is_no_authority() {
        let key = PrivateKey::generate().unwrap();
        let leaf = CertificateParams::default().self_signed(key.pair()).unwrap();
        assert!(matches!(pin_of(leaf.der()), Err(CaError::NotAnAuthority)));
    }

    #[test]
    fn pem_text_is_read_back_at_every_length() {
        for length in [1, 2, 3, 47, 48, 49, 200] {
            let der: Vec<u8> = (0..length).collect();
            let back = certificates_from_pem(&pem("CERTIFICATE", &der)).unwrap();
            assert_eq!(back[0].as_ref(), der);
        }
    }
}
