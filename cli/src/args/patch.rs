//! Commands around patches.

use clap::{Subcommand, ValueEnum};
use fleet_types::package_version::PackageFormat;

/// `patch`.
#[derive(Debug, Subcommand)]
pub enum PatchCommand {
    /// Score CVSS vectors (2.0, 3.0, 3.1, 4.0): one a line on stdin, one line of JSON each. Needs no controller.
    ///
    /// A line is answered by vector, version, `base_score` and severity, or by vector and error. For 4.0 the score is that of
    /// the whole vector. 2.0 is banded as 3.1 is: 9.0 and more is critical. Exit code 2 when a line was no vector.
    Score,
    /// Compare package versions: two a line on stdin, a tab between; `<`, `=` or `>` each. Needs no controller.
    ///
    /// A line that cannot be compared is answered by `error: …`, and the exit code is 2.
    CompareVersions {
        /// Whose versions they are.
        #[arg(long)]
        format: VersionFormat,
    },
}

/// The two package managers, as words on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VersionFormat {
    /// Debian and its relatives.
    Dpkg,
    /// Red Hat, SUSE and their relatives.
    Rpm,
}

impl From<VersionFormat> for PackageFormat {
    fn from(format: VersionFormat) -> Self {
        match format {
            VersionFormat::Dpkg => Self::Dpkg,
            VersionFormat::Rpm => Self::Rpm,
        }
    }
}
