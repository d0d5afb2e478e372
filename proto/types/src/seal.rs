//! Signatures over content: Ed25519 keys, and the envelope of documents, requests and reports.
//!
//! A signature covers `fleet/v1/<kind>`, the fleet and the payload's digest (security-and-delivery
//! §1.15), so that one kind of text can never pass for another, nor one fleet's for another's.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::id::FleetId;

/// What a signed payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A profile, procedure, schedule or other document.
    Document,
    /// An operator's order to start something.
    Request,
    /// A node's report on a job.
    Report,
    /// The trust bundle.
    TrustBundle,
    /// A controller's wave of assignments.
    Wave,
    /// A finding that may stay for a while.
    FindingHold,
    /// What an operator allows a schedule to start.
    StandingOrder,
    /// A person's request for another certificate after the last one has ended.
    Rejoin,
}

impl Kind {
    /// The word under the signature.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::Request => "request",
            Self::Report => "report",
            Self::TrustBundle => "trust_bundle",
            Self::Wave => "wave",
            Self::FindingHold => "finding_hold",
            Self::StandingOrder => "standing_order",
            Self::Rejoin => "rejoin",
        }
    }
}

/// Names a public key: the SHA-256 of its 32 bytes.
pub type KeyId = Digest;

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Wraps 32 bytes; that they are a point of the curve shows when a signature is checked.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Takes a slice from the wire; its length must be 32.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, SealError> {
        <[u8; 32]>::try_from(bytes).map(Self).map_err(|_| SealError::Key)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key's name.
    pub fn id(&self) -> KeyId {
        Digest::of(&self.0)
    }

    /// Checks a signature over what [`signed_bytes`] gives.
    pub fn verify(
        &self,
        kind: Kind,
        fleet: FleetId,
        digest: Digest,
        signature: &[u8],
    ) -> Result<(), SealError> {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(&signed_bytes(kind, fleet, digest), signature)
            .map_err(|_| SealError::Signature)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", BASE64.encode(self.0))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes =
            bytes_from_base64(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
        Self::from_slice(&bytes).map_err(serde::de::Error::custom)
    }
}

/// An Ed25519 key pair. Its debug output shows the public half only.
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// Makes a key; returns it with its PKCS#8 form for a file of mode 0600.
    pub fn generate() -> Result<(Self, Vec<u8>), SealError> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| SealError::Random)?;
        Ok((Self::from_pkcs8(pkcs8.as_ref())?, pkcs8.as_ref().to_vec()))
    }

    /// Reads the PKCS#8 form.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, SealError> {
        Ok(Self { pair: Ed25519KeyPair::from_pkcs8(bytes).map_err(|_| SealError::Key)? })
    }

    /// The PEM text (RFC 7468) of a PKCS#8 key, as key files hold it.
    pub fn pkcs8_to_pem(pkcs8: &[u8]) -> Secret {
        let body = BASE64.encode(pkcs8);
        let mut text = String::from("-----BEGIN PRIVATE KEY-----\n");
        for line in body.as_bytes().chunks(64) {
            text.push_str(std::str::from_utf8(line).unwrap_or_default());
            text.push('\n');
        }
        text.push_str("-----END PRIVATE KEY-----\n");
        Secret::new(text)
    }

    /// Reads the PEM text of a PKCS#8 key.
    pub fn from_pem(text: &Secret) -> Result<Self, SealError> {
        let text = std::str::from_utf8(text.expose()).map_err(|_| SealError::Key)?;
        let body = text
            .trim()
            .strip_prefix("-----BEGIN PRIVATE KEY-----")
            .and_then(|rest| rest.strip_suffix("-----END PRIVATE KEY-----"))
            .ok_or(SealError::Key)?;
        let body: String = body.split_whitespace().collect();
        Self::from_pkcs8(&bytes_from_base64(&body)?)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        // Ed25519 public keys are 32 bytes by definition.
        PublicKey::from_slice(self.pair.public_key().as_ref()).unwrap_or(PublicKey([0; 32]))
    }

    /// Signs a digest for a kind and fleet.
    pub fn sign(&self, kind: Kind, fleet: FleetId, digest: Digest) -> Vec<u8> {
        self.pair.sign(&signed_bytes(kind, fleet, digest)).as_ref().to_vec()
    }

    /// Wraps a payload with this key's signature.
    pub fn seal(&self, kind: Kind, fleet: FleetId, payload: Vec<u8>) -> Envelope {
        let signature = self.sign(kind, fleet, Digest::of(&payload));
        Envelope { kind, payload, key: self.public().id(), signature }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?}, ***)", self.public())
    }
}

