//! The failing wrapper: harmless when it is told to be, the same for the same seed, and survivable with
//! `commit_resolved`.

use std::sync::Arc;
use std::time::Duration;

use crate::faulty_store::{FaultCounts, Faults, FaultyStore};
use crate::keys::{fresh_write_id, key};
use fleet_store::{Batch, KvStore, LogName, MemoryStore, StoreError, commit_resolved};

fn healthy() -> std::future::Ready<(Arc<dyn KvStore>, ())> {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), 1, Faults::default());
    std::future::ready((Arc::new(store), ()))
}

crate::conformance::suite!(healthy());

const BAD: Faults = Faults {
    unavailable_percent: 20,
    unknown_written_percent: 20,
    unknown_lost_percent: 20,
    delay_up_to: Duration::ZERO,
};

async fn answers(seed: u64) -> (Vec<String>, FaultCounts) {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), seed, BAD);
    let mut answers = Vec::new();
    for n in 0..100 {
        let batch = Batch::new(fresh_write_id()).create(key(format!("k/{n}")), "x");
        answers.push(match store.commit(batch).await {
            Ok(_) => "written".to_owned(),
            Err(StoreError::OutcomeUnknown { reason, .. }) => reason,
            Err(error) => error.to_string(),
        });
    }
    (answers, store.counts())
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults() {
    let (first, counts) = answers(42).await;
    assert_eq!((first, counts), answers(42).await);
    assert_ne!(counts, answers(43).await.1);
    assert!(counts.unavailable > 5 && counts.unknown_written > 5 && counts.unknown_lost > 5, "{counts:?}");
}

#[tokio::test]
async fn reading_back_makes_each_commit_happen_exactly_once() {
    let log = LogName::new("log").unwrap();
    for seed in 0..20 {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()), seed, BAD);
        let mut indices = Vec::new();
        for n in 0..50 {
            let id = fresh_write_id();
            let batch =
                || Batch::new(id).create(key(format!("k/{n}")), "x").append(log.clone(), |_| b"r".to_vec());
            let evidence = batch().evidence();
            let mut tries = 0;
            let committed = loop {
                tries += 1;
                assert!(tries < 200, "seed {seed}: commit {n} never ends");
                match commit_resolved(&store, batch()).await {
                    Ok(committed) => break committed,
                    Err(StoreError::Unavailable { .. }) => {}
                    // The store did not answer the reading back; a try again could write twice, so it is read until
                    // it tells.
                    Err(StoreError::OutcomeUnknown { .. }) => {
                        match fleet_store::resolve_outcome(&store, &evidence).await {
                            Ok(fleet_store::Outcome::Written(committed)) => break committed,
                            Ok(fleet_store::Outcome::NotWritten) => {}
                            Ok(fleet_store::Outcome::Undecidable) => {
                                panic!("seed {seed}: commit {n} left no trace")
                            }
                            // The next create conflicts if it was written, which the match below would show.
                            Err(_) => store.set_faults(Faults::default()),
                        }
                    }
                    // Written by a try whose reading back failed.
                    Err(StoreError::Conflict { .. }) => {
                        match fleet_store::resolve_outcome(&store, &evidence).await.unwrap() {
                            fleet_store::Outcome::Written(committed) => break committed,
                            other => panic!("seed {seed}: commit {n} conflicts with {other:?}"),
                        }
                    }
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            };
            store.set_faults(BAD);
            indices.extend(committed.appended);
        }
        assert_eq!(indices, (0..50).collect::<Vec<u64>>(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn delays_use_the_clock_of_the_runtime() {
    let faults = Faults { delay_up_to: Duration::from_hours(1), ..Faults::default() };
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), 7, faults);
    let before = tokio::time::Instant::now();
    for _ in 0..10 {
        store.ping().await.unwrap();
    }
    let slept = before.elapsed();
    assert!(slept > Duration::from_hours(1) && slept < Duration::from_hours(10), "{slept:?}");
}
