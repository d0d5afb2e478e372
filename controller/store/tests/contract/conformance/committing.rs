//! Cases about commit: preconditions, atomicity, limits, concurrency, outcome.

use std::sync::Arc;

use super::fixture::{must, page_of, refused, value_of};
use crate::keys::{fresh_write_id, key};
use fleet_store::batch::{Batch, Committed, Op};
use fleet_store::contract::{
    Direction, KvStore, MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MAX_KEY_BYTES, MAX_VALUE_BYTES,
};
use fleet_store::error::StoreError;
use fleet_store::key::{Key, LogName};
use fleet_store::outcome::{Outcome, resolve_outcome};

/// Absent and write-id preconditions, on keys the batch writes and on others.
pub async fn preconditions_decide(store: Arc<dyn KvStore>) {
    let (guard, data) = (key("pre/guard"), key("pre/data"));
    let first = fresh_write_id();
    must(store.commit(Batch::new(first).create(guard.clone(), "1")).await);
    must(
        store
            .commit(Batch::new(fresh_write_id()).if_write_id(guard.clone(), first).put(data.clone(), "a"))
            .await,
    );

    let second = fresh_write_id();
    must(store.commit(Batch::new(second).replace(guard.clone(), first, "2")).await);
    let stale = Batch::new(fresh_write_id()).if_write_id(guard.clone(), first).put(data.clone(), "b");
    assert_eq!(refused(store.commit(stale).await), StoreError::Conflict { key: guard.clone() });
    let missing = Batch::new(fresh_write_id()).if_write_id(key("pre/none"), first).put(data.clone(), "c");
    assert_eq!(refused(store.commit(missing).await), StoreError::Conflict { key: key("pre/none") });
    assert_eq!(value_of(&*store, &data).await, Some(b"a".to_vec()));

    must(store.commit(Batch::new(fresh_write_id()).remove(guard.clone(), second)).await);
    must(store.commit(Batch::new(fresh_write_id()).if_absent(guard).delete(data.clone())).await);
    assert_eq!(value_of(&*store, &data).await, None);
}

/// When one of two preconditions fails, no operation of the batch is seen.
pub async fn a_refused_batch_changes_nothing(store: Arc<dyn KvStore>) {
    must(store.commit(Batch::new(fresh_write_id()).put(key("atomic/there"), "x")).await);
    let mut batch = Batch::new(fresh_write_id())
        .if_absent(key("atomic/new"))
        .if_absent(key("atomic/there"))
        .delete(key("atomic/there"));
    for number in 0..100 {
        batch = batch.put(key(format!("atomic/n{number}")), "x");
    }
    assert_eq!(refused(store.commit(batch).await), StoreError::Conflict { key: key("atomic/there") });
    assert_eq!(page_of(&*store, "atomic/", None, 1000, Direction::Ascending).await, ["atomic/there"]);
}

/// Create is once.
pub async fn the_second_create_conflicts(store: Arc<dyn KvStore>) {
    let k = key("create/once");
    must(store.commit(Batch::new(fresh_write_id()).create(k.clone(), "first")).await);
    let error = refused(store.commit(Batch::new(fresh_write_id()).create(k.clone(), "second")).await);
    assert!(error.is_conflict() && error.certainly_not_written(), "{error}");
    assert_eq!(value_of(&*store, &k).await, Some(b"first".to_vec()));
}

