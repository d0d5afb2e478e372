//! `fleet-agent run`: core and executor, joined by the socket pair only.
//!
//! | file | holds |
//! |---|---|
//! | `begin` | the command: what both ways of running share |
//! | `one_process` | both halves in one process, below a development root |
//! | `two_processes` | the executor as root, the core under its own account, started again when it dies |
//!
//! Stopping is a feature: on SIGTERM or Ctrl-C no new work is taken, the step under way ends within the grace
//! period, reports are flushed, and the exit code is 0. A second signal ends the process at once. SIGKILL at
//! any time is fine: the journal knows.

mod begin;
mod one_process;
mod two_processes;

pub use begin::{core_failure, run};
