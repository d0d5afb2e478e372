//! Root keys and trust bundle on this node.
//!
//! The root keys come with enrolment and are never changed from the network. A bundle counts only when
//! enough of them signed it, or those to whom they leave the list of operators' keys, and it is not older than any seen
//! (security-and-delivery §1.2, §1.3). Owned by the dispatcher; [`install`] is called at enrolment.

use std::io;
use std::path::{Path, PathBuf};

use fleet_proto::convert;
use fleet_types::id::FleetId;
use fleet_types::trust::{RootKeys, SignedBundle, TrustBundle, TrustError};

use crate::durable;
use crate::state::{SmallState, StateError};

const ROOT_KEYS: &str = "root_keys.json";
const BUNDLE: &str = "trust_bundle.json";

/// Trust cannot be established.
#[derive(Debug, thiserror::Error)]
pub enum TrustStoreError {
    /// The file system refused.
    #[error("{path} cannot be read or written")]
    Io {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No root keys: the node is not enrolled.
    #[error("{0} is missing: enrol this node first")]
    NotEnrolled(String),
    /// A file or message is malformed.
    #[error("{what} cannot be understood: {why}")]
    Malformed {
        /// Which.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The bundle is refused.
    #[error("the trust bundle is refused")]
    Refused(#[source] TrustError),
    /// The version cannot be remembered.
    #[error("the version of the trust bundle cannot be kept")]
    State(#[source] StateError),
}

/// What this node believes in.
#[derive(Debug)]
pub struct TrustStore {
    directory: PathBuf,
    fleet: FleetId,
    roots: RootKeys,
    bundle: TrustBundle,
}

/// Writes what enrolment gave: the root keys, whose pin the join token held, and the first bundle.
pub fn install(
    directory: &Path,
    roots: &RootKeys,
    bundle: &SignedBundle,
    fleet: FleetId,
) -> Result<TrustBundle, TrustStoreError> {
    let opened = bundle.open(roots, fleet, 0).map_err(TrustStoreError::Refused)?;
    durable::make_private_directory(directory).map_err(|source| io_error(directory, source))?;
    for (name, bytes) in [(BUNDLE, convert::to_json(bundle)), (ROOT_KEYS, convert::to_json(roots))] {
        let path = directory.join(name);
        durable::write_atomically(&path, &bytes).map_err(|source| io_error(&path, source))?;
    }
    Ok(opened)
}

fn io_error(path: &Path, source: io::Error) -> TrustStoreError {
    TrustStoreError::Io { path: path.display().to_string(), source }
}

fn read(directory: &Path, name: &str) -> Result<Vec<u8>, TrustStoreError> {
    let path = directory.join(name);
    let read = durable::read_if_there(&path).map_err(|source| io_error(&path, source))?;
    read.ok_or_else(|| TrustStoreError::NotEnrolled(path.display().to_string()))
}

fn parse<T: serde::de::DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, TrustStoreError> {
    convert::json(what, bytes).map_err(|error| TrustStoreError::Malformed { what, why: error.why })
}

impl TrustStore {
    /// Reads and checks what enrolment left in `directory`.
    pub fn open(directory: &Path, fleet: FleetId, state: &mut SmallState) -> Result<Self, TrustStoreError> {
        let roots: RootKeys = parse("root_keys.json", &read(directory, ROOT_KEYS)?)?;
        let signed: SignedBundle = parse("trust_bundle.json", &read(directory, BUNDLE)?)?;
        let bundle =
            signed.open(&roots, fleet, state.get().bundle_version).map_err(TrustStoreError::Refused)?;
        state.raise_bundle(bundle.version).map_err(TrustStoreError::State)?;
        Ok(Self { directory: directory.to_owned(), fleet, roots, bundle })
    }

    /// The bundle in force.
    pub const fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// Takes a bundle from the controller if it is good and not older; durable before it counts.
    pub fn update(&mut self, bytes: &[u8], state: &mut SmallState) -> Result<(), TrustStoreError> {
        let signed: SignedBundle = parse("trust bundle", bytes)?;
        let bundle =
            signed.open_after(&self.roots, self.fleet, &self.bundle).map_err(TrustStoreError::Refused)?;
        let path = self.directory.join(BUNDLE);
        // The file first: a crash in between leaves a newer bundle than remembered, which is good.
        durable::write_atomically(&path, bytes).map_err(|source| io_error(&path, source))?;
        state.raise_bundle(bundle.version).map_err(TrustStoreError::State)?;
        self.bundle = bundle;
        Ok(())
    }
}
