//! Certifying a controller's dispatch key (security-and-delivery §1.2).
//!
//! The signing half; executors check the statement with `fleet_types::trust::SignedDispatch::open`.
//! Signed by the controller authority's P-256 key, whose certificate stands in the trust bundle: so no
//! root key is needed to start another controller. The signed bytes begin with a text, a certificate
//! with a DER tag, so neither signature can pass for the other.

use fleet_types::canonical::{self, CanonicalError};
use fleet_types::trust::{DispatchStatement, SignedDispatch, dispatch_signed_bytes};
use rcgen::SigningKey as _;

use crate::ca::{Authority, CaError};
use crate::name::Role;

/// Why a dispatch key was not certified.
#[derive(Debug, thiserror::Error)]
pub enum CertifyError {
    /// Not the controller authority.
    #[error("authority cannot certify a dispatch key")]
    Authority(#[from] CaError),
    /// The statement has no canonical form.
    #[error("dispatch statement cannot be written")]
    Statement(#[from] CanonicalError),
    /// The signature failed.
    #[error("dispatch statement cannot be signed")]
    Sign(#[from] rcgen::Error),
}

/// Signs the statement with the controller authority's key.
pub fn certify(authority: &Authority, statement: &DispatchStatement) -> Result<SignedDispatch, CertifyError> {
    authority.must_be(Role::Controller)?;
    let payload = canonical::to_vec(statement)?;
    let signature = authority.issuer().key().sign(&dispatch_signed_bytes(&payload))?;
    Ok(SignedDispatch { payload, signature })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleet_types::id::FleetId;
    use fleet_types::seal::SigningKey;
    use fleet_types::time::Timestamp;
    use fleet_types::trust::{BUNDLE_SCHEMA, TrustBundle};

    use super::*;

    #[test]
    fn the_executor_accepts_what_the_authority_signed_and_nothing_else() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let fleet: FleetId = "0192f0c1-0000-7000-8000-000000000001".parse().unwrap();
        let day = Duration::from_hours(24);
        let make = |role| Authority::create(role, fleet, now, day).unwrap();
        let (ca, other) = (make(Role::Controller), make(Role::Controller));
        let key = SigningKey::generate().unwrap().0.public();
        let statement = DispatchStatement {
            fleet,
            controller: "0192f0c1-0000-7000-8000-000000000003".parse().unwrap(),
            key,
            not_before: now,
            not_after: now.plus(day),
        };
        let bundle = |listed: &Authority| TrustBundle {
            schema: BUNDLE_SCHEMA.to_owned(),
            fleet,
            version: 1,
            issued: now,
            controller_authorities: vec![listed.listed()],
            agent_authorities: vec![],
            operator_authorities: vec![],
            content_keys: vec![],
            audit_key: key,
            fence_resets: vec![],
            operator_key_authority: None,
        };
        let signed = certify(&ca, &statement).unwrap();
        assert_eq!(signed.open(&bundle(&ca), now).unwrap(), statement);
        assert!(signed.open(&bundle(&other), now).is_err());
        assert!(signed.open(&bundle(&ca), now.plus(day)).is_err());
        let mut changed = signed.clone();
        changed.payload[20] ^= 1;
        assert!(changed.open(&bundle(&ca), now).is_err());
        assert!(matches!(certify(&make(Role::Agent), &statement), Err(CertifyError::Authority(_))));
    }
}
