//! What the controller authority says of the key that signs a controller's waves.

use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::id::{ControllerId, FleetId};
use crate::seal::{PublicKey, base64_bytes};
use crate::time::Timestamp;

use super::bundle::TrustBundle;
use super::signed::TrustError;

/// What the controller authority says of a dispatch key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DispatchStatement {
    /// The fleet.
    pub fleet: FleetId,
    /// The controller that holds the key.
    pub controller: ControllerId,
    /// The key that signs waves.
    pub key: PublicKey,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
}

/// A dispatch statement with the controller authority's P-256 signature (ASN.1 DER).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedDispatch {
    /// Canonical JSON of a [`DispatchStatement`].
    #[serde(with = "base64_bytes")]
    pub payload: Vec<u8>,
    /// Signature over [`dispatch_signed_bytes`].
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
}

/// The bytes under the controller authority's signature.
pub fn dispatch_signed_bytes(payload: &[u8]) -> Vec<u8> {
    [b"fleet/v1/dispatch\n", payload].concat()
}

impl SignedDispatch {
    /// The dispatch key, if a controller authority of the bundle vouches for it now.
    pub fn open(&self, bundle: &TrustBundle, now: Timestamp) -> Result<DispatchStatement, TrustError> {
        let signed = dispatch_signed_bytes(&self.payload);
        let vouched = bundle.controller_authorities.iter().any(|authority| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &authority.public_key)
                .verify(&signed, &self.signature)
                .is_ok()
        });
        if !vouched {
            return Err(TrustError::Dispatch("no controller authority of the trust bundle signed it"));
        }
        let statement: DispatchStatement =
            canonical::from_signed(&self.payload).map_err(TrustError::Malformed)?;
        if statement.fleet != bundle.fleet {
            return Err(TrustError::Dispatch("it is for another fleet"));
        }
        if now < statement.not_before || now >= statement.not_after {
            return Err(TrustError::Dispatch("it is not valid at this time; check the clocks"));
        }
        Ok(statement)
    }
}
