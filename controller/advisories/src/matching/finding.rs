//! An advisory on a node. Pure.

use serde::Serialize;

use crate::advisory::{Advisory, Affected};
use crate::inventory::{Available, Package};

/// An advisory that concerns a node, by the package in which it stands worst.
#[derive(Debug, Clone, Copy)]
pub struct Finding<'a> {
    /// The advisory.
    pub advisory: &'a Advisory,
    /// Its entry that matched.
    pub affected: &'a Affected,
    /// The installed package that matched.
    pub package: &'a Package,
    /// The version that was compared.
    pub version: &'a str,
    /// How it stands.
    pub standing: Standing<'a>,
    /// Whether the node said what its archives have.
    pub archives_known: bool,
}

/// How an advisory stands on a node, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Standing<'a> {
    /// The fix is installed; services still run what was there before.
    ServicesRunOldFiles {
        /// The version that they run.
        running: &'a str,
    },
    /// The fix is installed, and the kernel that runs is an older one.
    RebootPending {
        /// The package with the fixed kernel.
        installed: &'a str,
    },
    /// The fix is in the node's own archive.
    FixInArchive {
        /// The version there, and where it is.
        available: &'a Available,
    },
    /// The origin has published a fix, and the node's archive does not have it.
    FixNotInArchive {
        /// The version that the origin names.
        fixed: &'a str,
    },
    /// No fix is known.
    NoFix,
}

impl Standing<'_> {
    /// Worse ones are greater: what can be mended now is better than what cannot.
    pub(super) const fn rank(self) -> u8 {
        match self {
            Self::ServicesRunOldFiles { .. } => 0,
            Self::RebootPending { .. } => 1,
            Self::FixInArchive { .. } => 2,
            Self::FixNotInArchive { .. } => 3,
            Self::NoFix => 4,
        }
    }
}
