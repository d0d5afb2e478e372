//! What can go wrong in a store, and what to do about it.
//!
//! The variants tell callers what they need to decide: did the write happen, may I try again, must the process
//! end. They must never carry stored values. Every backend maps its library's errors to these.

use std::path::PathBuf;

use thiserror::Error;

use crate::batch::WriteId;
use crate::key::Key;

/// An error of the store. Each text says what happened, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// A precondition did not hold. Nothing was written. Read the key again and decide anew.
    #[error("key {key} is not as the writer expected; read it again and decide anew")]
    Conflict {
        /// A key whose precondition failed.
        key: Key,
    },

    /// The store does not answer, or is closed, or has failed for good. A commit that gets this was not written.
    #[error("store is not available: {reason}")]
    Unavailable {
        /// What is wrong, where, and what to do.
        reason: String,
    },

    /// The commit was under way when the store failed: it may have been written or not. Read back by write id
    /// before going on ([`crate::resolve_outcome`]).
    #[error(
        "outcome of commit {write_id} is unknown: {reason}; read it back by its write id before going on"
    )]
    OutcomeUnknown {
        /// The id of the commit in question.
        write_id: WriteId,
        /// What happened.
        reason: String,
    },

    /// Stored bytes are damaged.
    #[error("store is damaged: {what}; stop the controller and restore the newest backup")]
    Corrupt {
        /// What is damaged and where.
        what: String,
    },

    /// A key, value, record, batch or object is over its limit. Nothing was written.
    #[error("{what} has {actual}, the limit is {limit}; split it")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size, in the unit of the limit.
        actual: usize,
        /// The limit.
        limit: usize,
    },

    /// The file system of the store is below its floor of free space. Reads go on; nothing was written.
    #[error(
        "file system of {} has {free_bytes} bytes free, the store needs more than {floor_bytes}; free some space",
        path.display()
    )]
    Full {
        /// The store's directory.
        path: PathBuf,
        /// Free bytes seen.
        free_bytes: u64,
        /// The floor.
        floor_bytes: u64,
    },

    /// Another process uses the store's directory.
    #[error("store directory {} is in use by another process; stop that one, or choose another directory", path.display())]
    Busy {
        /// The store's directory.
        path: PathBuf,
    },

    /// The store was written by a newer program.
    #[error(
        "store has schema version {found}, this program knows versions up to {known}; start the newer program"
    )]
    NewerVersion {
        /// The version that was found.
        found: u32,
        /// The highest version this program knows.
        known: u32,
    },

    /// The caller asked for something that no store can do. Nothing was written. It is a defect of the caller,
    /// or of a setting where the text names one.
    #[error("request to the store is invalid: {reason}")]
    Invalid {
        /// What is wrong with the request.
        reason: String,
    },
}

impl StoreError {
    /// Whether a commit that got this error certainly left no trace. Only [`StoreError::OutcomeUnknown`] may have.
    pub fn certainly_not_written(&self) -> bool {
        !matches!(self, Self::OutcomeUnknown { .. })
    }

    /// Whether a precondition failed: the caller reads again and decides anew.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unknown_outcome_may_have_been_written() {
        let key = Key::new("a").unwrap();
        assert!(StoreError::Conflict { key }.certainly_not_written());
        let unknown =
            StoreError::OutcomeUnknown { write_id: WriteId::from_bytes([7; 16]), reason: "x".into() };
        assert!(!unknown.certainly_not_written());
    }

    #[test]
    fn texts_say_what_where_and_what_to_do() {
        let full = StoreError::Full { path: "/var/lib/fleet".into(), free_bytes: 5, floor_bytes: 9 };
        assert_eq!(
            full.to_string(),
            "file system of /var/lib/fleet has 5 bytes free, the store needs more than 9; free some space"
        );
        let newer = StoreError::NewerVersion { found: 3, known: 1 };
        assert_eq!(
            newer.to_string(),
            "store has schema version 3, this program knows versions up to 1; start the newer program"
        );
    }
}
