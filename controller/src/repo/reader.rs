//! Typed reads over the store, and the puts that go with them. Decides nothing.

use std::sync::Arc;

use fleet_store::{Batch, Direction, Key, KvStore, StoreError, WriteId, chunks};
use fleet_types::digest::Digest;

use super::codec::{self, Record};
use crate::error::Result;

/// A record with the id of the commit that wrote it: the token for changing it.
#[derive(Debug, Clone)]
pub struct Stored<R> {
    /// The record.
    pub record: R,
    /// Its version.
    pub write_id: WriteId,
}

/// Typed access to the store.
#[derive(Clone)]
pub struct Repo {
    store: Arc<dyn KvStore>,
}

/// Entries of a page; one screen and one step of a scan.
pub const PAGE: usize = 500;

impl Repo {
    /// Over a store.
    pub fn new(store: Arc<dyn KvStore>) -> Self {
        Self { store }
    }

    /// The store itself, for the audited commits and the health check.
    pub fn store(&self) -> &Arc<dyn KvStore> {
        &self.store
    }

    /// One record.
    pub async fn get<R: Record>(&self, key: &Key) -> Result<Option<Stored<R>>> {
        let Some(entry) = self.store.get(key).await? else { return Ok(None) };
        Ok(Some(Stored { record: codec::decode(&entry.value)?, write_id: entry.write_id }))
    }

    /// The id of the commit that wrote a key last: the token for replacing an object.
    pub async fn write_id(&self, key: &Key) -> Result<Option<WriteId>> {
        Ok(self.store.get(key).await?.map(|entry| entry.write_id))
    }

    /// A page of records under a prefix.
    pub async fn page<R: Record>(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<(Key, Stored<R>)>> {
        let entries = self.store.scan(prefix.as_bytes(), after, limit, direction).await?;
        entries
            .into_iter()
            .map(|(key, entry)| {
                Ok((key, Stored { record: codec::decode(&entry.value)?, write_id: entry.write_id }))
            })
            .collect()
    }

    /// Every record under a prefix, page by page; for starts and single runs, never for a screen.
    pub async fn all<R: Record>(&self, prefix: &str) -> Result<Vec<(Key, Stored<R>)>> {
        let mut all: Vec<(Key, Stored<R>)> = Vec::new();
        loop {
            let page = self.page(prefix, all.last().map(|(key, _)| key), PAGE, Direction::Ascending).await?;
            let last = page.len() < PAGE;
            all.extend(page);
            if last {
                return Ok(all);
            }
        }
    }

    /// An object that may be larger than one value; checked against its digest.
    pub async fn object(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        let Some(object) = chunks::get_object(self.store.as_ref(), key).await? else { return Ok(None) };
        if Digest::of(&object.bytes) != Digest::from_bytes(object.digest) {
            return Err(StoreError::Corrupt {
                what: format!("the object at {key} does not match its digest"),
            }
            .into());
        }
        Ok(Some(object.bytes))
    }

    /// A record stored as an object.
    pub async fn object_record<R: Record>(&self, key: &Key) -> Result<Option<R>> {
        Ok(self.object(key).await?.map(|bytes| codec::decode(&bytes)).transpose()?)
    }
}

/// Puts that know records.
pub trait BatchExt: Sized {
    /// Creates a record that must not exist.
    fn create_record<R: Record>(self, key: Key, record: &R) -> Result<Self>;
    /// Replaces a record that must be as it was read.
    fn replace_record<R: Record>(self, key: Key, seen: WriteId, record: &R) -> Result<Self>;
    /// Sets a record whatever it was.
    fn put_record<R: Record>(self, key: Key, record: &R) -> Result<Self>;
    /// Sets an object.
    fn put_object(self, key: &Key, bytes: &[u8]) -> Result<Self>;
    /// Sets a record as an object.
    fn put_object_record<R: Record>(self, key: &Key, record: &R) -> Result<Self>;
}

impl BatchExt for Batch {
    fn create_record<R: Record>(self, key: Key, record: &R) -> Result<Self> {
        Ok(self.create(key, codec::encode(record)?))
    }

    fn replace_record<R: Record>(self, key: Key, seen: WriteId, record: &R) -> Result<Self> {
        Ok(self.replace(key, seen, codec::encode(record)?))
    }

    fn put_record<R: Record>(self, key: Key, record: &R) -> Result<Self> {
        Ok(self.put(key, codec::encode(record)?))
    }

    fn put_object(self, key: &Key, bytes: &[u8]) -> Result<Self> {
        Ok(chunks::put_object(self, key, Digest::of(bytes).as_bytes(), bytes)?)
    }

    fn put_object_record<R: Record>(self, key: &Key, record: &R) -> Result<Self> {
        self.put_object(key, &codec::encode(record)?)
    }
}
