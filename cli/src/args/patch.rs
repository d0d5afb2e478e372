//! Commands around patches and advisories.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use fleet_types::id::Name;
use fleet_types::package_version::PackageFormat;
use fleet_types::time::Span;

use super::parse;

/// `patch`.
#[derive(Debug, Subcommand)]
pub enum PatchCommand {
    /// List what must be patched, by CVE, the earliest end first; -l, --site and --node narrow it down.
    List,
    /// Show one CVE: its nodes, how it stands on each, and until when it must be gone.
    Show {
        /// The CVE, or the id of an advisory.
        id: String,
    },
    /// Show how deadlines stand, in all and a node: late, at risk, held, unknown, in time.
    Sla,
    /// Say whether deadlines can be held, ring by ring as a rollout policy says, if nothing fails. Starts nothing.
    ///
    /// Counts what can be installed now; who is offline does not get done. Exit code 6 when a deadline would be missed.
    Plan {
        /// The applied rollout policy.
        #[arg(long, value_name = "NAME")]
        policy: Name,
        /// How long a node takes.
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse::span)]
        takes: Span,
    },
    /// Let a finding stay for a while on the chosen nodes: somebody answers for it. Signed; its clock runs on below.
    Hold {
        /// The CVE, or the id of an advisory.
        id: String,
        /// For how long, at most 92d.
        #[arg(long = "for", value_name = "DURATION", value_parser = parse::span)]
        length: Span,
        /// Who answers for it [default: you].
        #[arg(long, value_name = "NAME")]
        owner: Option<String>,
        /// The risk is taken, instead of being put off.
        #[arg(long)]
        waive: bool,
    },
    /// End a hold: name the finding and the nodes as they were held.
    Release {
        /// The CVE, or the id of an advisory.
        id: String,
    },
    /// List what is held, by whom, why and until when; what ends next stands first.
    Holds,
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

/// `advisory`.
#[derive(Debug, Subcommand)]
pub enum AdvisoryCommand {
    /// Import files of advisories: OSV (a document, or a zip of them), Debian's tracker, CISA KEV, EPSS, score lines.
    ///
    /// All of them count, or none. What one origin gave before is replaced, that of others stays. Of a folder, files that end in
    /// json, jsonl, csv, zip and gz are taken.
    Import {
        /// Files and folders.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Whose they are, where several origins use one form: debian makes osv:debian.
        #[arg(long, value_name = "NAME", default_value = "")]
        source: String,
        /// Let a source become less than half of what it was.
        #[arg(long)]
        allow_shrink: bool,
    },
    /// List the sources: how old they are, and what of them was not used.
    List,
    /// Show one advisory.
    Show {
        /// Its id, such as DSA-5532-1.
        id: String,
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
