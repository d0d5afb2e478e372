//! The subcommands, one file each. The only place that knows both core and executor.
//!
//! Commands print data to standard output and talk on standard error, and fail with an exit code that has a
//! meaning ([`crate::error::Exit`]).

mod dispatch;
mod enrol;
mod journal;
mod run;
mod settings;
mod status;
mod stop_units;
mod version;

pub use dispatch::dispatch;
