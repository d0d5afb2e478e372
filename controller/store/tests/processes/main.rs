//! The sled store in real processes: killed, on full disks, in use by another one, damaged.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests; the exemption reaches only test functions"
)]

mod damage;
mod full_disk;
mod in_use;
#[path = "../support/keys.rs"]
mod keys;
mod kill;
mod torture;
