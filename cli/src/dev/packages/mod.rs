//! Packages of a development fleet: the stand-in of the firewall as real Debian packages, in a signed archive of the
//! fleet's own, and what makes a node's private root a system that apt and dpkg work on.
//!
//! Everything is made once a fleet by the machine's own `dpkg-deb`, `dpkg` and `gpg`, without root rights; the packages and
//! databases of the machine are never looked at. Where these programs are not, a fleet does without packages and says so.
//! Used by [`super::run()`], and by tests for nodes with packages.
//!
//! | module | holds |
//! |---|---|
//! | [`product`] | what is in each version |
//! | [`archive`] | the archive: built, listed, signed; and how a root gets its database |
//! | [`programs`] | which programs that takes, and how they are called |
//! | [`installed`] | what of a node's packages can be compared |

pub mod archive;
pub mod installed;
pub mod product;
pub mod programs;
