//! Configuration in three steps: raw as written, merged over the defaults, validated. Only the last travels.
//!
//! | file | what lives there |
//! |---|---|
//! | `default.toml` | every key with its default and what it means, embedded |
//! | [`raw`] | the file's shape |
//! | [`valid`] | merging and checking; all problems at once |

pub mod raw;
pub mod valid;

pub use valid::{Config, ConfigError, LogFormat};