/// One over each limit is refused by name and writes nothing.
pub async fn limits_are_kept(store: Arc<dyn KvStore>) {
    let value = Batch::new(fresh_write_id()).put(key("limit/value"), vec![0; MAX_VALUE_BYTES + 1]);
    let mut operations = Batch::new(fresh_write_id());
    for number in 0..=MAX_BATCH_OPERATIONS {
        operations = operations.put(key(format!("limit/{number}")), "");
    }
    let mut preconditions = Batch::new(fresh_write_id()).put(key("limit/pre"), "");
    for number in 0..=MAX_BATCH_OPERATIONS {
        preconditions = preconditions.if_absent(key(format!("limit/{number}")));
    }
    let mut bytes = Batch::new(fresh_write_id());
    for number in 0..=(MAX_BATCH_BYTES / MAX_VALUE_BYTES) {
        bytes = bytes.put(key(format!("limit/{number}")), vec![0; MAX_VALUE_BYTES]);
    }
    for batch in [value, operations, preconditions, bytes] {
        let error = refused(store.commit(batch).await);
        assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    }
    assert!(page_of(&*store, "limit/", None, 10, Direction::Ascending).await.is_empty());
}

/// The largest batch there is: all operations, all bytes, the longest keys.
pub async fn a_batch_may_be_as_large_as_its_limits(store: Arc<dyn KvStore>) {
    let room = MAX_BATCH_BYTES / MAX_BATCH_OPERATIONS - MAX_KEY_BYTES;
    let mut batch = Batch::new(fresh_write_id());
    for number in 0..MAX_BATCH_OPERATIONS {
        let mut long = format!("large/{number:06}").into_bytes();
        long.resize(MAX_KEY_BYTES, b'.');
        batch = batch.put(must(Key::new(long)), vec![b'v'; room]);
    }
    assert_eq!(batch.known_bytes(), MAX_BATCH_BYTES);
    must(store.commit(batch).await);
    assert_eq!(page_of(&*store, "large/", None, 1000, Direction::Ascending).await.len(), 1000);
    assert_eq!(page_of(&*store, "large/0010", None, 1000, Direction::Ascending).await.len(), 24);
}

/// Empty batches and two words on one key.
pub async fn batches_that_contradict_themselves_are_invalid(store: Arc<dyn KvStore>) {
    let k = key("odd/a");
    let log = must(LogName::new("odd-log"));
    let batches = [
        Batch::new(fresh_write_id()),
        Batch::new(fresh_write_id()).if_absent(k.clone()),
        Batch::new(fresh_write_id()).put(k.clone(), "1").put(k.clone(), "2"),
        Batch::new(fresh_write_id()).put(k.clone(), "1").delete(k.clone()),
        Batch::new(fresh_write_id()).if_absent(k.clone()).create(k.clone(), "1"),
        Batch::new(fresh_write_id()).put(log.record_key(0), "forged").append(log, |_| b"true".to_vec()),
    ];
    for batch in batches {
        let text = format!("{batch:?}");
        let error = refused(store.commit(batch).await);
        assert!(matches!(error, StoreError::Invalid { .. }), "{text}: {error}");
    }
    assert_eq!(value_of(&*store, &k).await, None);
}

/// Thirty-two writers want the same key at once, ten times; exactly one gets it each time.
pub async fn one_of_many_writers_wins_each_round(store: Arc<dyn KvStore>) {
    for round in 0..10 {
        let k = key(format!("race/{round}"));
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..32 {
            let (store, k) = (store.clone(), k.clone());
            writers.spawn(async move {
                let batch = Batch::new(fresh_write_id()).create(k, writer.to_string());
                store.commit(batch).await.map(|_| writer)
            });
        }
        let results = writers.join_all().await;
        let winners: Vec<i32> = results.iter().filter_map(|result| result.as_ref().ok()).copied().collect();
        assert_eq!(winners.len(), 1, "winners of round {round}: {winners:?}");
        assert!(results.iter().filter_map(|r| r.as_ref().err()).all(StoreError::is_conflict));
        assert_eq!(value_of(&*store, &k).await, Some(winners[0].to_string().into_bytes()));
    }
}

