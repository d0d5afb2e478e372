//! `backup`.
//!
//! `list` shows archives, `which` finds the one that is meant, `diff` compares two by their listings, `fetch` brings the
//! encrypted copy of one.

mod diff;
mod fetch;
mod list;
mod which;

pub use diff::diff;
pub use fetch::fetch;
pub use list::list;
