//! A version in front of every stored value.
//!
//! The first byte is the version of the record's shape, the rest its JSON. A program that meets a newer
//! version than it knows refuses by name (security-and-delivery §2.8); older shapes are read for ever.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::ControllerError;

/// A record with its place in the history of shapes.
pub trait Record: Serialize + DeserializeOwned {
    /// Its word in messages.
    const WHAT: &'static str;
    /// The newest shape this program writes and reads.
    const VERSION: u8;

    /// Brings a body of `version` to the next one, in place. Fields that were added need no version: they have a
    /// default.
    fn upgrade(_version: u8, _body: &mut Value) {}
}

/// Says that a type is a record, by its word and its newest version.
macro_rules! record {
    ($name:ident, $what:literal, $version:literal) => {
        impl $crate::repo::codec::Record for $name {
            const WHAT: &'static str = $what;
            const VERSION: u8 = $version;
        }
    };
}
pub(super) use record;

/// A stored value cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// No bytes.
    #[error("a {0} record is empty; the store is damaged: restore a backup")]
    Empty(&'static str),
    /// Written by a newer program.
    #[error("a {what} record has version {found}, this program knows up to {known}; start the newer program")]
    Newer {
        /// Which record.
        what: &'static str,
        /// Its version.
        found: u8,
        /// Newest version known.
        known: u8,
    },
    /// Not of the shape.
    #[error("a {what} record cannot be read; the store is damaged: restore a backup")]
    Malformed {
        /// Which record.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl From<CodecError> for ControllerError {
    fn from(error: CodecError) -> Self {
        Self::internal(error)
    }
}

/// Bytes of a record.
pub fn encode<R: Record>(record: &R) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![R::VERSION];
    serde_json::to_writer(&mut bytes, record)
        .map_err(|source| CodecError::Malformed { what: R::WHAT, source })?;
    Ok(bytes)
}

/// A record from its bytes.
pub fn decode<R: Record>(bytes: &[u8]) -> Result<R, CodecError> {
    let (version, body) = bytes.split_first().ok_or(CodecError::Empty(R::WHAT))?;
    if *version > R::VERSION {
        return Err(CodecError::Newer { what: R::WHAT, found: *version, known: R::VERSION });
    }
    let malformed = |source| CodecError::Malformed { what: R::WHAT, source };
    if *version == R::VERSION {
        return serde_json::from_slice(body).map_err(malformed);
    }
    let mut body = serde_json::from_slice(body).map_err(malformed)?;
    (*version..R::VERSION).for_each(|version| R::upgrade(version, &mut body));
    serde_json::from_value(body).map_err(malformed)
}

/// An empty record whose key says it all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {}
record!(Mark, "mark", 1);
