//! The embedded backend: one sled tree, one writer thread.
//!
//! For one controller with a local disk. The only place that names sled, whose weaknesses are known and fenced in
//! (security-and-delivery §4): it must never use `flush_async`, `watch_prefix`, transactions or a second tree, and
//! never acknowledge what is not on the disk. Past about 5 GB move to `PostgreSQL`.
//!
//! | file | what lives there |
//! |---|---|
//! | `store` | [`SledStore`]: the contract, in front of readers and writer |
//! | `settings` | [`SledSettings`] with its defaults and why they are so |
//! | `opening` | from a directory to a running store; schema version |
//! | `log_check` | at start: do counters and newest records of the logs agree |
//! | `group_state` | number of the last group, count of the keys |
//! | `mark` | how many groups are durable, noted outside sled |
//! | `probe` | opening first in a process that may die of the damage |
//! | `writer` | the one thread that commits groups |
//! | `visible` | what readers see: durable values only |
//! | `failure` | an error of sled ends the store for good |
//! | `watchdog` | a writer that is stuck ends the process |
//! | `space`, `directory` | floor of free space; the files beside sled's own |

mod directory;
mod failure;
mod group_state;
mod log_check;
mod mark;
mod opening;
mod probe;
mod settings;
mod space;
mod store;
mod visible;
mod watchdog;
mod writer;

pub use opening::open_with_probe;
pub use probe::{PROBE_EXIT_DAMAGED, ProbeReport, probe, run_probe};
pub use settings::{SledSettings, StuckAction, abort_process};
pub use space::free_bytes;
pub use store::SledStore;
