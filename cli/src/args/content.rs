//! Commands around documents.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fleet_types::document::DocumentKind;
use fleet_types::id::Name;

/// `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check files without a controller; every problem is listed. Exit code 2 when there is one.
    Validate {
        /// TOML files, or folders of them.
        #[arg(required = true, value_name = "FILE|FOLDER")]
        paths: Vec<PathBuf>,
    },
    /// Check, sign with your content key, and store; shows what would change and asks.
    Apply {
        /// TOML files, or folders of them.
        #[arg(required = true, value_name = "FILE|FOLDER")]
        paths: Vec<PathBuf>,
    },
    /// Show what apply would change, value by value. Changes nothing.
    Diff {
        /// TOML files, or folders of them.
        #[arg(required = true, value_name = "FILE|FOLDER")]
        paths: Vec<PathBuf>,
        /// Exit code 20 when there is a difference.
        #[arg(long)]
        detailed_exitcode: bool,
    },
    /// Lay files out in one form; values, comments and order stay. Needs no controller.
    Fmt {
        /// TOML files, or folders of them.
        #[arg(required = true, value_name = "FILE|FOLDER")]
        paths: Vec<PathBuf>,
        /// Write nothing; exit code 20 when a file is not laid out.
        #[arg(long)]
        check: bool,
    },
    /// Print the JSON Schema of a kind of document, for editors. Needs no controller.
    Schema {
        /// profile, procedure or schedule.
        kind: DocumentKind,
    },
}

/// `procedure`, `profile`, `schedule`.
#[derive(Debug, Subcommand)]
pub enum DocumentCommand {
    /// List what is applied.
    List,
    /// Show one as it was written.
    Show {
        /// Its name.
        name: Name,
        /// An older revision [default: the newest].
        #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = |text: &str| super::parse::number(text, 1..=u32::MAX))]
        revision: Option<u32>,
    },
}

/// `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// What to explain, such as schedule, schedule.misfire or procedure.step.uses; without it, what there is.
    #[arg(value_name = "KIND[.FIELD]", default_value = "", hide_default_value = true)]
    pub path: String,
}
