//! What lies beside a dump: whose it is, what the server was, and how many rows each table had.
//!
//! A dump in `PostgreSQL`'s custom format has no room for a label, and nobody but `pg_restore` reads it; the manifest is written
//! before the dump gets its name, so that a dump that has its name has its manifest. Called by backups, restores and retention.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use fleet_types::digest::{Digest, Hasher};
use fleet_types::listing::{self, Entry, EntryKind};
use serde::{Deserialize, Serialize};

use crate::host::{FileError, FileProblem, Files, read_all};
use crate::tasks::archive::{Label, Summary};
use crate::tasks::archive_error::ArchiveError;
use crate::tasks::deadline::Deadline;

/// Schema of the manifest.
const SCHEMA: &str = "fleet/v1/dump";
/// Largest manifest: a hundred thousand tables.
const MAX_MANIFEST_BYTES: u64 = 16 * 1024 * 1024;
/// Read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// How a database was made: what `CREATE DATABASE` needs to make one that takes the dump.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::tasks) struct Origin {
    /// Name of the database.
    pub(in crate::tasks) database: String,
    /// `server_version_num` of the server.
    pub(in crate::tasks) server: u32,
    /// Its encoding.
    pub(in crate::tasks) encoding: String,
    /// `LC_COLLATE`.
    pub(in crate::tasks) collate: String,
    /// `LC_CTYPE`.
    pub(in crate::tasks) ctype: String,
    /// The locale of ICU, where that is its provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::tasks) icu: Option<String>,
    /// Its owner.
    pub(in crate::tasks) owner: String,
    /// Bytes on the server's disk.
    pub(in crate::tasks) bytes: u64,
}

/// The manifest of a dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::tasks) struct DumpManifest {
    schema: String,
    /// Whose it is.
    pub(in crate::tasks) label: Label,
    /// Bytes of the dump.
    pub(in crate::tasks) size: u64,
    /// Its digest.
    pub(in crate::tasks) sha256: Digest,
    /// What was dumped.
    pub(in crate::tasks) origin: Origin,
    /// Tables whose rows are in it.
    pub(in crate::tasks) tables: usize,
    /// Rows of each table, counted in the dump's own snapshot; none where nobody rehearses restores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::tasks) rows: Option<BTreeMap<String, u64>>,
}

impl DumpManifest {
    /// The manifest of a dump that was written.
    pub(super) fn new(
        label: &Label,
        (size, sha256): (u64, Digest),
        origin: Origin,
        tables: usize,
        rows: Option<BTreeMap<String, u64>>,
    ) -> Self {
        Self { schema: SCHEMA.to_owned(), label: label.clone(), size, sha256, origin, tables, rows }
    }

    /// The same in the words of archives.
    pub(super) fn summary(&self) -> Summary {
        Summary {
            size: self.size,
            sha256: self.sha256,
            files: self.tables,
            content: self.origin.bytes,
            links: 0,
            same: 0,
            left_out: Vec::new(),
            label: self.label.clone(),
            listing: self.rows.as_ref().map(|rows| {
                let tables: Vec<Entry> = rows.iter().map(|(name, rows)| table(name, *rows)).collect();
                listing::write(self.sha256, &tables)
            }),
        }
    }
}

fn table(name: &str, rows: u64) -> Entry {
    let (mode, owner, sha256, target) = (None, None, None, None);
    Entry { kind: EntryKind::Table, mode, owner, size: rows, sha256, path: name.to_owned(), target }
}

/// Where the manifest of a dump lies.
pub(in crate::tasks) fn manifest_beside(dump: &Path) -> PathBuf {
    let mut name = dump.file_name().unwrap_or_default().to_owned();
    name.push(".manifest.json");
    dump.with_file_name(name)
}

/// The manifest of a dump; none where the file is no dump of ours.
pub(in crate::tasks) fn manifest_of(
    files: &dyn Files,
    dump: &Path,
) -> Result<Option<DumpManifest>, FileError> {
    let beside = manifest_beside(dump);
    let bytes = match read_all(files, &beside, MAX_MANIFEST_BYTES) {
        Err(error) if error.problem == FileProblem::NotFound => return Ok(None),
        other => other?,
    };
    let manifest: Option<DumpManifest> = serde_json::from_slice(&bytes).ok();
    Ok(manifest.filter(|manifest| manifest.schema == SCHEMA))
}

/// Size and digest of a file.
pub(super) fn digest(
    files: &dyn Files,
    path: &Path,
    deadline: Deadline<'_>,
) -> Result<(u64, Digest), ArchiveError> {
    let mut file = files.open(path)?;
    let (mut size, mut hasher) = (0, Hasher::new());
    let mut chunk = vec![0; BUFFER_BYTES];
    loop {
        deadline.check()?;
        match file.read(&mut chunk).map_err(|e| FileError::of("read", path, &e))? {
            0 => return Ok((size, hasher.finish())),
            count => {
                hasher.update(&chunk[..count]);
                size += count as u64;
            }
        }
    }
}

/// Is the dump, to its last byte, what was checked when it was made?
pub(in crate::tasks) fn verify(
    files: &dyn Files,
    path: &Path,
    manifest: &DumpManifest,
    deadline: Deadline<'_>,
) -> Result<Summary, ArchiveError> {
    let found = digest(files, path, deadline)?;
    if found == (manifest.size, manifest.sha256) {
        return Ok(manifest.summary());
    }
    let why = format!(
        "it has {} bytes of digest {}, its manifest says {} of {}",
        found.0, found.1, manifest.size, manifest.sha256
    );
    Err(ArchiveError::Damaged { path: path.to_owned(), why })
}
