//! `fleetctl operator`: the people of a fleet.
//!
//! `people` lists them and lets them in, `keys` says whose signatures nodes take: that is the trust bundle's to say, which
//! root keys sign, or those to whom they leave it.

mod keys;
mod people;

pub use keys::{Delegation, admit, approve, delegate, revoke};
pub use people::{invite, list};
