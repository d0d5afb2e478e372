//! Keys and certificate requests.
//!
//! The key is born where it is used; only the request leaves (examples.md 18). On the issuing side
//! nothing but the public key and the self-signature over the request is looked at: names and
//! extensions in a request are ignored, whatever they say (security-and-delivery §1.7).

use fleet_types::digest::Digest;
use fleet_types::seal::Secret;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SubjectPublicKeyInfo};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo as ParsedKey;

/// Largest request that is parsed, in bytes. A P-256 request has about 250; 16 KiB leaves room for
/// any honest extension and keeps the parser's work small.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// Why a key could not be made, or a key or request not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Over the limit.
    #[error("certificate request has {0} bytes, at most {MAX_REQUEST_BYTES} are taken")]
    TooLarge(usize),
    /// Not one DER certificate request.
    #[error("certificate request is malformed")]
    Malformed,
    /// Another algorithm or curve.
    #[error("certificate request has another key type: only ECDSA P-256 is issued")]
    KeyType,
    /// The sender does not hold the key, or the bytes were changed.
    #[error("certificate request is not signed by its own key")]
    Signature,
    /// A private key file does not hold a P-256 key in PKCS #8.
    #[error("private key is not a P-256 key in PKCS #8 PEM form")]
    PrivateKey,
    /// The random number generator or the encoder failed.
    #[error("key or request could not be made: {0}")]
    Make(String),
}

/// A P-256 private key, as agents, operators and controllers hold it. Its debug output hides it.
pub struct PrivateKey {
    pair: KeyPair,
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(***)")
    }
}

impl PrivateKey {
    /// A new key from the system's random numbers.
    pub fn generate() -> Result<Self, RequestError> {
        let pair =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| RequestError::Make(e.to_string()))?;
        Ok(Self { pair })
    }

    /// Reads PKCS #8 PEM.
    pub fn from_pem(pem: &Secret) -> Result<Self, RequestError> {
        let pem = std::str::from_utf8(pem.expose()).map_err(|_| RequestError::PrivateKey)?;
        let pair = KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256)
            .map_err(|_| RequestError::PrivateKey)?;
        Ok(Self { pair })
    }

    /// PKCS #8 PEM, for a file of mode 0600.
    pub fn to_pem(&self) -> Secret {
        Secret::new(self.pair.serialize_pem())
    }

    /// The public key as an uncompressed point of 65 bytes.
    pub fn public_point(&self) -> &[u8] {
        self.pair.public_key_raw()
    }

    /// SHA-256 of the public key info, the same value as [`RequestedKey::digest`] of its request.
    pub fn public_digest(&self) -> Digest {
        use rcgen::PublicKeyData as _;
        Digest::of(&self.pair.subject_public_key_info())
    }

    /// A certificate request in DER, with an empty name: the issuer gives the name.
    pub fn request(&self) -> Result<Vec<u8>, RequestError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.pair).map_err(|e| RequestError::Make(e.to_string()))?;
        Ok(request.der().to_vec())
    }

    pub(crate) const fn pair(&self) -> &KeyPair {
        &self.pair
    }

    pub(crate) fn into_pair(self) -> KeyPair {
        self.pair
    }
}

/// The public key of a request whose self-signature holds. Nothing else of the request survives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedKey {
    info: SubjectPublicKeyInfo,
    digest: Digest,
}

