//! The versions of packages, as dpkg and rpm read and order them.
//!
//! For: the agent, which tells an upgrade from a downgrade, and the controller and `fleetctl`, which match
//! advisories. One order for all of them, or a node and the controller disagree about what is fixed.
//! Must never: guess. What the package manager does not take is refused with its reason.
//!
//! | file | holds |
//! |---|---|
//! | `format` | which of the two, and their common calls |
//! | `dpkg` | `deb-version(7)`, Debian policy 5.6.12 |
//! | `rpm` | epoch, version and release, `rpmvercmp` with tilde and caret |

pub mod dpkg;
mod format;
pub mod rpm;

pub use format::{MAX_VERSION_BYTES, PackageFormat, VersionProblem};
