//! What every backend promises, tried on each of them: the suite, random histories, and a store that fails by seed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests; the exemption reaches only test functions"
)]

mod conformance;
mod faulty;
mod faulty_store;
#[path = "../support/keys.rs"]
mod keys;
mod memory;
mod model;
mod sled;
