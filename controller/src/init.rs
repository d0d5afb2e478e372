//! Making a fleet: authorities, keys, the first trust bundle, the first operator's invite.
//!
//! Nothing half-done stays: the fleet exists once its record is committed; files made before that are
//! taken away again when a later step fails. The root key is written where the operator says, never below
//! the controller's own directory, and is not needed by the controller again (security-and-delivery §1.2).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleet_certs::files;
use fleet_certs::token::{Token, TokenKind};
use fleet_store::KvStore;
use fleet_types::audit::Actor;
use fleet_types::id::{ControllerId, FleetId, Generation, Name};
use fleet_types::trust::{BUNDLE_SCHEMA, OperatorRole, RootKeys, TrustBundle};

use crate::clock::Clock;
use crate::keyring::{Keyring, create_signing_key};
use crate::repo::audited::{AuditEntry, AuditedCommits};
use crate::repo::fleet::{self, FleetRecord};
use crate::repo::reader::{BatchExt as _, Repo};
use crate::repo::tokens::{self, InviteRecord};

/// The first invite lives longer than a join token: the person may have to come to the console.
const INVITE_LIFE: Duration = Duration::from_hours(24);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct InitRequest {
    /// Name of the fleet.
    pub name: Name,
    /// Name of the first operator.
    pub operator: Name,
    /// The controller's directory.
    pub data_directory: PathBuf,
    /// Where the root key goes.
    pub root_key: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Made {
    /// The fleet.
    pub fleet: FleetId,
    /// The first operator's invite; shown once.
    pub invite: String,
}

/// Why no fleet was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is one.
    #[error("a fleet exists in {}", .0.display())]
    Exists(PathBuf),
    /// The root key would lie on the controller.
    #[error("the root key {} would lie below the controller's directory", .0.display())]
    RootKeyInside(PathBuf),
    /// A file is in the way.
    #[error("{} exists, and a root key is never overwritten", .0.display())]
    RootKeyExists(PathBuf),
    /// Keys cannot be made.
    #[error(transparent)]
    Keyring(#[from] crate::keyring::KeyringError),
    /// The store or a record failed.
    #[error(transparent)]
    Controller(#[from] crate::error::ControllerError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] fleet_store::StoreError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] files::FileError),
}

impl InitError {
    /// What to do.
    pub const fn fix(&self) -> &'static str {
        match self {
            Self::Exists(_) => "to begin anew, move that directory away",
            Self::RootKeyInside(_) => "write it elsewhere, with --root-key, and keep it offline",
            Self::RootKeyExists(_) => "choose another place with --root-key",
            Self::Keyring(_) | Self::File(_) => {
                "let this user write to the directory and the place of the root key"
            }
            Self::Controller(_) | Self::Store(_) => crate::app::FIX_STORE,
        }
    }
}

/// Takes files away again unless the fleet was made.
struct Cleanup(Vec<PathBuf>);

impl Drop for Cleanup {
    fn drop(&mut self) {
        for path in &self.0 {
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            if let Err(error) = removed
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!("{} could not be taken away: {error}", path.display());
            }
        }
    }
}

/// Is `path` below `directory`, as far as both can be resolved?
fn is_below(path: &Path, directory: &Path) -> bool {
    let resolve = |path: &Path| {
        let parent = path.parent().unwrap_or(path);
        parent
            .canonicalize()
            .map_or_else(|_| path.to_owned(), |p| p.join(path.file_name().unwrap_or_default()))
    };
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    resolve(path).starts_with(directory)
}

/// Makes a fleet in an empty store.
pub async fn init(store: Arc<dyn KvStore>, clock: &Clock, request: &InitRequest) -> Result<Made, InitError> {
    let repo = Repo::new(store);
    if repo.get::<FleetRecord>(&fleet::key()?).await?.is_some() {
        return Err(InitError::Exists(request.data_directory.clone()));
    }
    if is_below(&request.root_key, &request.data_directory) {
        return Err(InitError::RootKeyInside(request.root_key.clone()));
    }
    if request.root_key.exists() {
        return Err(InitError::RootKeyExists(request.root_key.clone()));
    }
    let fleet = FleetId::from_uuid(clock.uuid());
    let controller = ControllerId::from_uuid(clock.uuid());
    let now = clock.now();
    let pki = request.data_directory.join("pki");
    let mut cleanup = Cleanup(vec![pki.clone(), request.root_key.clone()]);
    let keyring = Keyring::create(&pki, fleet, now)?;
    let root = create_signing_key(&request.root_key)?;
    let roots = RootKeys { keys: vec![root.public()], threshold: 1 };
    let bundle = TrustBundle {
        schema: BUNDLE_SCHEMA.to_owned(),
        fleet,
        version: 1,
        issued: now,
        controller_authorities: vec![keyring.controller_ca.listed()],
        agent_authorities: vec![keyring.agent_ca.listed()],
        operator_authorities: vec![keyring.operator_ca.listed()],
        content_keys: vec![],
        audit_key: keyring.audit.public(),
        fence_resets: vec![],
        operator_key_authority: None,
    };
    let signed = bundle.sign(&root).map_err(crate::error::ControllerError::internal)?;
    let token = Token::generate(TokenKind::Operator, vec![keyring.controller_ca.pin()], roots.pin())
        .map_err(crate::error::ControllerError::internal)?;
    let invite = InviteRecord {
        name: request.operator.clone(),
        role: OperatorRole::SecurityAdmin,
        secret_hash: token.secret.stored(TokenKind::Operator, token.id),
        expires: now.plus(INVITE_LIFE),
        used: None,
        operator: None,
    };
    let record = FleetRecord {
        fleet,
        name: request.name.clone(),
        controller,
        generation: Generation::FIRST,
        roots,
        created: now,
    };
    let audited = AuditedCommits::new(repo, clock.clone(), fleet, controller, record.generation)?;
    let bundle_bytes = serde_json::to_vec(&signed).map_err(crate::error::ControllerError::internal)?;
    let batch = audited
        .batch()
        .create_record(fleet::key()?, &record)?
        .put_object(&fleet::trust_bundle()?, &bundle_bytes)?
        .create_record(tokens::invite(&token.id.to_string())?, &invite)?;
    let console = Actor {
        role: "console".to_owned(),
        id: String::new(),
        name: "init".to_owned(),
        certificate: None,
        address: String::new(),
    };
    let leaves = vec![
        AuditEntry::new(console.clone(), "fleet.init", format!("fleet/{fleet}"))
            .subject(fleet_types::digest::Digest::of(&signed.payload)),
        AuditEntry::new(console, "operator.invite", format!("operator/{}", request.operator)),
    ];
    audited.commit(batch, leaves).await?;
    cleanup.0.clear();
    Ok(Made { fleet, invite: token.expose() })
}
