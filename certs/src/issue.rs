//! Issuing: three profiles and nothing else (security-and-delivery §1.4, §1.8).
//!
//! A certificate here speaks for exactly one [`Identity`]; what the request asked for plays no part.
//! Lifetimes and the time are handed in. Called by the controller's enrolment and renewal, and by its
//! first start for its own certificate.

use std::net::IpAddr;
use std::time::Duration;

use fleet_types::digest::Digest;
use fleet_types::id::{ControllerId, FleetId, NodeId, OperatorId};
use fleet_types::time::Timestamp;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType,
    SerialNumber,
};
use rustls::pki_types::{CertificateDer, ServerName};

use crate::ca::{Authority, BACK_DATED, CaError, certificates_to_pem, date};
use crate::csr::RequestedKey;
use crate::name::{Identity, Role};
use crate::serial::Serial;

/// Usual life of an agent's certificate (§1.8).
pub const AGENT_LIFETIME: Duration = Duration::from_hours(72);
/// Usual life of an operator's certificate: one working day.
pub const OPERATOR_LIFETIME: Duration = Duration::from_hours(12);
/// Usual life of a controller's certificate: as an agent's, so that renewal is exercised daily.
pub const CONTROLLER_LIFETIME: Duration = Duration::from_hours(72);

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The wrong authority, or no random numbers.
    #[error("authority cannot issue this certificate")]
    Authority(#[from] CaError),
    /// The authority's own certificate is over.
    #[error("the {role} authority ended {not_after}: rotate it first")]
    AuthorityEnded {
        /// The authority.
        role: Role,
        /// Its end.
        not_after: Timestamp,
    },
    /// A controller needs at least one name that clients can be configured with.
    #[error("a controller certificate needs at least one server name")]
    NoServerName,
    /// The text is neither a host name nor an address.
    #[error("\"{0}\" is neither a host name nor an IP address")]
    ServerName(String),
    /// The encoder failed.
    #[error("certificate could not be built")]
    Build(#[from] rcgen::Error),
}

/// A new certificate with its authority's, as it is sent and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Whom it speaks for.
    pub identity: Identity,
    /// End entity, then the authority: a pinned client needs the second (§1.6).
    pub chain: Vec<CertificateDer<'static>>,
    /// Serial number.
    pub serial: Serial,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity, in whole seconds.
    pub not_after: Timestamp,
    /// SHA-256 of the end entity certificate.
    pub fingerprint: Digest,
}

impl Issued {
    /// The chain in PEM.
    pub fn chain_pem(&self) -> String {
        certificates_to_pem(&self.chain)
    }

    /// The end entity certificate in DER.
    pub fn der(&self) -> &[u8] {
        self.chain.first().map_or(&[], |der| der)
    }
}

/// Certifies a node's agent: client authentication, one URI name.
pub fn agent(
    authority: &Authority,
    fleet: FleetId,
    node: NodeId,
    key: &RequestedKey,
    now: Timestamp,
    lifetime: Duration,
) -> Result<Issued, IssueError> {
    issue(authority, Identity::Agent(fleet, node), &[], key, now, lifetime)
}

/// Certifies an operator: client authentication, one URI name.
pub fn operator(
    authority: &Authority,
    fleet: FleetId,
    operator: OperatorId,
    key: &RequestedKey,
    now: Timestamp,
    lifetime: Duration,
) -> Result<Issued, IssueError> {
    issue(authority, Identity::Operator(fleet, operator), &[], key, now, lifetime)
}

/// Certifies a controller: server authentication, its URI name, and the server names that clients
/// are configured with (host names or addresses).
pub fn controller(
    authority: &Authority,
    name: (FleetId, ControllerId),
    server_names: &[String],
    key: &RequestedKey,
    now: Timestamp,
    lifetime: Duration,
) -> Result<Issued, IssueError> {
    if server_names.is_empty() {
        return Err(IssueError::NoServerName);
    }
    let sans = server_names.iter().map(|text| server_san(text)).collect::<Result<Vec<_>, _>>()?;
    issue(authority, Identity::Controller(name.0, name.1), &sans, key, now, lifetime)
}

/// When a certificate was issued: its validity begins a little earlier, for clocks that are behind.
pub fn issued_at(not_before: Timestamp) -> Timestamp {
    not_before.plus(BACK_DATED)
}

/// When to renew: between 60 and 75 % of the lifetime (§1.8), counted from the issue and spread by 16 random bits so
/// that a fleet that was enrolled in one hour does not come back in one hour.
pub fn renewal_due(not_before: Timestamp, not_after: Timestamp, random: u16) -> Timestamp {
    let issued = issued_at(not_before);
    let life = not_after.since(issued);
    issued.plus(life * 60 / 100 + life * 15 / 100 * u32::from(random) / u32::from(u16::MAX))
}

fn server_san(text: &str) -> Result<SanType, IssueError> {
    let bad = || IssueError::ServerName(text.chars().filter(|c| !c.is_control()).take(64).collect());
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    // The check that clients apply to the configured name.
    match ServerName::try_from(text) {
        Ok(ServerName::DnsName(_)) => Ok(SanType::DnsName(Ia5String::try_from(text).map_err(|_| bad())?)),
        _ => Err(bad()),
    }
}

