//! Reading what origins publish: whole or not at all.
//!
//! For: the controller and `fleetctl`, which hand in files as bytes. An import gives a set and a list of what it did not use
//! and why, or it gives every file that is broken, and then nothing of it counts.
//! Must never: half-import, follow a reference, or unpack or keep more than its limits.
//!
//! | file | holds |
//! |---|---|
//! | `importer` | the files of one import, and their end |
//! | `kind` | what a file is, by what it holds |
//! | `limits` | how much of everything is read |
//! | `json` | JSON without doubled keys |
//! | `skipped` | what was not used, counted by reason |
//! | `osv` | a document of OSV |
//! | `tracker` | the security tracker of Debian |
//! | `exploited` | CISA's list of what is known to be exploited |
//! | `epss` | FIRST's estimates of what will be |
//! | `score_lines` | scores of CVEs, a line of JSON each |
//! | `parts` | parts by origin, and several put together |
//! | `unpack` | zip archives and gzip |

mod epss;
mod exploited;
mod importer;
mod json;
mod kind;
mod limits;
mod osv;
mod parts;
mod score_lines;
mod skipped;
mod tracker;
mod unpack;

pub use epss::Epss;
pub use exploited::Exploited;
pub use importer::{AdvisorySet, Imported, Importer, Refusal, Refused};
pub use limits::Limits;
pub use parts::Part;
pub use skipped::Skipped;
