//! The agent's configuration: raw, merged, validated; three steps, three types (examples.md 25).
//!
//! | module | holds |
//! |---|---|
//! | [`raw`] | one source (defaults, file, environment, flags) as settings with their places |
//! | [`merged`] | the layers on top of each other |
//! | [`validated`] | [`Config`], the only type that travels through the program |
//! | [`owners_file`] | the file as the executor trusts it: its owner's and nobody else's |
//! | [`timers`] | the protocol's timers |
//! | [`problem`] | what is wrong and where, all of it at once |
//!
//! Read once at start, before any socket is opened. Of a running agent only `[policy]` is read again, whenever it counts,
//! by what the executor is handed for that.

pub mod merged;
pub mod owners_file;
pub mod problem;
pub mod raw;
pub mod timers;
pub mod validated;

pub use problem::{ConfigError, Problem};
pub use timers::Timers;
pub use validated::{Config, Endpoint, LogFormat};
