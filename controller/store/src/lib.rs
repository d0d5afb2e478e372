//! The key-value contract of the controller and its backends.
//!
//! Everything the controller keeps goes through [`KvStore`]: ordered byte keys, small values, one atomic
//! commit with preconditions. This crate knows nothing of nodes, jobs or audit records, and nothing outside
//! it may name a backend's library (security-and-delivery §4.8). Only the controller's `repo` layer builds
//! keys and calls it.
//!
//! | file | what lives there |
//! |---|---|
//! | [`contract`] | the trait, what every backend promises, the limits |
//! | [`key`], [`batch`], [`error`] | keys and log names; what one commit asks for; what can go wrong and what to do |
//! | [`outcome`] | after "outcome unknown": was it written? |
//! | [`chunks`] | objects larger than one value |
//! | [`mod@open`] | a URL becomes a store |
//! | [`memory_store`], [`sled_store`] | the backends |
//! | `envelope`, `commit_plan`, `scan_range` | shared by the backends: bytes at rest, rules of a commit, bounds of a page |

pub mod batch;
pub mod chunks;
mod commit_plan;
pub mod contract;
mod envelope;
pub mod error;
pub mod key;
pub mod memory_store;
pub mod open;
pub mod outcome;
mod scan_range;
pub mod sled_store;

pub use batch::{Append, Batch, Committed, Op, Precondition, WriteId};
pub use contract::{Direction, Entry, KvStore, MAX_BATCH_OPERATIONS, MAX_VALUE_BYTES};
pub use error::StoreError;
pub use key::{Key, LogName};
pub use memory_store::MemoryStore;
pub use open::open;
pub use outcome::{Evidence, Outcome, commit_resolved, resolve_outcome};
pub use sled_store::{SledSettings, SledStore, free_bytes};
