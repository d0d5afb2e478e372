//! Small helpers of the cases.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::batch::WriteId;
use crate::contract::{Direction, KvStore};
use crate::error::StoreError;
use crate::key::Key;

/// A write id that no other call in this process gets.
pub fn fresh_write_id() -> WriteId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&u64::from(std::process::id()).to_be_bytes());
    bytes[8..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    WriteId::from_bytes(bytes)
}

/// A key from text that is known to be good.
#[allow(clippy::missing_panics_doc)]
pub fn key(text: impl AsRef<str>) -> Key {
    must(Key::new(text.as_ref()))
}

/// The value, or a panic with the error: these are tests.
pub(super) fn must<T>(result: Result<T, StoreError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("the store answered: {error}"),
    }
}

/// The error, or a panic.
pub(super) fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>) -> StoreError {
    match result {
        Ok(value) => panic!("expected a refusal, got {value:?}"),
        Err(error) => error,
    }
}

/// The value of a key as it is now.
pub(super) async fn value_of(store: &dyn KvStore, key: &Key) -> Option<Vec<u8>> {
    must(store.get(key).await).map(|entry| entry.value)
}

/// The key texts of one page.
pub(super) async fn page_of(
    store: &dyn KvStore,
    prefix: &str,
    after: Option<&Key>,
    limit: usize,
    direction: Direction,
) -> Vec<String> {
    let page = must(store.scan(prefix.as_bytes(), after, limit, direction).await);
    page.iter().map(|(key, _)| String::from_utf8_lossy(key.as_bytes()).into_owned()).collect()
}
