//! What is published: advisories, the scores of each CVE, and what is known to be exploited.
//!
//! For: the importer, which makes them, and everything that asks. Must never: hold what was not read from an origin.
//!
//! | file | holds |
//! |---|---|
//! | `cve` | an id of a CVE |
//! | `distribution` | whose packages: distribution and release, from the names that origins use |
//! | `model` | an advisory: packages and the versions that are affected |
//! | `range` | which versions those are |
//! | `scores` | several scores of one CVE, and the one that counts |

mod cve;
mod distribution;
mod model;
mod range;
mod scores;

pub use cve::{BadCve, Cve};
pub use distribution::{Distribution, Ecosystem};
pub use model::{Advisory, Affected, KnownBy};
pub(crate) use range::Event;
pub use range::{End, Range, RangeProblem};
pub use scores::{CveScores, GivenScore};
