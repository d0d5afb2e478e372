//! Objects larger than one value, kept as several values of one batch.
//!
//! The helper above the contract (DESIGN "Store"): documents, node plans and report bodies go through it. It checks
//! count, length and checksum of what it reads back; the digest is the caller's, who made it and verifies it. It
//! must never leave half an object: everything is added to one batch.
//!
//! ```text
//! <object>                     head: version (1), length u32, CRC32C u32, digest 32 bytes, first part of the bytes
//! <object>/<number as u16>     the other parts, each as long as a value may be but the last
//! ```
//!
//! All numbers are big endian. A small object is the head alone. An object that replaces a longer one leaves that
//! one's last parts behind: they are of an older commit and beyond what the head says, so nobody reads them, and
//! they go when the object is deleted.

use crate::batch::{Batch, check_limit};
use crate::contract::{Direction, Entry, KvStore, MAX_KEY_BYTES, MAX_SCAN_ENTRIES, MAX_VALUE_BYTES};
use crate::error::StoreError;
use crate::key::Key;

/// The largest object in bytes: 896 KiB, so that with the keys of its parts (129 of at most 512 bytes) and some
/// small records it fits into one batch of 1 MiB.
pub const MAX_OBJECT_BYTES: usize = 896 * 1024;
/// The longest key of an object in bytes: its parts add three.
pub const MAX_OBJECT_KEY_BYTES: usize = MAX_KEY_BYTES - PART_SUFFIX_BYTES;

const HEAD_VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 4 + 4 + 32;
const HEAD_ROOM_BYTES: usize = MAX_VALUE_BYTES - HEAD_BYTES;
const PART_SUFFIX_BYTES: usize = 3;
/// Parts of the largest object; one page of a scan reads them all.
const MAX_PARTS: usize = MAX_OBJECT_BYTES / MAX_VALUE_BYTES + 1;
const _: () = assert!(MAX_PARTS <= MAX_SCAN_ENTRIES);

/// An object as it was read back. The caller compares the digest with the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// The digest that was given when it was stored.
    pub digest: [u8; 32],
    /// The object's bytes: complete, and matching their checksum.
    pub bytes: Vec<u8>,
}

/// Adds the puts of an object to a batch; the caller adds preconditions on `object` as needed.
/// It may replace an object of any length.
pub fn put_object(
    mut batch: Batch,
    object: &Key,
    digest: &[u8; 32],
    bytes: &[u8],
) -> Result<Batch, StoreError> {
    check_limit(
        &format!("bytes of the key of object {object}"),
        object.as_bytes().len(),
        MAX_OBJECT_KEY_BYTES,
    )?;
    check_limit(&format!("bytes of object {object}"), bytes.len(), MAX_OBJECT_BYTES)?;
    let too_large =
        |_| StoreError::Invalid { reason: format!("object {object} is longer than its head can say") };
    let length = u32::try_from(bytes.len()).map_err(too_large)?;
    let (first, rest) = bytes.split_at(bytes.len().min(HEAD_ROOM_BYTES));
    let mut head = Vec::with_capacity(HEAD_BYTES + first.len());
    head.push(HEAD_VERSION);
    head.extend_from_slice(&length.to_be_bytes());
    head.extend_from_slice(&crc32c::crc32c(bytes).to_be_bytes());
    head.extend_from_slice(digest);
    head.extend_from_slice(first);
    batch = batch.put(object.clone(), head);
    for (number, part) in (0_u16..).zip(rest.chunks(MAX_VALUE_BYTES)) {
        batch = batch.put(part_key(object, number)?, part);
    }
    Ok(batch)
}

/// Reads an object back, or `None` when it is absent. Parts that are missing or wrong are
/// [`StoreError::Corrupt`]; an object that was replaced during the reading is [`StoreError::Conflict`].
pub async fn get_object(store: &dyn KvStore, object: &Key) -> Result<Option<StoredObject>, StoreError> {
    let Some(entry) = store.get(object).await? else { return Ok(None) };
    let head = Head::parse(object, &entry)?;
    let mut bytes = head.first.to_vec();
    if head.parts > 0 {
        let page = parts(store, object, head.parts).await?;
        for (number, (key, part)) in (0_u16..).zip(&page) {
            if *key != part_key(object, number)? || part.write_id != entry.write_id {
                return Err(changed_or_damaged(store, object, &entry, "has a part that is not its own").await);
            }
            bytes.extend_from_slice(&part.value);
        }
        if page.len() != head.parts {
            return Err(changed_or_damaged(store, object, &entry, "lacks a part").await);
        }
    }
    if bytes.len() != head.length || crc32c::crc32c(&bytes) != head.checksum {
        return Err(changed_or_damaged(store, object, &entry, "does not match its length and checksum").await);
    }
    Ok(Some(StoredObject { digest: head.digest, bytes }))
}

/// Adds the deletes of an object to a batch, what longer ones before it have left included, with the precondition that
/// it is still the same; an absent object adds nothing.
pub async fn delete_object(store: &dyn KvStore, mut batch: Batch, object: &Key) -> Result<Batch, StoreError> {
    let Some(entry) = store.get(object).await? else { return Ok(batch) };
    Head::parse(object, &entry)?;
    batch = batch.remove(object.clone(), entry.write_id);
    for (key, _) in parts(store, object, MAX_PARTS).await? {
        // What else lies below the object's key is not its own.
        if key.as_bytes().len() == object.as_bytes().len() + PART_SUFFIX_BYTES {
            batch = batch.delete(key);
        }
    }
    Ok(batch)
}

struct Head<'a> {
    length: usize,
    checksum: u32,
    digest: [u8; 32],
    first: &'a [u8],
    parts: usize,
}

impl<'a> Head<'a> {
    fn parse(object: &Key, entry: &'a Entry) -> Result<Self, StoreError> {
        let damaged =
            || StoreError::Corrupt { what: format!("object {object} has a head that cannot be read") };
        let (&version, rest) = entry.value.split_first().ok_or_else(damaged)?;
        if version > HEAD_VERSION {
            return Err(StoreError::NewerVersion { found: version.into(), known: HEAD_VERSION.into() });
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (checksum, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (digest, first) = rest.split_first_chunk::<32>().ok_or_else(damaged)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| damaged())?;
        if length > MAX_OBJECT_BYTES || first.len() != length.min(HEAD_ROOM_BYTES) {
            return Err(damaged());
        }
        let parts = (length - first.len()).div_ceil(MAX_VALUE_BYTES);
        Ok(Self { length, checksum: u32::from_be_bytes(*checksum), digest: *digest, first, parts })
    }
}

/// The first parts below an object's key, in the order of their numbers.
async fn parts(store: &dyn KvStore, object: &Key, limit: usize) -> Result<Vec<(Key, Entry)>, StoreError> {
    store.scan(&[object.as_bytes(), b"/"].concat(), None, limit, Direction::Ascending).await
}

fn part_key(object: &Key, number: u16) -> Result<Key, StoreError> {
    Key::new([object.as_bytes(), b"/", &number.to_be_bytes()].concat())
}

/// Reads are not a snapshot: what looks damaged may be a replacement that came between two of them.
async fn changed_or_damaged(store: &dyn KvStore, object: &Key, seen: &Entry, how: &str) -> StoreError {
    match store.get(object).await {
        Ok(Some(now)) if now.write_id == seen.write_id => {
            StoreError::Corrupt { what: format!("object {object} {how}") }
        }
        Ok(_) => StoreError::Conflict { key: object.clone() },
        Err(error) => error,
    }
}
