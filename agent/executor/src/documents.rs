//! Signed documents and requests by digest, kept on disk so that a job can go on without a controller.
//!
//! The name of a file is the digest of the payload in it, and that is checked on every load: what lies on
//! the disk is believed no more than what came over the wire. Whose signature it bears is policy's
//! business. Owned by the dispatcher.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use fleet_proto::convert;
use fleet_types::digest::Digest;
use fleet_types::seal::Envelope;

use crate::durable;
use crate::retention::{ACKNOWLEDGED_REPORTS, SPARE_DOCUMENTS};

/// An envelope is refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not an envelope.
    #[error("the document cannot be read: {0}")]
    Malformed(String),
    /// Another payload than asked for.
    #[error("asked for {expected}, the document's digest is {found}")]
    Digest {
        /// Asked for.
        expected: Digest,
        /// Found.
        found: Digest,
    },
    /// The file system refused.
    #[error("the document store failed: {0}")]
    Io(#[source] io::Error),
}

impl DocumentError {
    /// Was there no room for it?
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io(error) if durable::is_full(error))
    }
}

/// The store.
#[derive(Debug)]
pub struct DocumentStore {
    directory: PathBuf,
}

impl DocumentStore {
    /// Opens or makes the store.
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        durable::make_private_directory(&directory)?;
        Ok(Self { directory })
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.directory.join(digest.to_string())
    }

    /// The envelope with this payload digest; none when it is not here or not what its name says.
    pub fn load(&self, digest: Digest) -> Option<Envelope> {
        let bytes = durable::read_if_there(&self.path(digest)).ok().flatten()?;
        match open_envelope(&bytes, digest) {
            Ok(envelope) => Some(envelope),
            Err(error) => {
                tracing::warn!(%digest, %error, "a stored document is damaged and is fetched again");
                None
            }
        }
    }

    /// Checks and keeps an envelope that was asked for by digest.
    pub fn store(&self, digest: Digest, bytes: &[u8]) -> Result<Envelope, DocumentError> {
        let envelope = open_envelope(bytes, digest)?;
        durable::write_atomically(&self.path(digest), bytes).map_err(DocumentError::Io)?;
        Ok(envelope)
    }

    /// Removes an envelope whose signature was refused: the same payload may come again, better signed.
    pub fn remove(&self, digest: Digest) {
        if let Err(error) = fs::remove_file(self.path(digest)) {
            tracing::warn!(%digest, %error, "a refused document cannot be removed");
        }
    }

    /// Removes the oldest documents that no job in `used` names, down to a bound.
    pub fn tidy(&self, used: &BTreeSet<Digest>) -> io::Result<()> {
        durable::keep_newest(&self.directory, SPARE_DOCUMENTS, |name| is_among(used, name))
    }
}

/// Does the file's name stand for one of these?
fn is_among(digests: &BTreeSet<Digest>, name: &str) -> bool {
    name.parse::<Digest>().is_ok_and(|digest| digests.contains(&digest))
}

fn open_envelope(bytes: &[u8], digest: Digest) -> Result<Envelope, DocumentError> {
    let envelope: Envelope =
        convert::json("envelope", bytes).map_err(|error| DocumentError::Malformed(error.why))?;
    let found = envelope.digest();
    if found != digest {
        return Err(DocumentError::Digest { expected: digest, found });
    }
    Ok(envelope)
}

/// How long an assignment waits for its documents: the controller offers it again after this time
/// (security-and-delivery §2.7), so waiting longer helps nobody.
pub const DOCUMENT_WAIT: Duration = Duration::from_secs(30);

/// Where a report's bytes are kept until the controller has them.
#[derive(Debug)]
pub struct ReportStore {
    directory: PathBuf,
    reserve: durable::Reserve,
}

/// A report's bytes with their signature, as they are sent.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredReport {
    /// JSON of the report, made once.
    #[serde(with = "fleet_types::seal::base64_bytes")]
    pub payload: Vec<u8>,
    /// The report key's signature.
    #[serde(with = "fleet_types::seal::base64_bytes")]
    pub signature: Vec<u8>,
}

impl ReportStore {
    /// Opens or makes the store.
    pub fn open(directory: PathBuf, reserve: durable::Reserve) -> io::Result<Self> {
        durable::make_private_directory(&directory)?;
        Ok(Self { directory, reserve })
    }

    /// Keeps a report under its digest, from the reserve if the disk is full.
    pub fn store(&self, digest: Digest, report: &StoredReport) -> io::Result<()> {
        let bytes = serde_json::to_vec(report)?;
        self.reserve.with_room(|| durable::write_atomically(&self.directory.join(digest.to_string()), &bytes))
    }

    /// The report with this digest.
    pub fn load(&self, digest: Digest) -> Option<StoredReport> {
        let bytes = durable::read_if_there(&self.directory.join(digest.to_string())).ok().flatten()?;
        let report: StoredReport = serde_json::from_slice(&bytes).ok()?;
        (Digest::of(&report.payload) == digest).then_some(report)
    }

    /// Removes the oldest reports that are not in `unsent`, down to a bound.
    pub fn tidy(&self, unsent: &BTreeSet<Digest>) -> io::Result<()> {
        durable::keep_newest(&self.directory, ACKNOWLEDGED_REPORTS, |name| is_among(unsent, name))
    }

    /// Makes the reserve again where there is room for it.
    pub fn make_reserve_again(&self) {
        self.reserve.make_again();
    }
}

#[cfg(test)]
mod tests {
    use fleet_types::id::FleetId;
    use fleet_types::seal::{Kind, SigningKey};

    use super::*;

    #[test]
    fn a_document_is_checked_when_it_comes_and_when_it_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let store = DocumentStore::open(directory.path().join("documents")).unwrap();
        let fleet = FleetId::from_uuid(uuid::Uuid::from_u128(1));
        let sealed = SigningKey::generate().unwrap().0.seal(Kind::Document, fleet, b"{}".to_vec());
        let bytes = convert::to_json(&sealed);
        let digest = sealed.digest();
        assert!(matches!(store.store(Digest::of(b"x"), &bytes), Err(DocumentError::Digest { .. })));
        assert!(matches!(store.store(digest, b"[]"), Err(DocumentError::Malformed(_))));
        assert_eq!(store.store(digest, &bytes).unwrap(), sealed);
        assert_eq!(store.load(digest), Some(sealed));
        let path = store.path(digest);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("e30=", "e31=")).unwrap();
        assert_eq!(store.load(digest), None);
    }
}
