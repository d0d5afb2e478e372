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
//! | `advisory` | what is published: packages, ranges, scores |
//! | `import` | reading it, whole or not at all |
//! | `inventory` | what is on a node |
//! | `matching` | which advisory concerns which node, and why |
//! | `clock` | until when it must be gone |

pub mod advisory;
pub mod clock;
pub mod cvss;
pub mod import;
pub mod inventory;
pub mod matching;

/// The order and validity of package versions; they are with the types, because the agent needs them too.
pub use fleet_types::package_version as version;
