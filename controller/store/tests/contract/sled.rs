//! The sled store under the suite of all backends, and in what it alone does: reopening, floors, being in use.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::keys::{fresh_write_id, key};
use fleet_store::{Batch, Direction, KvStore, LogName, Op, SledSettings, SledStore, StoreError};

async fn open() -> (Arc<dyn KvStore>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (open_at(dir.path()).await, dir)
}

async fn open_at(path: &Path) -> Arc<SledStore> {
    SledStore::open(SledSettings::new(path)).await.unwrap()
}

crate::conformance::suite!(open());

fn log() -> LogName {
    LogName::new("log").unwrap()
}

#[tokio::test]
async fn a_closed_store_opens_with_everything_that_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 0..5_u64 {
        let store = open_at(dir.path()).await;
        assert_eq!(store.log_len(&log()).await.unwrap(), round * 50);
        let page = store.scan(b"round/", None, 1000, Direction::Ascending).await.unwrap();
        let found: Vec<_> = page.into_iter().map(|(key, entry)| (key, entry.write_id)).collect();
        assert_eq!(found, expected);
        for n in 0..50 {
            let (id, k) = (fresh_write_id(), key(format!("round/{round}/{n:02}")));
            let batch = Batch::new(id).create(k.clone(), "x").append(log(), |i| i.to_string().into_bytes());
            assert_eq!(store.commit(batch).await.unwrap().appended, [round * 50 + n]);
            expected.push((k, id));
        }
        store.close().await.unwrap();
        let closed = store.get(&key("round/0/00")).await.unwrap_err();
        assert!(matches!(closed, StoreError::Unavailable { .. }), "{closed}");
        assert!(store.commit(Batch::new(fresh_write_id()).put(key("a"), "x")).await.is_err());
        assert!(store.scan(b"", None, 1, Direction::Ascending).await.is_err());
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn commits_accepted_before_the_close_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path()).await;
    let mut commits = tokio::task::JoinSet::new();
    for n in 0..200 {
        let store = store.clone();
        let batch = Batch::new(fresh_write_id()).put(key(format!("n/{n}")), "x");
        commits.spawn(async move { (n, store.commit(batch).await) });
    }
    let first = commits.join_next().await.unwrap().unwrap();
    store.close().await.unwrap();
    let mut results = commits.join_all().await;
    results.push(first);
    let store = open_at(dir.path()).await;
    for (n, result) in results {
        let is_there = store.get(&key(format!("n/{n}"))).await.unwrap().is_some();
        match result {
            Ok(_) => assert!(is_there, "commit {n} was acknowledged and is lost"),
            Err(error) => assert!(!is_there && error.certainly_not_written(), "commit {n}: {error}"),
        }
    }
    store.close().await.unwrap();
}

/// Holds the writer inside a commit until the returned sender is used or dropped.
fn held_commit(
    store: &Arc<SledStore>,
) -> (tokio::task::JoinHandle<()>, mpsc::Receiver<()>, mpsc::SyncSender<()>) {
    let (entered, is_entered) = mpsc::sync_channel(1);
    let (release, released) = mpsc::sync_channel(1);
    let store = store.clone();
    let batch = Batch::new(fresh_write_id()).append(log(), move |_| {
        entered.send(()).unwrap();
        let _ = released.recv();
        b"held".to_vec()
    });
    let task = tokio::spawn(async move {
        store.commit(batch).await.unwrap();
    });
    (task, is_entered, release)
}

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_queue_is_bounded_and_reads_go_on_while_the_writer_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path()).await;
    store.commit(Batch::new(fresh_write_id()).put(key("old"), "x")).await.unwrap();
    let (held, is_entered, release) = held_commit(&store);
    is_entered.recv_timeout(LIMIT).unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let store = store.clone();
        let batch = Batch::new(fresh_write_id()).put(key(format!("w/{n:04}")), "x");
        waiting.spawn(async move { store.commit(batch).await });
    }
    assert!(store.get(&key("old")).await.unwrap().is_some());
    assert!(store.scan(b"w/", None, 10, Direction::Ascending).await.unwrap().is_empty());
    release.send(()).unwrap();
    held.await.unwrap();
    assert!(waiting.join_all().await.iter().all(Result::is_ok));
    assert_eq!(store.scan(b"w/", None, 1000, Direction::Ascending).await.unwrap().len(), 1000);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stuck_writer_is_reported_once() {
    let dir = tempfile::tempdir().unwrap();
    let (report, reports) = mpsc::sync_channel(8);
    let mut settings = SledSettings::new(dir.path());
    settings.stuck_limit = Duration::from_millis(40);
    settings.on_stuck = Arc::new(move |text: &str| report.send(text.to_owned()).unwrap());
    let store = SledStore::open(settings).await.unwrap();
    let (held, is_entered, release) = held_commit(&store);
    is_entered.recv_timeout(LIMIT).unwrap();
    let text = reports.recv_timeout(LIMIT).unwrap();
    assert!(text.contains("has been stuck for"), "{text}");
    release.send(()).unwrap();
    held.await.unwrap();
    store.close().await.unwrap();
    assert!(reports.try_recv().is_err(), "reported twice");
}

#[tokio::test]
async fn below_the_floor_writes_are_refused_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = SledSettings::new(dir.path());
    settings.free_space_floor_bytes = u64::MAX;
    settings.reserve_floor_bytes = 0;
    let store = SledStore::open(settings).await.unwrap();
    let refused = store.commit(Batch::new(fresh_write_id()).create(key("a"), "x")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Full { .. }) && refused.certainly_not_written(), "{refused}");
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
    store.commit(Batch::new(fresh_write_id()).create(key("stop"), "x").using_reserve()).await.unwrap();
    assert!(store.get(&key("stop")).await.unwrap().is_some());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_directory_in_use_is_named_and_left_alone() {
    let (store, dir) = open().await;
    store.commit(Batch::new(fresh_write_id()).create(key("a"), "x")).await.unwrap();
    let error = SledStore::open(SledSettings::new(dir.path())).await.err().unwrap();
    assert_eq!(error, StoreError::Busy { path: dir.path().to_owned() });
    store.commit(Batch::new(fresh_write_id()).create(key("b"), "x")).await.unwrap();
    store.close().await.unwrap();
    open_at(dir.path()).await.close().await.unwrap();
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    for path in [file.clone(), file.join("below"), "/proc/fleet-store".into()] {
        let error = SledStore::open(SledSettings::new(&path)).await.err().unwrap();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn the_size_on_disk_stays_bounded_when_one_key_is_rewritten() {
    let (store, dir) = open().await;
    for n in (0..=u8::MAX).chain(0..44) {
        let mut batch = Batch::new(fresh_write_id());
        batch.ops = (0..20).map(|k| Op::Put(key(format!("k/{k}")), vec![n; 1000])).collect();
        store.commit(batch).await.unwrap();
    }
    store.close().await.unwrap();
    // 6 MB were written, 20 KB are alive; growth to some tens of MB is sled's habit, more would be a leak of ours.
    let bytes = std::fs::metadata(dir.path().join("db")).unwrap().len();
    assert!(bytes < 64 * 1024 * 1024, "{bytes} bytes");
}
