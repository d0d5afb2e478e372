//! Packages with the node's own dpkg and apt: real packages, a real archive and a real database, below a root of their own.
//! Needs a Debian or a child of it; without `dpkg-deb`, `apt-get` or `gpg` these tests fail and say so.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod archives;
mod lab;
#[path = "../support/step.rs"]
mod step;
mod upgrades;
mod way_back;
