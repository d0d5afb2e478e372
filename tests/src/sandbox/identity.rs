//! Certificates of another time: what the fleet's real authority would have issued to the operator then.
//!
//! The authority's key is read from the controller's disk. The operator's own key stays as it is.

use std::time::Duration;

use anyhow::{Result, bail};
use fleet_certs::ca::Authority;
use fleet_certs::csr::{PrivateKey, RequestedKey};
use fleet_certs::slots::{IdentityDir, StoredIdentity};
use fleet_certs::{Identity, Role, files, issue};
use fleet_types::time::Timestamp;

use super::Sandbox;
use crate::controller_process::ControllerProcess;

/// An authority of a fleet, from its controller's disk.
pub fn authority(controller: &ControllerProcess, role: Role) -> Result<Authority> {
    let pki = controller.data_directory().join("pki");
    let certificate = files::read_text(&pki.join(format!("{role}-ca.pem")))?;
    let key = files::read_secret(&pki.join(format!("{role}-ca.key")))?;
    Ok(Authority::from_pem(role, &certificate, &key)?)
}

/// Gives the operator the certificate that they would have got at `issued` for so long; gives its end.
pub fn reissue(sandbox: &Sandbox, issued: Timestamp, lifetime: Duration) -> Result<Timestamp> {
    let authority = authority(&sandbox.controller, Role::Operator)?;
    reissue_by(sandbox, &authority, issued, lifetime)
}

/// The same by another authority.
pub fn reissue_by(
    sandbox: &Sandbox,
    authority: &Authority,
    issued: Timestamp,
    lifetime: Duration,
) -> Result<Timestamp> {
    let folder = IdentityDir::open(&sandbox.operator.folder().join("contexts/dev/identity"))?;
    let current = folder.load()?.identity;
    let key = RequestedKey::of(&PrivateKey::from_pem(&current.key_pem)?)?;
    let Identity::Operator(fleet, operator) = current.tls()?.describe()?.identity else {
        bail!("the certificate of the operator is another one's")
    };
    // The controller takes a certificate that it did not give only where it begins later than all that it gave, in
    // whole seconds; the beginning lies in the past anyway.
    let second = Duration::from_secs(1);
    let made = issue::operator(
        authority,
        fleet,
        operator,
        &key,
        issued.plus(second),
        lifetime.saturating_sub(second),
    )?;
    folder.store(&StoredIdentity { chain: made.chain, ..current })?;
    Ok(made.not_after)
}
