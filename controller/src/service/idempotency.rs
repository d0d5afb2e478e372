//! The same mutating call twice has one effect and the same answer (security-and-delivery §2.3).
//!
//! The answer is stored in the very commit that makes it true, under operator and key. The same key with
//! other arguments is an error: it would hide a mistake in the caller.

use fleet_store::Batch;
use fleet_types::digest::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::caller::Operator;
use crate::context::Storage;
use crate::error::{ControllerError, Kind, Result};
use crate::repo::answers::{self, IdempotencyRecord};
use crate::repo::reader::BatchExt as _;

/// Longest key that is taken; UUIDs have 36 characters.
const MAX_KEY_BYTES: usize = 128;

/// A call's key and arguments.
pub struct Once {
    key: Option<fleet_store::Key>,
    arguments: Digest,
}

impl Once {
    /// For a call of an operator. An empty key means that the caller does not ask for it.
    pub fn new(caller: &Operator, key: &str, method: &str, arguments: &[&[u8]]) -> Result<Self> {
        if key.len() > MAX_KEY_BYTES {
            return Err(ControllerError::invalid("idempotency_key", "longer than 128 bytes"));
        }
        let lengths: Vec<[u8; 8]> = arguments.iter().map(|a| (a.len() as u64).to_be_bytes()).collect();
        let mut parts: Vec<&[u8]> = vec![method.as_bytes(), b"\n"];
        for (argument, length) in arguments.iter().zip(&lengths) {
            parts.push(length);
            parts.push(argument);
        }
        let stored = (!key.is_empty())
            .then(|| answers::key(caller.record.id, &Digest::of(key.as_bytes())))
            .transpose()?;
        Ok(Self { key: stored, arguments: Digest::of_parts(&parts) })
    }

    /// The answer given before, if this call was made before.
    pub async fn answer<T: DeserializeOwned>(&self, storage: &Storage) -> Result<Option<T>> {
        let Some(key) = &self.key else { return Ok(None) };
        let Some(stored) = storage.repo.object_record::<IdempotencyRecord>(key).await? else {
            return Ok(None);
        };
        if stored.arguments != self.arguments {
            return Err(ControllerError::new(
                Kind::Conflict,
                "idempotency-key-reused",
                "this idempotency key was used for a call with other arguments",
            )
            .fix("use a new key for a new call"));
        }
        serde_json::from_value(stored.answer).map(Some).map_err(ControllerError::internal)
    }

    /// Stores the answer with the change.
    pub fn store<T: Serialize>(&self, storage: &Storage, batch: Batch, answer: &T) -> Result<Batch> {
        let Some(key) = &self.key else { return Ok(batch) };
        let answer = serde_json::to_value(answer).map_err(ControllerError::internal)?;
        let record = IdempotencyRecord { arguments: self.arguments, answer, at: storage.clock.now() };
        // An object, since answers may be long: applying a profile with its procedures lists every warning.
        batch.if_absent(key.clone()).put_object_record(key, &record)
    }
}
