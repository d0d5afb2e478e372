//! From a directory to a running store.
//!
//! Order matters: the mark of an unclean stop is set before sled touches a file, the probe runs before our own
//! opening, the schema version is read before anything is written, and the threads start last. A damaged directory
//! must become an error, never a panic and never a fresh store.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::sync::mpsc;

use super::directory::Directory;
use super::failure::{Failure, name_io_error, run_caught};
use super::group_state::GroupState;
use super::log_check::{CheckedLogs, check_logs};
use super::mark::{self, GroupMark};
use super::probe::run_probe_command;
use super::settings::SledSettings;
use super::space::SpaceFloor;
use super::store::{SledStore, Threads, run_blocking};
use super::visible::Visible;
use super::watchdog::Watchdog;
use super::writer::{QUEUE_REQUESTS, Writer};
use crate::commit_plan::{GROUP_KEY, SCHEMA_KEY, STORE_WRITE_ID};
use crate::envelope;
use crate::error::StoreError;

/// The layout of the keys that the store itself keeps: schema version, log counters, records, envelopes.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// Opens the store with default settings. After an unclean stop `probe_command` (such as `fleet-controller
/// store-probe PATH`) opens it first, in a process of its own, because damage can make sled panic or abort.
pub async fn open_with_probe(
    path: &Path,
    probe_command: Option<Command>,
) -> Result<Arc<SledStore>, StoreError> {
    let mut settings = SledSettings::new(path);
    settings.probe_command = probe_command;
    SledStore::open(settings).await
}

impl SledStore {
    /// Opens the store in its directory, or makes a new one when the directory is missing or empty.
    pub async fn open(mut settings: SledSettings) -> Result<Arc<Self>, StoreError> {
        let path = settings.path.clone();
        let directory = run_blocking(move || Directory::prepare(&path)).await??;
        if directory.is_unclean()
            && let Some(command) = settings.probe_command.take()
        {
            tracing::info!(path = %directory.path.display(), "the store was not closed well; it is opened on trial first");
            run_probe_command(command, &directory.path, settings.probe_limit).await?;
        }
        run_blocking(move || Self::start(&settings, directory)).await?
    }

    fn start(settings: &SledSettings, directory: Directory) -> Result<Arc<Self>, StoreError> {
        let Opened { db, last_group, mark, .. } = open_checked(&directory, settings.cache_bytes)?;
        let failure = Arc::new(Failure::new(&directory.path));
        let visible = Arc::new(Visible::new(db.clone()));
        let (queue, received) = mpsc::channel(QUEUE_REQUESTS);
        let io_error = |error| name_io_error(&directory.path, &error);
        let watchdog = Watchdog::start(&directory.path, settings.stuck_limit, settings.on_stuck.clone())
            .map_err(io_error)?;
        let writer = Writer {
            db,
            data_file: directory.open_data_file()?,
            visible: visible.clone(),
            failure: failure.clone(),
            space: SpaceFloor {
                path: directory.path.clone(),
                floor_bytes: settings.free_space_floor_bytes,
                reserve_floor_bytes: settings.reserve_floor_bytes,
            },
            watched: watchdog.watched(),
            queue: received,
            last_group,
            mark,
        };
        let writer = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(io_error)?;
        let threads = Mutex::new(Some(Threads { writer, watchdog }));
        Ok(Arc::new(Self { directory, visible, failure, queue, threads }))
    }
}

/// What opening gives.
pub(crate) struct Opened {
    pub(crate) db: sled::Db,
    pub(crate) last_group: GroupState,
    pub(crate) mark: GroupMark,
    pub(crate) checked: CheckedLogs,
}

/// Opens sled and checks what a start can check. The mark of an unclean stop is set afterwards, whether or not it was
/// before; a refusal leaves it as it was.
pub(crate) fn open_checked(directory: &Directory, cache_bytes: u64) -> Result<Opened, StoreError> {
    if directory.is_created() && !directory.has_data_file() {
        return Err(StoreError::Corrupt {
            what: format!("the data file of {} is missing", directory.path.display()),
        });
    }
    let was_unclean = directory.is_unclean();
    directory.note_unclean()?;
    let opened = open_sled(directory, cache_bytes);
    // A directory that another process uses keeps the mark of that process.
    if opened.is_err() && !was_unclean && !matches!(opened, Err(StoreError::Busy { .. })) {
        directory.note_clean()?;
    }
    opened
}

fn open_sled(directory: &Directory, cache_bytes: u64) -> Result<Opened, StoreError> {
    directory.remove_half_snapshots()?;
    // flush_every_ms stays on: only sled's background flusher reclaims space (security-and-delivery §4.6).
    let config = sled::Config::new().path(&directory.path).cache_capacity(cache_bytes);
    let db = run_caught(&directory.path, || config.open())?;
    check_schema(directory, &db)?;
    let is_unmarked = mark::is_missing(&directory.path);
    let sealed = run_caught(&directory.path, || db.get(GROUP_KEY))?;
    let last_group = GroupState::open(sealed.as_deref())?;
    if is_unmarked && last_group.number > 0 {
        let what = format!(
            "{path} holds commits and its file store.mark is missing, so that lost ones would not be noticed; \
             when it is known to be the newest copy, or the loss is accepted: touch {path}/store.mark",
            path = directory.path.display()
        );
        return Err(StoreError::Corrupt { what });
    }
    let mark = GroupMark::open(&directory.path).map_err(|error| name_io_error(&directory.path, &error))?;
    check_last_group(directory, &last_group, &mark)?;
    let checked = run_caught(&directory.path, || check_logs(&db))??;
    Ok(Opened { db, last_group, mark, checked })
}

