//! The controller's own keys and authorities on disk, and what is derived from them at start.
//!
//! Holds the three authorities, the dispatch key and the audit key. It never holds a content key or a root
//! key: `data_directory.rs` looks for them.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_certs::ca::Authority;
use fleet_certs::csr::{PrivateKey, RequestedKey};
use fleet_certs::name::Role;
use fleet_certs::tls::TlsIdentity;
use fleet_certs::{dispatch, files, issue};
use fleet_types::id::{ControllerId, FleetId};
use fleet_types::seal::SigningKey;
use fleet_types::time::Timestamp;
use fleet_types::trust::{DispatchStatement, SignedDispatch, TrustBundle};

/// Authorities live ten years: they are rotated by the operator, not by surprise.
const AUTHORITY_LIFE: Duration = Duration::from_hours(87600);
/// The authority's statement about the dispatch key; made anew with each certificate of the controller. Agents are told
/// of it when they connect, and no link is as old as this: it ends with the agent's certificate.
const DISPATCH_LIFE: Duration = Duration::from_hours(2160);
/// Statements begin a little in the past: agents' clocks may be behind by as much.
const BACK_DATED: Duration = Duration::from_mins(5);

/// The controller's keys.
pub struct Keyring {
    /// Issues controllers' certificates.
    pub controller_ca: Authority,
    /// Issues agents' certificates.
    pub agent_ca: Authority,
    /// Issues operators' certificates.
    pub operator_ca: Authority,
    /// Signs waves of assignments.
    pub dispatch: SigningKey,
    /// Signs checkpoints of the audit log.
    pub audit: SigningKey,
}

/// A key cannot be made, read or trusted.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// A file cannot be read or written, or its mode is too open.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// The directory cannot be made.
    #[error("directory {} cannot be made", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An authority cannot be made or loaded.
    #[error("authority in {path}: {source}", path = path.display())]
    Authority {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: fleet_certs::ca::CaError,
    },
    /// A signing key cannot be made or loaded.
    #[error("key {path}: {source}", path = path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: fleet_types::seal::SealError,
    },
    /// Keys were exchanged with each other, or belong to another fleet.
    #[error(
        "the {0} authority in pki is not one that the trust bundle lists for this role: put the right files back from a backup"
    )]
    NotListed(Role),
    /// The certificate or statement cannot be issued.
    #[error("the controller's certificate cannot be issued")]
    Issue(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn paths(directory: &Path, role: Role) -> (PathBuf, PathBuf) {
    (directory.join(format!("{role}-ca.pem")), directory.join(format!("{role}-ca.key")))
}

fn load_authority(directory: &Path, role: Role) -> Result<Authority, KeyringError> {
    let (certificate_path, key_path) = paths(directory, role);
    let certificate = files::read_text(&certificate_path)?;
    let key = files::read_secret(&key_path)?;
    Authority::from_pem(role, &certificate, &key)
        .map_err(|source| KeyringError::Authority { path: certificate_path, source })
}

fn create_authority(
    directory: &Path,
    role: Role,
    fleet: FleetId,
    now: Timestamp,
) -> Result<(), KeyringError> {
    let (certificate_path, key_path) = paths(directory, role);
    let authority = Authority::create(role, fleet, now, AUTHORITY_LIFE)
        .map_err(|source| KeyringError::Authority { path: certificate_path.clone(), source })?;
    files::write_secret(&key_path, &authority.key_pem())?;
    files::write_atomic(&certificate_path, authority.certificate_pem().as_bytes(), 0o644)?;
    Ok(())
}

/// Makes a signing key and writes its PKCS#8 form as PEM, mode 0600.
pub fn create_signing_key(path: &Path) -> Result<SigningKey, KeyringError> {
    let (key, pkcs8) =
        SigningKey::generate().map_err(|source| KeyringError::Key { path: path.to_owned(), source })?;
    files::write_secret(path, &SigningKey::pkcs8_to_pem(&pkcs8))?;
    Ok(key)
}

/// Loads a signing key from its PKCS#8 form.
pub fn load_signing_key(path: &Path) -> Result<SigningKey, KeyringError> {
    let text = files::read_secret(path)?;
    SigningKey::from_pem(&text).map_err(|source| KeyringError::Key { path: path.to_owned(), source })
}

/// What is to be said about the end of an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Nothing yet.
    None,
    /// It is to be replaced this half year.
    Warn,
    /// It is to be replaced now.
    Urgent,
}

/// Half a year is time to plan it, a month is what it takes to reach every node.
pub fn notice(now: Timestamp, end: Timestamp) -> Notice {
    let left = end.since(now);
    if left <= Duration::from_hours(30 * 24) {
        Notice::Urgent
    } else if left <= Duration::from_hours(180 * 24) {
        Notice::Warn
    } else {
        Notice::None
    }
}

/// The sentence about it.
pub fn about_end(role: Role, now: Timestamp, end: Timestamp) -> String {
    let issues = "nothing it has issued is accepted after that";
    match end.since(now).as_secs() / 86_400 {
        0 if end <= now => format!("the {role} authority ended {end}; {issues}"),
        days => format!("the {role} authority ends {end}, in {days} days; {issues}"),
    }
}

