//! What the tests of the engine share.
#![allow(dead_code, unused_imports)] // Each test file uses its part.

mod plans;

pub use plans::*;
