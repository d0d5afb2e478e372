//! Small helpers of the cases.

use fleet_store::contract::{Direction, KvStore};
use fleet_store::error::StoreError;
use fleet_store::key::Key;

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
