//! What this machine last saw of a fleet's audit log, so that a shrunk or rewritten log shows even when
//! the controller's own figures agree with each other (security-and-delivery §3.5).

use std::path::Path;

use fleet_certs::files::{self, FileError};
use fleet_types::digest::Digest;
use fleet_types::id::FleetId;
use serde::{Deserialize, Serialize};

use super::store::{locked, write};
use crate::error::{ExitCode, Failure};

/// Most marks that are kept. When there are more, every second goes, so that a file of a log of any size
/// stays under 64 KiB, and a bad record is still named to within 1/256 of the log.
const MAX_MARKS: usize = 512;

/// Sizes of the log with their roots, as seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditMark {
    /// The log.
    pub log: FleetId,
    /// Rising sizes; the last one is the size of the whole log when it was last verified.
    pub marks: Vec<Mark>,
}

/// The root over the first `size` records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Number of records.
    pub size: u64,
    /// Root over them.
    pub root: Digest,
}

impl AuditMark {
    /// The mark of a context; none before the first verification.
    pub fn load(path: &Path) -> Result<Option<Self>, Failure> {
        match files::read_text(path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| {
                let what = format!("{} cannot be read", path.display());
                Failure::new(ExitCode::Verification, "audit-mark", what).because(&error).fix(
                    "restore it from a backup; without it, a rewritten log cannot be told from a new one",
                )
            }),
            Err(FileError::Missing { .. }) => Ok(None),
            Err(error) => {
                Err(Failure::new(ExitCode::Verification, "audit-mark", error.to_string()).because(&error))
            }
        }
    }

    /// Keeps a verified log's marks, thinned out, unless more of it was verified meanwhile.
    pub fn save(mut self, path: &Path) -> Result<(), Failure> {
        while self.marks.len() > MAX_MARKS {
            let last = self.marks.len() - 1;
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 0 || index - 1 == last
            });
        }
        let bytes = serde_json::to_vec(&self)
            .map_err(|error| Failure::unexpected("the audit mark cannot be made", &error))?;
        locked(path, || {
            let seen = Self::load(path)?.filter(|seen| seen.log == self.log);
            if seen.is_some_and(|seen| seen.size() > self.size()) {
                return Ok(());
            }
            write(path, &bytes)
        })
    }

    fn size(&self) -> u64 {
        self.marks.last().map_or(0, |mark| mark.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_thinned_out_and_the_last_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit-mark.json");
        assert_eq!(AuditMark::load(&path).unwrap(), None);
        let log = FleetId::from_uuid(uuid::Uuid::from_u128(1));
        let marks = (1..=2001).map(|size| Mark { size, root: Digest::of(&[0]) }).collect();
        AuditMark { log, marks }.save(&path).unwrap();
        let read = AuditMark::load(&path).unwrap().unwrap();
        assert!(
            read.marks.len() <= MAX_MARKS && read.marks.last().unwrap().size == 2001,
            "{}",
            read.marks.len()
        );
        assert!(read.marks.windows(2).all(|pair| pair[0].size < pair[1].size));
        assert!(std::fs::metadata(&path).unwrap().len() < files::MAX_FILE_BYTES);
        // A check that began earlier and ends later knows less.
        let earlier = vec![Mark { size: 7, root: Digest::of(&[0]) }];
        AuditMark { log, marks: earlier }.save(&path).unwrap();
        assert_eq!(AuditMark::load(&path).unwrap().unwrap().size(), 2001);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(AuditMark::load(&path).unwrap_err().exit.number(), 12);
    }
}
