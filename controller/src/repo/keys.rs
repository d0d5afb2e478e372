//! How the text of a key is made, for the files of the aggregates and for nobody else: a key is built in the file of
//! what lies under it.
//!
//! Ids are written in their canonical text, so that keys can be read by people and sort as ids do: run ids
//! and version 7 UUIDs by time.

use fleet_store::{Key, StoreError};

/// A key, or why it is none.
pub type Made = Result<Key, StoreError>;

/// A key of its text.
pub fn make(text: String) -> Made {
    Key::new(text.into_bytes())
}
