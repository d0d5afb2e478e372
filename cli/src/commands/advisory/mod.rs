//! `fleetctl advisory`: what is published.
//!
//! | file | holds |
//! |---|---|
//! | `import` | `advisory import` |
//! | `show` | `advisory list`, `advisory show` |

mod import;
mod show;

pub use import::{Words, import};
pub use show::{list, show};
