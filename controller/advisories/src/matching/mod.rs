//! Which advisories concern which node, and why.
//!
//! For: the controller, which matches all nodes after an import and one after its report. Must never: compare versions
//! of two distributions, releases or package managers, or say "fixed" of what still runs.
//!
//! | file | holds |
//! |---|---|
//! | `index` | affected packages by distribution, release and name |
//! | `kernel` | which package the running kernel is |
//! | `finding` | an advisory on a node: how it stands there |
//! | `find` | all findings of one node |
//! | `explain` | why a finding matched, in words |

mod explain;
mod find;
mod finding;
mod index;
mod kernel;

pub use find::{Findings, OldFilesUnknown, find};
pub use finding::{Finding, Standing};
pub use index::Index;
pub use kernel::newest_kernel;
