//! The agent's configuration: raw, merged, validated; three steps, three types (examples.md 25).
//!
//! | module | holds |
//! |---|---|
//! | [`raw`] | one source (defaults, file, environment, flags) as settings with their places |
//! | [`merged`] | the layers on top of each other |
//! | [`validated`] | [`Config`], the only type that travels through the program |
//! | [`timers`] | the protocol's timers |
//! | [`problem`] | what is wrong and where, all of it at once |
//!
//! Read once at start, before any socket is opened. Never read again while running, and never by the
//! executor, which is handed its part.

pub mod merged;
pub mod problem;
pub mod raw;
pub mod timers;
pub mod validated;

pub use problem::{ConfigError, Problem};
pub use timers::Timers;
pub use validated::{Config, Endpoint, LogFormat};