/// The bytes under a signature.
pub fn signed_bytes(kind: Kind, fleet: FleetId, digest: Digest) -> Vec<u8> {
    format!("fleet/v1/{}\n{fleet}\n{digest}\n", kind.as_str()).into_bytes()
}

/// A payload with one signature. Immutable: its digest is the payload's SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// What the payload is.
    pub kind: Kind,
    /// The signed bytes themselves.
    #[serde(with = "base64_bytes")]
    pub payload: Vec<u8>,
    /// Which key signed.
    pub key: KeyId,
    /// Ed25519 signature.
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
}

impl Envelope {
    /// The payload's name.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.payload)
    }

    /// Checks kind, key and signature.
    pub fn verify(&self, kind: Kind, fleet: FleetId, key: &PublicKey) -> Result<(), SealError> {
        if self.kind != kind {
            return Err(SealError::Kind { expected: kind.as_str(), found: self.kind.as_str() });
        }
        if self.key != key.id() {
            return Err(SealError::UnknownKey(self.key));
        }
        key.verify(kind, fleet, self.digest(), &self.signature)
    }
}

/// Why a signed text is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not an Ed25519 key.
    #[error("not an Ed25519 key")]
    Key,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
    /// The signature is not of this key over this payload, kind and fleet.
    #[error("the signature does not match the text, its kind or this fleet")]
    Signature,
    /// The key is not listed.
    #[error("signed by key {0}, which is not the one expected or not listed")]
    UnknownKey(KeyId),
    /// One kind of text stands where another belongs.
    #[error("a signed {found} stands where a {expected} belongs")]
    Kind {
        /// The kind wanted.
        expected: &'static str,
        /// The kind found.
        found: &'static str,
    },
    /// Text that is no base 64.
    #[error("not base 64")]
    Base64,
}

fn bytes_from_base64(text: &str) -> Result<Vec<u8>, SealError> {
    BASE64.decode(text).map_err(|_| SealError::Base64)
}

/// Serde for bytes in JSON as base 64 (RFC 4648 §4).
pub mod base64_bytes {
    use base64::Engine as _;

    use super::{BASE64, Deserialize, Deserializer, Serializer, bytes_from_base64};

    /// Writes base 64.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    /// Reads base 64.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        bytes_from_base64(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A text that must not be shown: its debug output is `***` (security-and-delivery §1.20).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps the secret.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The secret itself; the caller takes care of it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(n: u128) -> FleetId {
        FleetId::from_uuid(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn a_signature_is_of_one_kind_one_fleet_and_one_text() {
        let (key, pkcs8) = SigningKey::generate().unwrap();
        let sealed = key.seal(Kind::Document, fleet(1), b"{}".to_vec());
        let public = SigningKey::from_pem(&SigningKey::pkcs8_to_pem(&pkcs8)).unwrap().public();
        assert_eq!(sealed.verify(Kind::Document, fleet(1), &public), Ok(()));
        assert_eq!(sealed.verify(Kind::Document, fleet(2), &public), Err(SealError::Signature));
        assert!(matches!(sealed.verify(Kind::Request, fleet(1), &public), Err(SealError::Kind { .. })));
        let mut relabelled = sealed.clone();
        relabelled.kind = Kind::Request;
        assert_eq!(relabelled.verify(Kind::Request, fleet(1), &public), Err(SealError::Signature));
        let mut flipped = sealed.clone();
        flipped.payload[0] ^= 1;
        assert_eq!(flipped.verify(Kind::Document, fleet(1), &public), Err(SealError::Signature));
        let other = SigningKey::generate().unwrap().0.public();
        assert_eq!(sealed.verify(Kind::Document, fleet(1), &other), Err(SealError::UnknownKey(public.id())));
    }

    #[test]
    fn debug_output_hides_secrets() {
        let (key, _) = SigningKey::generate().unwrap();
        assert!(format!("{key:?}").ends_with("***)"));
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }
}
