//! Cases about logs: numbers without gaps, in the same commit as the change.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fixture::{must, page_of, refused, value_of};
use crate::keys::{fresh_write_id, key};
use fleet_store::batch::{Batch, Committed};
use fleet_store::contract::{Direction, KvStore, MAX_RECORD_BYTES, MAX_SCAN_ENTRIES};
use fleet_store::error::StoreError;
use fleet_store::key::LogName;

async fn records(store: &dyn KvStore, log: &LogName) -> BTreeMap<u64, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut after = None;
    loop {
        let page = must(
            store.scan(&log.record_prefix(), after.as_ref(), MAX_SCAN_ENTRIES, Direction::Ascending).await,
        );
        let is_last = page.len() < MAX_SCAN_ENTRIES;
        after = page.last().map(|(key, _)| key.clone());
        found.extend(page.into_iter().filter_map(|(key, entry)| Some((log.index_of(&key)?, entry.value))));
        if is_last {
            return found;
        }
    }
}

/// 0, 1, 2, each made from its index and stored under it with the commit's write id.
pub async fn records_are_numbered_from_zero(store: Arc<dyn KvStore>) {
    let log = must(LogName::new("numbered/leaf"));
    assert_eq!(must(store.log_len(&log).await), 0);
    for expected in 0..3 {
        let id = fresh_write_id();
        let batch = Batch::new(id).append(log.clone(), |index| format!("record {index}").into_bytes());
        assert_eq!(must(store.commit(batch).await), Committed { appended: vec![expected] });
        let entry = must(store.get(&log.record_key(expected)).await).unwrap_or_else(|| panic!("no record"));
        assert_eq!((entry.write_id, entry.value), (id, format!("record {expected}").into_bytes()));
    }
    assert_eq!(must(store.log_len(&log).await), 3);
    assert_eq!(must(store.log_len(&must(LogName::new("numbered/other"))).await), 0);
    let newest = must(store.scan(&log.record_prefix(), None, 1, Direction::Descending).await);
    assert_eq!(newest.first().and_then(|(key, _)| log.index_of(key)), Some(2));
}

/// A conflict writes neither key nor record and leaves no gap.
pub async fn a_refused_append_uses_no_number(store: Arc<dyn KvStore>) {
    let log = must(LogName::new("gapless"));
    let make = || {
        Batch::new(fresh_write_id())
            .create(key("gapless-key"), "x")
            .append(log.clone(), |i| i.to_string().into_bytes())
    };
    assert_eq!(must(store.commit(make()).await).appended, [0]);
    assert!(refused(store.commit(make()).await).is_conflict());
    assert_eq!(must(store.log_len(&log).await), 1);
    let next = Batch::new(fresh_write_id()).append(log.clone(), |_| b"next".to_vec());
    assert_eq!(must(store.commit(next).await).appended, [1]);
    assert_eq!(records(&*store, &log).await.into_keys().collect::<Vec<_>>(), [0, 1]);
}

/// Sixteen writers, each with its own commits and some that conflict: every acknowledged index is unique, the log is
/// complete, and each record is the one its writer made.
pub async fn logs_are_contiguous_under_concurrency(store: Arc<dyn KvStore>) {
    let log = must(LogName::new("crowded"));
    must(store.commit(Batch::new(fresh_write_id()).put(key("crowded-taken"), "x")).await);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..16_u32 {
        let (store, log) = (store.clone(), log.clone());
        writers.spawn(async move {
            let mut acknowledged = BTreeMap::new();
            for n in 0..25_u32 {
                let text = format!("{writer}.{n}");
                let record = text.clone();
                let mut batch = Batch::new(fresh_write_id())
                    .put(key(format!("crowded-state/{writer}/{n}")), text.clone())
                    .append(log.clone(), move |index| format!("{index}:{record}").into_bytes());
                let must_conflict = (writer + n) % 5 == 0;
                if must_conflict {
                    batch = batch.if_absent(key("crowded-taken"));
                }
                match store.commit(batch).await {
                    Ok(committed) if !must_conflict => {
                        let index = committed.appended[0];
                        assert_eq!(acknowledged.insert(index, format!("{index}:{text}").into_bytes()), None);
                    }
                    Err(error) if must_conflict => assert!(error.is_conflict(), "{error}"),
                    other => panic!("writer {writer}, commit {n}: {other:?}"),
                }
            }
            acknowledged
        });
    }
    let mut acknowledged = BTreeMap::new();
    for of_one in writers.join_all().await {
        for (index, record) in of_one {
            assert_eq!(acknowledged.insert(index, record), None, "index {index} was given twice");
        }
    }
    let stored = records(&*store, &log).await;
    assert_eq!(stored, acknowledged);
    assert_eq!(must(store.log_len(&log).await), stored.len() as u64);
    assert!(stored.keys().copied().eq(0..stored.len() as u64), "the log has a gap");
}

/// A record over its limit and a closure that panics fail their own request and use no number.
pub async fn records_that_cannot_be_made_fail_alone(store: Arc<dyn KvStore>) {
    let log = must(LogName::new("unmade"));
    let k = key("unmade-key");
    let too_long = Batch::new(fresh_write_id())
        .put(k.clone(), "x")
        .append(log.clone(), |_| vec![b'x'; MAX_RECORD_BYTES + 1]);
    assert!(matches!(refused(store.commit(too_long).await), StoreError::TooLarge { .. }));
    let panics = Batch::new(fresh_write_id())
        .put(k.clone(), "x")
        .append(log.clone(), |_| panic!("this panic belongs to the test"));
    assert!(matches!(refused(store.commit(panics).await), StoreError::Invalid { .. }));
    assert_eq!(value_of(&*store, &k).await, None);
    let longest = Batch::new(fresh_write_id()).append(log.clone(), |_| vec![b'x'; MAX_RECORD_BYTES]);
    assert_eq!(must(store.commit(longest).await).appended, [0]);
}

/// Two logs and two records of one log in the same commit, with the change they tell of.
pub async fn several_records_in_one_commit(store: Arc<dyn KvStore>) {
    let (a, b) = (must(LogName::new("pair-a")), must(LogName::new("pair-b")));
    let text = |index: u64| index.to_string().into_bytes();
    let batch = Batch::new(fresh_write_id())
        .put(key("pair-state"), "x")
        .append(a.clone(), text)
        .append(b.clone(), text)
        .append(a.clone(), text);
    assert_eq!(must(store.commit(batch).await).appended, [0, 0, 1]);
    assert_eq!((must(store.log_len(&a).await), must(store.log_len(&b).await)), (2, 1));
    assert_eq!(records(&*store, &a).await.into_values().collect::<Vec<_>>(), [b"0", b"1"]);
    assert_eq!(page_of(&*store, "pair-b/", None, 10, Direction::Ascending).await.len(), 1);
}