/// Many requests at once, every third of them impossible: those fail alone, the others are all written.
pub async fn each_request_of_a_group_passes_or_fails_alone(store: Arc<dyn KvStore>) {
    must(store.commit(Batch::new(fresh_write_id()).put(key("group/taken"), "x")).await);
    let requests = (0..96).map(|number| {
        let batch = Batch::new(fresh_write_id()).put(key(format!("group/n{number:03}")), "x");
        let batch = if number % 3 == 0 { batch.if_absent(key("group/taken")) } else { batch };
        let store = store.clone();
        async move { (number, store.commit(batch).await) }
    });
    let mut tasks = tokio::task::JoinSet::new();
    for request in requests {
        tasks.spawn(request);
    }
    for (number, result) in tasks.join_all().await {
        let expected_to_fail = number % 3 == 0;
        assert_eq!(result.is_err(), expected_to_fail, "request {number}: {result:?}");
        assert_eq!(value_of(&*store, &key(format!("group/n{number:03}"))).await.is_none(), expected_to_fail);
    }
}

/// Sixteen writers raise one number by compare-and-swap; every raise that was acknowledged counts.
pub async fn counting_loses_nothing(store: Arc<dyn KvStore>) {
    let k = key("count/n");
    must(store.commit(Batch::new(fresh_write_id()).create(k.clone(), "0")).await);
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (store, k) = (store.clone(), k.clone());
        writers.spawn(async move {
            let mut raised = 0;
            while raised < 10 {
                let entry = must(store.get(&k).await).unwrap_or_else(|| panic!("the number is gone"));
                let number: u32 =
                    String::from_utf8_lossy(&entry.value).parse().unwrap_or_else(|e| panic!("{e}"));
                let next = (number + 1).to_string();
                match store
                    .commit(Batch::new(fresh_write_id()).replace(k.clone(), entry.write_id, next))
                    .await
                {
                    Ok(_) => raised += 1,
                    Err(error) => assert!(error.is_conflict(), "{error}"),
                }
            }
        });
    }
    writers.join_all().await;
    assert_eq!(value_of(&*store, &k).await, Some(b"160".to_vec()));
}

/// What was written, what was not, and what nobody can tell any more.
pub async fn the_write_id_tells_the_outcome(store: Arc<dyn KvStore>) {
    let (k, log) = (key("outcome/a"), must(LogName::new("outcome-log")));
    let make = |n: u8| {
        Batch::new(fresh_write_id())
            .create(key(format!("outcome/{n}")), "x")
            .append(must(LogName::new("outcome-log")), |_| b"r1".to_vec())
            .append(must(LogName::new("outcome-other")), |_| b"r2".to_vec())
            .append(must(LogName::new("outcome-log")), |_| b"r3".to_vec())
    };
    let (written, lost) = (make(1), make(2));
    let (evidence, lost_evidence) = (written.evidence(), lost.evidence());
    assert_eq!(must(resolve_outcome(&*store, &evidence).await), Outcome::NotWritten);
    let committed = must(store.commit(written).await);
    assert_eq!(committed, Committed { appended: vec![0, 0, 1] });
    must(store.commit(Batch::new(fresh_write_id()).append(log, |_| b"later".to_vec())).await);
    assert_eq!(must(resolve_outcome(&*store, &evidence).await), Outcome::Written(committed));
    assert_eq!(must(resolve_outcome(&*store, &lost_evidence).await), Outcome::NotWritten);

    let first = fresh_write_id();
    let create = Batch::new(first).create(k.clone(), "1");
    let create_evidence = create.evidence();
    assert_eq!(must(resolve_outcome(&*store, &create_evidence).await), Outcome::NotWritten);
    must(store.commit(create).await);
    assert_eq!(
        must(resolve_outcome(&*store, &create_evidence).await),
        Outcome::Written(Committed::default())
    );
    let replace = Batch::new(fresh_write_id()).replace(k.clone(), first, "2");
    assert_eq!(must(resolve_outcome(&*store, &replace.evidence()).await), Outcome::NotWritten);
    let mut overwrite = Batch::new(fresh_write_id());
    overwrite.ops.push(Op::Put(k, b"3".to_vec()));
    must(store.commit(overwrite).await);
    assert_eq!(must(resolve_outcome(&*store, &create_evidence).await), Outcome::Undecidable);
}