impl Keyring {
    /// Each authority with its end.
    pub fn ends(&self) -> [(Role, Timestamp); 3] {
        [
            (Role::Controller, &self.controller_ca),
            (Role::Agent, &self.agent_ca),
            (Role::Operator, &self.operator_ca),
        ]
        .map(|(role, authority)| (role, authority.not_after()))
    }

    /// Makes all keys of a new fleet.
    pub fn create(directory: &Path, fleet: FleetId, now: Timestamp) -> Result<Self, KeyringError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| KeyringError::Directory { path: directory.to_owned(), source })?;
        for role in [Role::Controller, Role::Agent, Role::Operator] {
            create_authority(directory, role, fleet, now)?;
        }
        create_signing_key(&directory.join("dispatch.key"))?;
        create_signing_key(&directory.join("audit.key"))?;
        Self::load(directory)
    }

    /// Loads all keys.
    pub fn load(directory: &Path) -> Result<Self, KeyringError> {
        Ok(Self {
            controller_ca: load_authority(directory, Role::Controller)?,
            agent_ca: load_authority(directory, Role::Agent)?,
            operator_ca: load_authority(directory, Role::Operator)?,
            dispatch: load_signing_key(&directory.join("dispatch.key"))?,
            audit: load_signing_key(&directory.join("audit.key"))?,
        })
    }

    /// Is each authority one that the bundle lists for its role? Files exchanged with each other would issue what
    /// nobody accepts.
    pub fn check(&self, bundle: &TrustBundle) -> Result<(), KeyringError> {
        for (role, authority, listed) in [
            (Role::Controller, &self.controller_ca, &bundle.controller_authorities),
            (Role::Agent, &self.agent_ca, &bundle.agent_authorities),
            (Role::Operator, &self.operator_ca, &bundle.operator_authorities),
        ] {
            if !listed.contains(&authority.listed()) {
                return Err(KeyringError::NotListed(role));
            }
        }
        Ok(())
    }

    /// A fresh server certificate with its key, both in memory only.
    pub fn server_identity(
        &self,
        name: (FleetId, ControllerId),
        server_names: &[String],
        now: Timestamp,
        life: Duration,
    ) -> Result<TlsIdentity, KeyringError> {
        let boxed = |e: Box<dyn std::error::Error + Send + Sync>| KeyringError::Issue(e);
        let key = PrivateKey::generate().map_err(|e| boxed(e.into()))?;
        let requested = RequestedKey::of(&key).map_err(|e| boxed(e.into()))?;
        let issued = issue::controller(&self.controller_ca, name, server_names, &requested, now, life)
            .map_err(|e| boxed(e.into()))?;
        Ok(TlsIdentity::new(issued.chain, &key))
    }

    /// The authority's statement about the dispatch key.
    pub fn dispatch_statement(
        &self,
        fleet: FleetId,
        controller: ControllerId,
        now: Timestamp,
    ) -> Result<SignedDispatch, KeyringError> {
        let statement = DispatchStatement {
            fleet,
            controller,
            key: self.dispatch.public(),
            not_before: now.minus(BACK_DATED),
            not_after: now.plus(DISPATCH_LIFE),
        };
        dispatch::certify(&self.controller_ca, &statement).map_err(|e| KeyringError::Issue(e.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestContext;

    #[test]
    fn the_end_of_an_authority_is_told_half_a_year_before() {
        let end: Timestamp = "2036-11-22T12:00:00Z".parse().unwrap();
        let before = |days: u64| end.minus(Duration::from_hours(days * 24));
        let at = |days| notice(before(days), end);
        assert_eq!(
            [at(181), at(180), at(31), at(30), at(0)],
            [Notice::None, Notice::Warn, Notice::Warn, Notice::Urgent, Notice::Urgent]
        );
        assert!(about_end(Role::Agent, before(90), end).contains("the agent authority ends"));
        assert!(about_end(Role::Agent, before(90), end).contains("in 90 days"));
        assert!(about_end(Role::Agent, end.plus(Duration::from_secs(1)), end).contains("ended"));
    }

    #[tokio::test]
    async fn authorities_exchanged_with_each_other_are_refused_by_name() {
        let test = TestContext::new().await;
        let bundle = test.context.identities.trust.get().0.clone();
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::create(
            folder.path(),
            test.context.identities.fleet.fleet,
            test.context.storage.clock.now(),
        );
        assert!(matches!(keyring.unwrap().check(&bundle), Err(KeyringError::NotListed(Role::Controller))));
        test.context.identities.keyring.check(&bundle).unwrap();
        let swapped = TrustBundle {
            agent_authorities: bundle.operator_authorities.clone(),
            operator_authorities: bundle.agent_authorities.clone(),
            ..bundle
        };
        assert!(matches!(
            test.context.identities.keyring.check(&swapped),
            Err(KeyringError::NotListed(Role::Agent))
        ));
    }
}
