//! The subcommands, one file each. The only place that knows both core and executor.
//!
//! On a real machine the two halves are two processes: `run` and `enrol` are the executor's half, as root, and
//! start `core`, the other one, under its own account (`core_process`). Below a development root one process
//! holds both (docs/adr/0011).
//!
//! Commands print data to standard output and talk on standard error, and fail with an exit code that has a
//! meaning ([`crate::error::Exit`]).

mod accept_damage;
mod console;
mod core;
mod core_process;
mod dispatch;
mod enrol;
mod guard;
mod journal;
mod run;
mod settings;
mod signals;
mod status;
mod stop_units;
mod version;

pub use dispatch::dispatch;
