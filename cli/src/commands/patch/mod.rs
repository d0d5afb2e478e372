//! `fleetctl patch`: what is needed, and by when.
//!
//! | file | holds |
//! |---|---|
//! | `lines` | answering each line of the input by one line |
//! | `needed` | `patch list`, `patch show`, `patch sla` |
//! | `holds` | `patch hold`, `patch release`, `patch holds` |
//! | `plan` | `patch plan` |
//! | `score` | `patch score` |
//! | `compare` | `patch compare-versions` |

mod compare;
mod holds;
mod lines;
mod needed;
mod plan;
mod score;

pub use compare::compare_versions;
pub use holds::{What, hold, list as list_holds, release};
pub use needed::{in_words, list, show, sla, tone};
pub use plan::plan;
pub use score::score;
