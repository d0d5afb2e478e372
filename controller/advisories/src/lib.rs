//! What is needed where, and by when: scores, advisories, inventories, findings and their deadlines. Pure.
//!
//! For: the controller, which imports advisories and matches nodes, and `fleetctl`, which scores and compares without
//! a controller. Callers hand in bytes and the time.
//! Must never: open a file or a connection, read a clock, draw random numbers, write a log. Must never make up a score, a
//! version or a fix: what cannot be read is said, with its place.
//!
//! | module | holds |
//! |---|---|
//! | `cvss` | from a vector to a score and its band |

pub mod cvss;

/// The order and validity of package versions; they are with the types, because the agent needs them too.
pub use fleet_types::package_version as version;
