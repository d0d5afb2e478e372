//! The guard: a change that can cut the node off is put back unless a new connection to a controller confirms it in time.
//!
//! | file | holds |
//! |---|---|
//! | `order` | what is to be put back, complete in itself |
//! | `pending` | the folder of one guarded change: order, deadline, decision, result; the one place where keeping and undoing exclude each other |
//! | `watch` | the guard's own loop, in a process of its own |
//! | `undo` | carrying the order out, by the tasks that the executor uses |
//! | `keeper` | the executor's side: arming, looking after the guard, letting go |
//! | `process` | starting the guard's process |
//!
//! Source: security-and-delivery §2.10, docs/adr/0026. The guard opens no connection and asks nobody: the executor
//! confirms, and a guard that hears nothing puts back. It outlives the agent, and a restart of the machine undoes at once.

mod keeper;
mod order;
mod pending;
mod process;
mod undo;
mod watch;

pub use keeper::{Keeper, StartGuard};
pub use order::{GuardOrder, ORDER_VERSION, UndoEntry};
pub use pending::{Console, Deadline, Decision, Pending};
pub use process::GuardProgram;
pub use undo::put_back;
pub use watch::{Watched, watch, watch_all};
