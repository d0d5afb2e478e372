//! Cases about get and scan.

use std::sync::Arc;

use super::fixture::{must, page_of, refused, value_of};
use crate::keys::{fresh_write_id, key};
use fleet_store::batch::Batch;
use fleet_store::contract::{Direction, KvStore, MAX_SCAN_ENTRIES};
use fleet_store::error::StoreError;
use fleet_store::key::Key;

/// Put, read back with the write id, overwrite.
pub async fn what_was_put_is_read_back(store: Arc<dyn KvStore>) {
    let k = key("crud/a");
    assert_eq!(must(store.get(&k).await), None);
    let first = fresh_write_id();
    must(store.commit(Batch::new(first).put(k.clone(), "one")).await);
    let entry = must(store.get(&k).await).unwrap_or_else(|| panic!("the key is absent after its commit"));
    assert_eq!((entry.write_id, entry.value.as_slice()), (first, b"one".as_slice()));
    let second = fresh_write_id();
    must(store.commit(Batch::new(second).put(k.clone(), "two")).await);
    assert_eq!(must(store.get(&k).await).map(|entry| entry.write_id), Some(second));
    must(store.ping().await);
}

/// Delete, and delete again without an error.
pub async fn a_deleted_key_is_absent(store: Arc<dyn KvStore>) {
    let k = key("delete/a");
    must(store.commit(Batch::new(fresh_write_id()).put(k.clone(), "x")).await);
    must(store.commit(Batch::new(fresh_write_id()).delete(k.clone())).await);
    assert_eq!(value_of(&*store, &k).await, None);
    must(store.commit(Batch::new(fresh_write_id()).delete(k.clone())).await);
    assert!(page_of(&*store, "delete/", None, 10, Direction::Ascending).await.is_empty());
}

/// Every byte value in keys and values, the empty value, and the shortest and the longest of both.
pub async fn keys_and_values_are_any_bytes(store: Arc<dyn KvStore>) {
    let all_bytes: Vec<u8> = (0..=u8::MAX).collect();
    let odd = must(Key::new([b"any/".as_slice(), &all_bytes].concat()));
    let shortest = must(Key::new(vec![0xff]));
    let longest = must(Key::new(vec![b'l'; fleet_store::contract::MAX_KEY_BYTES]));
    let largest = vec![0xa5; fleet_store::contract::MAX_VALUE_BYTES];
    let batch = Batch::new(fresh_write_id())
        .put(odd.clone(), all_bytes.clone())
        .put(shortest.clone(), Vec::new())
        .put(longest.clone(), largest.clone());
    must(store.commit(batch).await);
    assert_eq!(value_of(&*store, &odd).await, Some(all_bytes));
    assert_eq!(value_of(&*store, &shortest).await, Some(Vec::new()));
    assert_eq!(value_of(&*store, &longest).await, Some(largest));
    let page = must(store.scan(&[0xff], None, 10, Direction::Descending).await);
    assert_eq!(page.len(), 1, "a prefix without an end is scanned to the end");
}

async fn put_numbers(store: &dyn KvStore, prefix: &str, count: usize) {
    let numbers: Vec<usize> = (0..count).collect();
    for part in numbers.chunks(500) {
        let mut batch = Batch::new(fresh_write_id());
        for number in part {
            batch = batch.put(key(format!("{prefix}{number:06}")), number.to_string());
        }
        must(store.commit(batch).await);
    }
}

/// Pages in order, each beginning after the last key of the one before, also when that key is gone.
pub async fn scans_are_ordered_and_paged(store: Arc<dyn KvStore>) {
    put_numbers(&*store, "page/", 2300).await;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = page_of(&*store, "page/", after.as_ref(), MAX_SCAN_ENTRIES, Direction::Ascending).await;
        let is_last = page.len() < MAX_SCAN_ENTRIES;
        after = page.last().map(key);
        seen.extend(page);
        if is_last {
            break;
        }
    }
    let expected: Vec<String> = (0..2300).map(|number| format!("page/{number:06}")).collect();
    assert_eq!(seen, expected);

    must(store.commit(Batch::new(fresh_write_id()).delete(key("page/000010"))).await);
    let page = page_of(&*store, "page/", Some(&key("page/000010")), 2, Direction::Ascending).await;
    assert_eq!(page, ["page/000011", "page/000012"]);
}

/// The newest first, paged.
pub async fn scans_run_backwards(store: Arc<dyn KvStore>) {
    put_numbers(&*store, "back/", 25).await;
    let first = page_of(&*store, "back/", None, 10, Direction::Descending).await;
    assert_eq!(first.first().map(String::as_str), Some("back/000024"));
    assert_eq!(first.last().map(String::as_str), Some("back/000015"));
    let second = page_of(&*store, "back/", first.last().map(key).as_ref(), 10, Direction::Descending).await;
    let third = page_of(&*store, "back/", second.last().map(key).as_ref(), 10, Direction::Descending).await;
    assert_eq!(third, ["back/000004", "back/000003", "back/000002", "back/000001", "back/000000"]);
    let beyond = page_of(&*store, "back/", Some(&key("back/000000")), 10, Direction::Descending).await;
    assert!(beyond.is_empty());
}

/// Neighbours of the prefix stay out, an `after` outside the prefix does no harm, the store's own keys are hidden.
pub async fn scans_stay_inside_their_prefix(store: Arc<dyn KvStore>) {
    let log = must(fleet_store::key::LogName::new("hidden"));
    let mut batch = Batch::new(fresh_write_id()).append(log, |_| b"record".to_vec());
    for text in ["in", "in/", "in/a", "in/b", "in/b/c", "in0", "im"] {
        batch = batch.put(key(text), text);
    }
    must(store.commit(batch).await);
    for direction in [Direction::Ascending, Direction::Descending] {
        let mut inside = page_of(&*store, "in/", None, 10, direction).await;
        inside.sort();
        assert_eq!(inside, ["in/", "in/a", "in/b", "in/b/c"]);
        let everything = must(store.scan(b"", None, MAX_SCAN_ENTRIES, direction).await);
        assert!(everything.len() >= 8 && everything.iter().all(|(key, _)| key.as_bytes()[0] != 0));
        assert!(must(store.scan(&[0], None, 10, direction).await).is_empty());
    }
    let all = ["in/", "in/a", "in/b", "in/b/c"];
    assert_eq!(page_of(&*store, "in/", Some(&key("im")), 10, Direction::Ascending).await, all);
    assert_eq!(page_of(&*store, "in/", Some(&key("zz")), 10, Direction::Descending).await.len(), 4);
    assert!(page_of(&*store, "in/", Some(&key("in0")), 10, Direction::Ascending).await.is_empty());
    assert!(page_of(&*store, "in/", Some(&key("in")), 10, Direction::Descending).await.is_empty());
}

/// A page has 1 to 1,000 entries.
pub async fn page_sizes_are_limited(store: Arc<dyn KvStore>) {
    for limit in [0, MAX_SCAN_ENTRIES + 1] {
        let error = refused(store.scan(b"x", None, limit, Direction::Ascending).await);
        assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    }
    must(store.scan(b"x", None, MAX_SCAN_ENTRIES, Direction::Ascending).await);
}
