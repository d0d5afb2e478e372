//! `fleetctl patch`: what is needed, and by when.
//!
//! | file | holds |
//! |---|---|
//! | `lines` | answering each line of the input by one line |
//! | `score` | `patch score` |
//! | `compare` | `patch compare-versions` |

mod compare;
mod lines;
mod score;

pub use compare::compare_versions;
pub use score::score;
