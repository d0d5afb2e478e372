//! The journal: what this node accepted, began, ended and was told, in append-only frames.
//!
//! Every entry is on disk before the act that it announces (security-and-delivery §2.5). The journal never
//! decides anything and never sends anything. Written by the dispatcher and by runs; read at start only, into
//! a [`JobTable`].

mod contents;
mod entry;
mod file;
pub(crate) mod frame;
mod numbers;
mod record;
mod table;
mod versions;

pub use entry::{Accepted, BootTime, Entry, Finished};
pub use file::{Journal, JournalError, JournalLock, Opened};
#[cfg(test)]
pub(crate) use frame::encode as encode_frame;
pub use record::{JobKey, JobRecord, StepRecord};
pub use table::JobTable;