fn issue(
    authority: &Authority,
    identity: Identity,
    server_names: &[SanType],
    key: &RequestedKey,
    now: Timestamp,
    lifetime: Duration,
) -> Result<Issued, IssueError> {
    let role = identity.role();
    authority.must_be(role)?;
    if authority.not_after() <= now {
        return Err(IssueError::AuthorityEnded { role, not_after: authority.not_after() });
    }
    let serial = Serial::random(&ring::rand::SystemRandom::new()).map_err(|_| CaError::Random)?;
    let not_before = whole_seconds(now.minus(BACK_DATED));
    // A certificate that outlives its authority would fail on a day that nobody planned for.
    let not_after = whole_seconds(now.plus(lifetime).min(authority.not_after()));

    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    // For people reading a certificate; nothing may decide by it (§1.5).
    subject.push(DnType::CommonName, format!("{role} {}", identity.uuid().as_hyphenated()));
    params.distinguished_name = subject;
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity.to_string())?)];
    params.subject_alt_names.extend_from_slice(server_names);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match role {
        Role::Agent | Role::Operator => ExtendedKeyUsagePurpose::ClientAuth,
        Role::Controller => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    params.use_authority_key_identifier_extension = true;
    params.not_before = date(not_before);
    params.not_after = date(not_after);
    let certificate = params.signed_by(key.info(), authority.issuer())?;
    let fingerprint = Digest::of(certificate.der());
    let chain = vec![certificate.der().clone(), authority.certificate().clone()];
    Ok(Issued { identity, chain, serial, not_before, not_after, fingerprint })
}

fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::clamped(at.as_millis() / 1000 * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csr::PrivateKey;
    use crate::verify::{describe, verify_peer_certificate};

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn fleet() -> FleetId {
        "0192f0c1-0000-7000-8000-000000000001".parse().unwrap()
    }

    fn node() -> NodeId {
        "0192f0c1-0000-7000-8000-000000000002".parse().unwrap()
    }

    fn requested() -> RequestedKey {
        RequestedKey::from_request(&PrivateKey::generate().unwrap().request().unwrap()).unwrap()
    }

    fn authority(role: Role, life: Duration) -> Authority {
        Authority::create(role, fleet(), now(), life).unwrap()
    }

    const YEAR: Duration = Duration::from_hours(24 * 365);

    #[test]
    fn what_is_issued_is_what_the_check_accepts() {
        let issued =
            agent(&authority(Role::Agent, YEAR), fleet(), node(), &requested(), now(), AGENT_LIFETIME)
                .unwrap();
        let peer = verify_peer_certificate(issued.der(), Role::Agent, Some(fleet())).unwrap();
        assert_eq!(peer.identity, Identity::Agent(fleet(), node()));
        assert_eq!(
            (&peer.serial, peer.not_after, peer.fingerprint),
            (&issued.serial, issued.not_after, issued.fingerprint)
        );
        assert_eq!((peer.not_before, peer.not_after), (now().minus(BACK_DATED), now().plus(AGENT_LIFETIME)));
        let id = "0192f0c1-0000-7000-8000-000000000003";
        let issued = operator(
            &authority(Role::Operator, YEAR),
            fleet(),
            id.parse().unwrap(),
            &requested(),
            now(),
            OPERATOR_LIFETIME,
        );
        assert_eq!(describe(&issued.unwrap().chain[0]).unwrap().identity.role(), Role::Operator);
        let names = ["fleet.example".to_owned(), "192.0.2.7".to_owned(), "2001:db8::1".to_owned()];
        let ca = authority(Role::Controller, YEAR);
        let issued =
            controller(&ca, (fleet(), id.parse().unwrap()), &names, &requested(), now(), CONTROLLER_LIFETIME)
                .unwrap();
        assert!(verify_peer_certificate(issued.der(), Role::Controller, Some(fleet())).is_ok());
        let again = crate::ca::certificates_from_pem(&issued.chain_pem()).unwrap();
        assert_eq!(again, issued.chain);
    }

    #[test]
    fn only_the_own_authority_issues_and_only_while_it_lives() {
        let wrong =
            agent(&authority(Role::Operator, YEAR), fleet(), node(), &requested(), now(), AGENT_LIFETIME);
        assert!(matches!(wrong, Err(IssueError::Authority(CaError::WrongAuthority { .. }))));
        let short = authority(Role::Agent, Duration::from_hours(1));
        let capped = agent(&short, fleet(), node(), &requested(), now(), AGENT_LIFETIME).unwrap();
        assert_eq!(capped.not_after, short.not_after());
        let later = now().plus(Duration::from_hours(2));
        let over = agent(&short, fleet(), node(), &requested(), later, AGENT_LIFETIME);
        assert!(matches!(over, Err(IssueError::AuthorityEnded { .. })));
    }

    #[test]
    fn odd_server_names_are_refused() {
        let ca = authority(Role::Controller, YEAR);
        let name = (fleet(), "0192f0c1-0000-7000-8000-000000000003".parse().unwrap());
        for bad in ["", "a b", "-x", "*.example", "fleet://x", "ex\u{e4}mple", "a..b"] {
            let issued = controller(&ca, name, &[bad.to_owned()], &requested(), now(), CONTROLLER_LIFETIME);
            assert!(matches!(issued, Err(IssueError::ServerName(_))), "{bad:?}");
        }
        let none = controller(&ca, name, &[], &requested(), now(), CONTROLLER_LIFETIME);
        assert!(matches!(none, Err(IssueError::NoServerName)));
    }

    #[test]
    fn renewal_lies_between_60_and_75_percent() {
        let (issued, end) = (now(), now().plus(Duration::from_mins(100)));
        let start = issued.minus(BACK_DATED);
        assert_eq!(renewal_due(start, end, 0), issued.plus(Duration::from_hours(1)));
        assert_eq!(renewal_due(start, end, u16::MAX), issued.plus(Duration::from_mins(75)));
        // Of an authority that ends sooner than the certificate began: due at once, and nothing overflows.
        assert_eq!(renewal_due(start, start, 7), issued);
    }
}
