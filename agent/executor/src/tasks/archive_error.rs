//! Why there is no archive, or no good one, and how a task ends by it. Called by the tasks on backups.

use std::io;
use std::path::{Path, PathBuf};

use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;

use super::contract::TaskError;
use super::database::DatabaseError;
use super::deadline::Halt;
use super::part::{bounded, problem};
use crate::host::{FileError, FileProblem};

/// Why there is no archive, or no good one.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file was not the same at its end as at its beginning.
    #[error("{} changed while it was read", .0.display())]
    Changed(PathBuf),
    /// The archive cannot be written.
    #[error("the archive cannot be written: {0}")]
    Write(#[source] io::Error),
    /// The archive is not what it should be.
    #[error("the archive {}: {why}", path.display())]
    Damaged {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// What is in it is not valid; the report has all that is wrong.
    #[error("{0}; nothing was put in place")]
    Invalid(String),
    /// The database server, or one of its programs.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// It had to stop.
    #[error(transparent)]
    Halted(#[from] Halt),
}

impl ArchiveError {
    /// The end of a task on `subject`, with what was found until then.
    pub(super) fn end(self, subject: &str, mut report: TaskReport) -> TaskError {
        let plain = Path::new(subject);
        let (code, of) = match &self {
            Self::Halted(halt) => return halt.end(report),
            Self::Database(_) | Self::Invalid(_) => ("", plain),
            Self::File(error) if error.problem == FileProblem::Full => ("disk_full", error.path.as_path()),
            Self::File(error) => ("unreadable_file", error.path.as_path()),
            Self::Changed(path) => ("changed_file", path.as_path()),
            Self::Write(error) if error.kind() == io::ErrorKind::StorageFull => ("disk_full", plain),
            Self::Damaged { path, .. } => ("damaged_backup", path.as_path()),
            Self::Write(_) => ("backup_failed", plain),
        };
        if let Self::Database(error) = self {
            return error.end(subject, report);
        }
        if !code.is_empty() {
            report.problems.push(problem(Severity::High, code, of.display().to_string(), self.to_string()));
        }
        let message = format!("{subject} failed: {self}");
        report.summary.clone_from(&message);
        TaskError::failed(message, bounded(report))
    }
}
