//! Commands that look at nodes, backups and the audit log.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fleet_types::id::Name;
use fleet_types::time::Span;

use super::parse;

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// One node instead of the fleet.
    pub name: Option<Name>,
}

/// `node`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes; -l, --site and --node narrow it down.
    List,
    /// Show one node: facts, health, newest jobs.
    Show {
        /// The node's name.
        name: Name,
    },
    /// Show what packages a node has, what its archives have that is newer, and which services still run old files.
    Packages {
        /// The node's name.
        name: Name,
        /// Only those with a newer version, or with old files in use.
        #[arg(long)]
        newer: bool,
    },
    /// Give a node no more work; what it has begun goes on. Wants a --reason.
    Hold {
        /// The node's name.
        name: Name,
    },
    /// Give a node that is held work again, as it is now. Wants a --reason.
    Release {
        /// The node's name.
        name: Name,
    },
    /// Let a node take links again that it refuses as older than one seen before. Wants a --reason.
    ResetFence {
        /// The node's name.
        name: Name,
        /// A root key of the fleet: nodes believe nobody else about this.
        #[arg(long, value_name = "FILE")]
        root_key: PathBuf,
    },
    /// Take a node's record and certificate away; its name is free again. Wants a --reason.
    Remove {
        /// The node's name.
        name: Name,
    },
}

/// `cert`.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// List the certificates of operators and nodes: whose, until when, and what they are worth.
    List,
    /// Shut a node or an operator out for good: none of their certificates opens anything any more. Wants a --reason.
    Revoke {
        /// Whose: node/NAME or operator/NAME.
        #[arg(value_name = "HOLDER")]
        holder: String,
    },
}

/// `join-token`.
#[derive(Debug, Subcommand)]
pub enum JoinTokenCommand {
    /// Create a node's record and a token with which it joins, once. The token is shown once.
    Create {
        /// Name of the node that will join.
        name: Name,
        /// A label of the node, such as site=fra1; may be given several times.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse::label)]
        labels: Vec<(String, String)>,
        /// Give a node that has not joined yet these labels instead of those it has.
        #[arg(long)]
        replace_labels: bool,
        /// How long the token is good for, at most 24h.
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse::validity)]
        valid_for: Span,
    },
}

/// `backup`.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// List the archives on the nodes, as their reports say; -l, --site and --node narrow it down.
    List,
    /// Show what differs between two archives, of one node or of two; no node is asked.
    ///
    /// NODE/BACKUP is the newest archive; NODE/BACKUP@WHEN another one, by its day (2026-11-28, UTC), its run or the
    /// beginning of its digest.
    Diff {
        /// An archive; alone, it is compared with the one before it.
        #[arg(value_name = "NODE/BACKUP[@WHEN]")]
        from: String,
        /// The archive that it is compared with.
        #[arg(value_name = "NODE/BACKUP[@WHEN]")]
        to: Option<String>,
        /// Exit with 20 where something differs.
        #[arg(long)]
        detailed_exitcode: bool,
    },
    /// Write the encrypted copy of an archive into a file; its owners decrypt it with age.
    Fetch {
        /// The archive.
        #[arg(value_name = "NODE/BACKUP[@WHEN]")]
        archive: String,
        /// The file, which must not be there yet [default: ./NODE-BACKUP-TIME.age].
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

/// `audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List records, newest first.
    List {
        /// Most records to list.
        #[arg(long, value_name = "N", default_value_t = 50, allow_negative_numbers = true, value_parser = |text: &str| parse::number(text, 1..=100_000))]
        limit: u32,
        /// Only actions that begin with this, such as run. or job.
        #[arg(long, value_name = "PREFIX", default_value = "")]
        action: String,
        /// Only objects that begin with this, such as node/fw-1.
        #[arg(long, value_name = "PREFIX", default_value = "")]
        object: String,
    },
    /// Read every record and check that the log is whole and only ever grew.
    Verify {
        /// Check the nodes' signatures over their reports too; reads every job's report.
        #[arg(long)]
        reports: bool,
    },
}
