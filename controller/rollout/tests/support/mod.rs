//! What the tests of the engine share.
#![allow(dead_code, unused_imports)] // Each test file uses its part.

mod agent;
mod plans;
mod random;
mod world;

pub use plans::*;
pub use random::Random;
pub use world::World;
