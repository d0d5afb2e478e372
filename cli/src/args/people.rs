//! Commands about the people of a fleet.

use std::path::PathBuf;

use clap::Subcommand;
use fleet_types::digest::Digest;
use fleet_types::id::Name;
use fleet_types::time::Span;
use fleet_types::trust::OperatorRole;

use super::parse;

/// `operator`.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Make an invite with which a person signs in, once. It is shown once.
    Invite {
        /// Their name in the fleet.
        name: Name,
        /// viewer, auditor, operator, approver or security-admin.
        #[arg(long, value_name = "ROLE")]
        role: OperatorRole,
        /// How long the invite is good for, at most 24h.
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse::validity)]
        valid_for: Span,
    },
    /// List everybody: role, whether nodes take what they sign, until when.
    List,
    /// Let nodes take what a person signs who has signed in. Wants a --reason.
    Admit {
        /// Their name.
        name: Name,
        /// Their content key, as fleetctl login told them; not as the controller tells.
        #[arg(long, value_name = "KEY")]
        key: Digest,
        /// A root key of the fleet, where the list is not left to you.
        #[arg(long, value_name = "FILE")]
        root_key: Option<PathBuf>,
    },
    /// Show the change of the trust bundle that waits for signatures, and sign it.
    Approve {
        /// A root key of the fleet, where root keys sign it.
        #[arg(long, value_name = "FILE")]
        root_key: Option<PathBuf>,
    },
    /// Shut a person out for good: their certificates open nothing, nodes refuse what they signed. Wants a --reason.
    Revoke {
        /// Their name.
        name: Name,
        /// A root key of the fleet, where the list is not left to you.
        #[arg(long, value_name = "FILE")]
        root_key: Option<PathBuf>,
    },
    /// Leave it to security-admins, for a while, whose signatures nodes take. Wants a --reason.
    Delegate {
        /// Security-admins.
        #[arg(value_name = "NAME", required_unless_present = "nobody")]
        names: Vec<Name>,
        /// Take it back.
        #[arg(long, conflicts_with = "names")]
        nobody: bool,
        /// How many of them sign for somebody new; one is always enough to take somebody away [default: 2, or 1 of 1].
        #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = |text: &str| parse::number(text, 1..=10))]
        threshold: Option<u32>,
        /// For how long, at most 90d.
        #[arg(long = "for", value_name = "DURATION", default_value = "90d", value_parser = parse::delegation)]
        length: Span,
        /// A root key of the fleet.
        #[arg(long, value_name = "FILE")]
        root_key: PathBuf,
    },
}
