//! Certificates that nobody would issue: signed by a fleet's real authorities, or by a stranger's.

use anyhow::{Context as _, Result};
use fleet_certs::Role;
use fleet_certs::ca::Authority;
use fleet_certs::csr::PrivateKey;
use fleet_certs::tls::TlsIdentity;
use fleet_tests::clock;
use fleet_tests::sandbox::identity;
use fleet_tests::test_fleet::TestFleet;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// An authority of the fleet, from the controller's disk.
pub fn authority(fleet: &TestFleet, role: Role) -> Result<Authority> {
    identity::authority(&fleet.controller, role)
}

/// What an honest client certificate with these URIs says, for a story to spoil.
pub fn params(uris: &[&str]) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "forged");
    params.subject_alt_names = uris
        .iter()
        .map(|uri| Ok(SanType::URI(Ia5String::try_from(*uri).context("no such URI")?)))
        .collect::<Result<_>>()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = day(-1)?;
    params.not_after = day(1)?;
    Ok(params)
}

/// So many days from now.
pub fn day(days: i64) -> Result<time::OffsetDateTime> {
    second(days * 86_400)
}

/// So many seconds from now.
pub fn second(seconds: i64) -> Result<time::OffsetDateTime> {
    Ok(time::OffsetDateTime::from_unix_timestamp(clock::now().as_millis() / 1000 + seconds)?)
}

/// A SAN with a host name.
pub fn dns(name: &str) -> Result<SanType> {
    Ok(SanType::DnsName(Ia5String::try_from(name).context("no such name")?))
}

/// Signs whatever it is told with an authority's key.
pub fn sign(authority: &Authority, params: &CertificateParams) -> Result<TlsIdentity> {
    let pem = String::from_utf8(authority.key_pem().expose().to_vec())?;
    let issuer = Issuer::from_ca_cert_der(authority.certificate(), KeyPair::from_pem(&pem)?)?;
    let key = PrivateKey::generate()?;
    let pair = KeyPair::from_pem(std::str::from_utf8(key.to_pem().expose())?)?;
    let certificate = params.signed_by(&pair, &issuer)?;
    Ok(TlsIdentity::new(vec![certificate.der().clone(), authority.certificate().clone()], &key))
}
