//! Named fleets: `config.toml`, and beside it each context's identity, keys and audit mark.
//!
//! ```text
//! <config dir>/                 0700; FLEET_CONFIG_DIR, else ~/.config/fleet
//!   config.toml                 0600: contexts, and which is current
//!   lock                        held while a file of this folder is read, changed and replaced
//!   contexts/<name>/            0700
//!     lock                      the same of this folder
//!     identity/                 certificate and key (fleet-certs, two slots)
//!     content-key.pem           0600: Ed25519, signs documents and requests; never leaves this machine
//!     root-keys.json            the fleet's root keys, whose pin was in the invite
//!     audit-mark.json           0600: what was last seen of the audit log
//!     seen.json                 0600: newest documents and ids of nodes that were seen
//! ```
//!
//! Files are replaced atomically. Nothing here talks to a controller.

mod audit_mark;
mod edit;
mod file;
mod keys;
mod seen;
mod store;

pub use audit_mark::{AuditMark, Mark};
pub use file::{ConfigFile, ContextEntry};
pub use keys::{CONTENT_KEY, load_signing_key, make_or_load_content_key};
pub use seen::{Revision, Seen, Sighting};
pub use store::{Context, ContextStore, ROOT_KEYS};
