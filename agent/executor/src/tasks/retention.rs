//! Which archives of a backup go. The decision is pure; finding and removing them is below it.
//!
//! Never the last good one: the caller names the newest archive that was verified, and it stays whatever the
//! rules say. Only archives that say themselves that they are of this backup are ever touched.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_types::digest::Digest;
use fleet_types::document::placeholder::{Piece, pieces};
use fleet_types::document::profile::{Backup, Keep};
use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;
use fleet_types::time::Timestamp;

use super::archive::{self, Label};
use super::archive_error::ArchiveError;
use super::contract::{TaskContext, TaskError};
use super::database::manifest_beside;
use super::deadline::Deadline;
use super::fill::{Filler, glob};
use super::part::{change, problem};
use crate::host::{FileError, FileKind, FileProblem, Files, Glob, walk, write_atomic};

/// An archive on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// Where it lies, without links.
    pub(super) path: PathBuf,
    /// Bytes.
    pub(super) size: u64,
    /// Whose it is.
    pub(super) label: Label,
}

/// Which archives go, as indices. `made` is newest first; `last_good` is the index of the newest archive that
/// was verified. Nothing goes where none is good.
pub(super) fn doomed(
    made: &[Timestamp],
    last_good: Option<usize>,
    keep: &Keep,
    now: Timestamp,
) -> Vec<usize> {
    let Some(last_good) = last_good else { return Vec::new() };
    let too_many =
        |index: usize| keep.count.map(|count| index >= usize::try_from(count).unwrap_or(usize::MAX));
    let too_old = |index: usize| {
        keep.days.map(|days| now.since(made[index]) > Duration::from_secs(u64::from(days) * 86_400))
    };
    (0..made.len())
        .filter(|index| *index != last_good)
        .filter(|index| match (too_many(*index), too_old(*index)) {
            (None, None) => false,
            (many, old) => many.unwrap_or(true) && old.unwrap_or(true),
        })
        .collect()
}

/// The folder of a backup and the pattern of its archives' names: what differs between archives is `*`.
pub(super) fn pattern(context: &TaskContext<'_>, id: &str, backup: &Backup) -> Result<Glob, TaskError> {
    let what = format!("backup {id}");
    let filler = Filler::new(context);
    let directory = filler.path(&what, &backup.directory)?;
    let mut name = String::new();
    for piece in pieces(&backup.file_name).map_err(|e| TaskError::Declared(format!("{what}: {e}")))? {
        match piece {
            Piece::Text(text) => name.push_str(text),
            Piece::Name("timestamp" | "date" | "yesterday" | "run.id" | "job.id") => name.push('*'),
            Piece::Name(other) => name.push_str(&filler.text(&what, &format!("{{{other}}}"))?),
        }
    }
    if name.contains('/') || name.starts_with('.') {
        return Err(TaskError::Declared(format!("{what}: file_name {name} is no plain name")));
    }
    glob(&what, &directory.join(name))
}

/// Archives of a backup, newest first.
pub(super) fn list(context: &TaskContext<'_>, id: &str, backup: &Backup) -> Result<Vec<Kept>, TaskError> {
    let files = context.host.files();
    let failed = |e: FileError| TaskError::failed(format!("backup {id}: {e}"), TaskReport::default());
    let mut kept = Vec::new();
    for found in walk(files, &pattern(context, id, backup)?).map_err(failed)? {
        if found.stat.kind != FileKind::Regular {
            continue;
        }
        let label = archive::label(files, &found.path).map_err(failed)?;
        if let Some(label) = label.filter(|label| label.backup == id && label.node == context.step.node) {
            kept.push(Kept { path: found.path, size: found.stat.size, label });
        }
    }
    kept.sort_by(|a, b| b.label.made.cmp(&a.label.made).then_with(|| b.path.cmp(&a.path)));
    Ok(kept)
}

/// The newest archive that reads back whole. Damaged ones before it are findings.
pub(super) fn last_good(
    files: &dyn Files,
    kept: &[Kept],
    deadline: Deadline<'_>,
    report: &mut TaskReport,
) -> Result<Option<usize>, TaskError> {
    for (index, one) in kept.iter().enumerate() {
        match archive::verify(files, &one.path, deadline) {
            Ok(_) => return Ok(Some(index)),
            Err(ArchiveError::Halted(halt)) => return Err(halt.end(std::mem::take(report))),
            Err(error) => {
                let shown = one.path.display().to_string();
                report.problems.push(problem(Severity::High, "damaged_backup", shown, error.to_string()));
            }
        }
    }
    Ok(None)
}

/// Removes archives with what lies beside them. The archive goes first: a checksum without an archive is
/// harmless, an archive without its checksum is not.
pub(super) fn remove(files: &dyn Files, doomed: &[&Kept], report: &mut TaskReport) -> Result<u64, FileError> {
    let mut freed = 0;
    for one in doomed {
        files.remove_file(&one.path)?;
        for beside in [checksum_beside(&one.path), manifest_beside(&one.path)] {
            match files.remove_file(&beside) {
                Err(error) if error.problem != FileProblem::NotFound => return Err(error),
                _ => {}
            }
        }
        files.sync_directory(one.path.parent().unwrap_or(Path::new("/")))?;
        freed += one.size;
        let shown = one.path.display().to_string();
        report.changes.push(change(
            shown,
            "deleted",
            format!("{} bytes of {}", one.size, one.label.made),
            "",
        ));
    }
    Ok(freed)
}

/// Where the checksum of an archive lies.
pub(super) fn checksum_beside(archive: &Path) -> PathBuf {
    let mut name = archive.file_name().unwrap_or(OsStr::new("")).to_owned();
    name.push(".sha256");
    archive.with_file_name(name)
}

/// As `sha256sum` writes it, so that people can check it by hand.
pub(super) fn write_checksum(files: &dyn Files, path: &Path, sha256: Digest) -> Result<(), FileError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let line = format!("{sha256}  {name}\n");
    write_atomic(files, &checksum_beside(path), line.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 86_400_000;

    fn at(days_ago: i64) -> Timestamp {
        Timestamp::clamped(1_763_820_131_000 - days_ago * DAY)
    }

    #[test]
    fn both_rules_must_agree_where_both_are_given() {
        let made: Vec<_> = [0, 1, 2, 40, 50].into_iter().map(at).collect();
        let go = |days, count| doomed(&made, Some(0), &Keep { days, count }, at(0));
        assert_eq!(go(Some(30), None), [3, 4]);
        assert_eq!(go(None, Some(2)), [2, 3, 4]);
        assert_eq!(go(Some(30), Some(2)), [3, 4]);
        assert_eq!(go(Some(45), Some(2)), [4]);
        assert_eq!(go(Some(1), Some(4)), [4]);
        assert!(go(None, None).is_empty());
    }

    proptest! {
        #[test]
        fn the_last_good_one_never_goes(
            mut ages in proptest::collection::vec(0i64..400, 0..20),
            good in proptest::option::of(0usize..20),
            days in proptest::option::of(0u32..60),
            count in proptest::option::of(0u32..10),
        ) {
            ages.sort_unstable();
            let made: Vec<_> = ages.iter().map(|age| at(*age)).collect();
            let good = good.filter(|good| *good < made.len());
            let gone = doomed(&made, good, &Keep { days, count }, at(0));
            match good {
                None => prop_assert!(gone.is_empty()),
                Some(good) => prop_assert!(!gone.contains(&good)),
            }
            if let Some(count) = count {
                prop_assert!(gone.iter().all(|index| *index >= count as usize));
            }
        }
    }
}