impl RequestedKey {
    /// Checks a DER request: size, form, key type, self-signature.
    pub fn from_request(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > MAX_REQUEST_BYTES {
            return Err(RequestError::TooLarge(der.len()));
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| RequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed);
        }
        let body = &request.certification_request_info;
        let point = p256_point(&body.subject_pki).ok_or(RequestError::KeyType)?;
        if request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
            return Err(RequestError::KeyType);
        }
        if request.signature_value.unused_bits != 0 {
            return Err(RequestError::Malformed);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .verify(body.raw, &request.signature_value.data)
            .map_err(|_| RequestError::Signature)?;
        Self::from_info(body.subject_pki.raw)
    }

    /// The public half of a key held here (a controller issuing its own certificate).
    pub fn of(key: &PrivateKey) -> Result<Self, RequestError> {
        use rcgen::PublicKeyData as _;
        Self::from_info(&key.pair.subject_public_key_info())
    }

    fn from_info(der: &[u8]) -> Result<Self, RequestError> {
        let info = SubjectPublicKeyInfo::from_der(der).map_err(|_| RequestError::KeyType)?;
        Ok(Self { info, digest: Digest::of(der) })
    }

    /// SHA-256 of the public key info: tells "same key again" from "another key" when a token is
    /// used twice (security-and-delivery §1.6).
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    pub(crate) const fn info(&self) -> &SubjectPublicKeyInfo {
        &self.info
    }
}

/// The uncompressed point of a P-256 public key; `None` for any other key.
pub(crate) fn p256_point<'a>(key: &'a ParsedKey<'_>) -> Option<&'a [u8]> {
    let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
    let point: &[u8] = &key.subject_public_key.data;
    let right = key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve == OID_EC_P256
        // 0x04 and two coordinates of 32 bytes (SEC 1 §2.3.3); the compressed form is not used.
        && point.len() == 65
        && point[0] == 4;
    right.then_some(point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_key_and_signature_of_a_request_count() {
        let key = PrivateKey::generate().unwrap();
        let plain = RequestedKey::from_request(&key.request().unwrap()).unwrap();
        // A request that asks for the world: CA, names of others, a foreign extension.
        let mut greedy = CertificateParams::new(vec!["controller.example".to_owned()]).unwrap();
        greedy.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        greedy.custom_extensions.push(rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]));
        let greedy = greedy.serialize_request(key.pair()).unwrap();
        let taken = RequestedKey::from_request(greedy.der()).unwrap();
        assert_eq!(taken, plain);
        assert_eq!((taken.digest(), taken), (key.public_digest(), RequestedKey::of(&key).unwrap()));
    }

    #[test]
    fn bad_requests_are_refused_by_reason() {
        let good = PrivateKey::generate().unwrap().request().unwrap();
        let refused = |der: &[u8]| RequestedKey::from_request(der).unwrap_err();
        assert_eq!(refused(b""), RequestError::Malformed);
        assert_eq!(refused(&good[..good.len() - 1]), RequestError::Malformed);
        assert_eq!(refused(&[&good[..], b"\0"].concat()), RequestError::Malformed);
        assert_eq!(
            refused(&vec![0x30; MAX_REQUEST_BYTES + 1]),
            RequestError::TooLarge(MAX_REQUEST_BYTES + 1)
        );
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let request = CertificateParams::default().serialize_request(&ed25519).unwrap();
        assert_eq!(refused(request.der()), RequestError::KeyType);
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let request = CertificateParams::default().serialize_request(&p384).unwrap();
        assert_eq!(refused(request.der()), RequestError::KeyType);
    }

    #[test]
    fn no_flipped_byte_of_the_signed_part_passes_and_none_panics() {
        let good = PrivateKey::generate().unwrap().request().unwrap();
        let key = RequestedKey::from_request(&good).unwrap();
        // ecdsa-with-SHA256 (RFC 5758 §3.2): the signed part ends before it.
        let algorithm = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
        let frame = good.windows(algorithm.len()).position(|w| w == algorithm).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x01;
            match RequestedKey::from_request(&bad) {
                Err(_) => {}
                // The parser does not mind this tag; key and signature are untouched.
                Ok(same) => assert_eq!((at, &same), (frame, &key)),
            }
        }
    }

    #[test]
    fn a_key_survives_its_file_and_stays_hidden() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(again.public_point(), key.public_point());
        assert_eq!(format!("{key:?}"), "PrivateKey(***)");
        assert_eq!(PrivateKey::from_pem(&Secret::new("x")).unwrap_err(), RequestError::PrivateKey);
    }
}
