//! `fleetctl patch`: what is needed, and by when.
//!
//! | file | holds |
//! |---|---|
//! | `lines` | answering each line of the input by one line |
//! | `needed` | `patch list`, `patch show`, `patch sla` |
//! | `score` | `patch score` |
//! | `compare` | `patch compare-versions` |

mod compare;
mod lines;
mod needed;
mod score;

pub use compare::compare_versions;
pub use needed::{in_words, list, show, sla, tone};
pub use score::score;