/// Compares the last group that sled has with the last one that was durable.
fn check_last_group(
    directory: &Directory,
    last_group: &GroupState,
    mark: &GroupMark,
) -> Result<(), StoreError> {
    let path = &directory.path;
    let marked = mark.read().map_err(|error| name_io_error(path, &error))?;
    if last_group.number < marked {
        let lost = marked - last_group.number;
        return Err(StoreError::Corrupt {
            what: format!("{} has lost its last {lost} group(s) of commits", path.display()),
        });
    }
    Ok(())
}

/// Reads the schema version, or writes it into a store that is new.
fn check_schema(directory: &Directory, db: &sled::Db) -> Result<(), StoreError> {
    let path = &directory.path;
    let damaged = |how: &str| StoreError::Corrupt { what: format!("{} {how}", path.display()) };
    let Some(sealed) = run_caught(path, || db.get(SCHEMA_KEY))? else {
        if directory.is_created() || run_caught(path, || db.first())?.is_some() {
            return Err(damaged("has lost its content: the schema version is missing"));
        }
        let sealed = envelope::seal(SCHEMA_KEY, STORE_WRITE_ID, &SCHEMA_VERSION.to_be_bytes());
        run_caught(path, || {
            db.insert(SCHEMA_KEY, sealed)?;
            db.flush()
        })?;
        directory.open_data_file()?.sync_data().map_err(|error| name_io_error(path, &error))?;
        return directory.note_created();
    };
    let value = envelope::open(SCHEMA_KEY, &sealed)?.value;
    let found =
        u32::from_be_bytes(value.try_into().map_err(|_| damaged("has a schema version that is no number"))?);
    if found > SCHEMA_VERSION {
        return Err(StoreError::NewerVersion { found, known: SCHEMA_VERSION });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::ProbeReport;
    use super::*;
    use crate::KvStore;
    use crate::batch::{Batch, WriteId};
    use crate::commit_plan::counter_key;
    use crate::key::LogName;

    const ID: WriteId = WriteId::from_bytes([3; 16]);
    type Raw<'a> = Vec<(Vec<u8>, &'a [u8])>;

    /// Writes raw keys into a directory, as another program would.
    fn write_raw(path: &Path, entries: &[(&[u8], &[u8])]) {
        let db = sled::open(path).unwrap();
        for (key, body) in entries {
            db.insert(key, envelope::seal(key, ID, body)).unwrap();
        }
        db.flush().unwrap();
    }

    async fn refusal(path: &Path) -> StoreError {
        SledStore::open(SledSettings::new(path)).await.err().unwrap()
    }

    #[tokio::test]
    async fn a_newer_store_is_refused_by_name_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        write_raw(dir.path(), &[(SCHEMA_KEY, &2_u32.to_be_bytes()), (b"run/1", b"x")]);
        for _ in 0..2 {
            assert_eq!(refusal(dir.path()).await, StoreError::NewerVersion { found: 2, known: 1 });
        }
        let db = sled::open(dir.path()).unwrap();
        assert_eq!(db.len(), 2);
        assert!(!dir.path().join("store.unclean").exists());
    }

    #[tokio::test]
    async fn a_database_of_somebody_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        write_raw(dir.path(), &[(b"foreign", b"x")]);
        let error = refusal(dir.path()).await;
        assert!(matches!(&error, StoreError::Corrupt { what } if what.contains("schema version")), "{error}");
    }

    #[tokio::test]
    async fn counters_that_differ_from_the_records_are_damage() {
        let log = LogName::new("leaf").unwrap();
        let (counter, record) = (counter_key(&log), |index| log.record_key(index).into_bytes());
        let two = 2_u64.to_be_bytes();
        let schema = 1_u32.to_be_bytes();
        let cases: [(&str, Raw<'_>); 4] = [
            ("its last one is missing", vec![(counter.clone(), &two), (record(0), b"r")]),
            ("above its counter", vec![(counter.clone(), &two), (record(1), b"r"), (record(2), b"r")]),
            ("is not a number", vec![(counter.clone(), b"two")]),
            ("is not 1 to", vec![(counter_key(&log).into_iter().chain(*b"/").collect(), &two)]),
        ];
        for (word, entries) in cases {
            let dir = tempfile::tempdir().unwrap();
            let mut raw: Vec<(&[u8], &[u8])> = vec![(SCHEMA_KEY, &schema)];
            raw.extend(entries.iter().map(|(key, body)| (key.as_slice(), *body)));
            write_raw(dir.path(), &raw);
            assert!(refusal(dir.path()).await.to_string().contains(word), "{word}");
        }
    }

    /// A copy of parts of a store, of whatever age.
    #[tokio::test]
    async fn a_store_with_commits_and_without_its_mark_is_refused_until_somebody_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let key = crate::Key::new("run/1").unwrap();
        let store = SledStore::open(SledSettings::new(dir.path())).await.unwrap();
        store.commit(Batch::new(ID).put(key.clone(), "x")).await.unwrap();
        store.close().await.unwrap();
        std::fs::remove_file(dir.path().join("store.mark")).unwrap();
        for _ in 0..2 {
            assert!(refusal(dir.path()).await.to_string().contains("store.mark is missing"));
        }
        std::fs::write(dir.path().join("store.mark"), "").unwrap();
        let store = SledStore::open(SledSettings::new(dir.path())).await.unwrap();
        assert_eq!(store.get(&key).await.unwrap().unwrap().value, b"x");
        store.close().await.unwrap();
        SledStore::open(SledSettings::new(dir.path())).await.unwrap().close().await.unwrap();
    }

    /// A start that was killed, or found the disk full, while sled wrote its snapshot.
    #[tokio::test]
    async fn a_snapshot_that_was_not_finished_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let key = crate::Key::new("run/1").unwrap();
        let store = SledStore::open(SledSettings::new(dir.path())).await.unwrap();
        store.commit(Batch::new(ID).put(key.clone(), "x")).await.unwrap();
        let half = dir.path().join("snap.7FFFFFFFFFFFFFFF.generating");
        std::fs::write(&half, "half a snapshot").unwrap();
        assert!(matches!(refusal(dir.path()).await, StoreError::Busy { .. }));
        assert!(half.exists(), "it may be that of the process that is running");
        store.close().await.unwrap();
        let store = SledStore::open(SledSettings::new(dir.path())).await.unwrap();
        assert!(!half.exists());
        assert_eq!(store.get(&key).await.unwrap().unwrap().value, b"x");
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn pruned_logs_open_and_go_on() {
        let log = LogName::new("leaf").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let append = || Batch::new(ID).append(log.clone(), |index| index.to_string().into_bytes());
        let store = SledStore::open(SledSettings::new(dir.path())).await.unwrap();
        for _ in 0..5 {
            store.commit(append()).await.unwrap();
        }
        let prune = (0..3).fold(Batch::new(ID), |batch, index| batch.delete(log.record_key(index)));
        store.commit(prune).await.unwrap();
        store.close().await.unwrap();

        let report = super::super::probe(dir.path()).unwrap();
        assert_eq!(report, ProbeReport { schema_version: 1, keys: 3, logs: 1, records_checked: 2 });
        assert!(!dir.path().join("store.unclean").exists(), "a probe leaves a clean store clean");
        let store = SledStore::open(SledSettings::new(dir.path())).await.unwrap();
        assert_eq!(store.commit(append()).await.unwrap().appended, [5]);
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_key_that_is_missing_in_the_middle_is_found_by_the_probe() {
        let dir = tempfile::tempdir().unwrap();
        let store = SledStore::open(SledSettings::new(dir.path())).await.unwrap();
        let (a, b) = (crate::Key::new("a").unwrap(), crate::Key::new("b").unwrap());
        store.commit(Batch::new(ID).put(a.clone(), "1").put(b.clone(), "2")).await.unwrap();
        store.commit(Batch::new(ID).put(a, "3").delete(b.clone())).await.unwrap();
        store.commit(Batch::new(ID).put(b, "4")).await.unwrap();
        store.close().await.unwrap();
        assert_eq!(super::super::probe(dir.path()).unwrap().keys, 2);
        let db = sled::open(dir.path()).unwrap();
        db.remove(b"a").unwrap();
        db.flush().unwrap();
        drop(db);
        let error = super::super::probe(dir.path()).unwrap_err().to_string();
        assert!(error.contains("1 keys were found where there should be 2"), "{error}");
    }

    #[tokio::test]
    async fn a_value_with_a_wrong_checksum_names_its_key_and_the_others_are_read() {
        let dir = tempfile::tempdir().unwrap();
        write_raw(dir.path(), &[(SCHEMA_KEY, &1_u32.to_be_bytes()), (b"run/1", b"x"), (b"run/2", b"y")]);
        let db = sled::open(dir.path()).unwrap();
        let moved = db.get(b"run/1").unwrap().unwrap();
        db.insert(b"run/3", moved).unwrap();
        db.flush().unwrap();
        drop(db);
        let store = SledStore::open(SledSettings::new(dir.path())).await.unwrap();
        let key = |text| crate::Key::new(text).unwrap();
        let error = store.get(&key("run/3")).await.unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt { what } if what.contains("\"run/3\"")), "{error}");
        assert!(store.scan(b"run/", None, 10, crate::Direction::Ascending).await.is_err());
        assert!(store.get(&key("run/2")).await.unwrap().is_some());
        store.close().await.unwrap();
    }
}
