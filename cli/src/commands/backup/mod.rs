//! `backup`.
//!
//! `list` shows archives, `which` finds the one that is meant, `diff` compares two by their listings.

mod diff;
mod list;
mod which;

pub use diff::diff;
pub use list::list;
