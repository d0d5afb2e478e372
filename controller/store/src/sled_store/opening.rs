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
use super::log_check::{CheckedLogs, check_logs};
use super::probe::run_probe_command;
use super::settings::SledSettings;
use super::space::SpaceFloor;
use super::store::{SledStore, Threads, run_blocking};
use super::visible::Visible;
use super::watchdog::Watchdog;
use super::writer::{QUEUE_REQUESTS, Writer};
use crate::batch::WriteId;
use crate::commit_plan::SCHEMA_KEY;
use crate::envelope;
use crate::error::StoreError;

/// The layout of the keys that the store itself keeps: schema version, log counters, records, envelopes.
pub(crate) const SCHEMA_VERSION: u32 = 1;
/// Who wrote the schema key: no caller's commit.
const SCHEMA_WRITE_ID: WriteId = WriteId::from_bytes([0; 16]);

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
        let (db, _) = open_checked(&directory, settings.cache_bytes)?;
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
        };
        let writer = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(io_error)?;
        let threads = Mutex::new(Some(Threads { writer, watchdog }));
        Ok(Arc::new(Self { directory, visible, failure, queue, threads }))
    }
}

/// Opens sled and checks what a start can check. The mark of an unclean stop is set afterwards, whether or not it was
/// before; a refusal leaves it as it was.
pub(crate) fn open_checked(
    directory: &Directory,
    cache_bytes: u64,
) -> Result<(sled::Db, CheckedLogs), StoreError> {
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

fn open_sled(directory: &Directory, cache_bytes: u64) -> Result<(sled::Db, CheckedLogs), StoreError> {
    // flush_every_ms stays on: only sled's background flusher reclaims space (security-and-delivery §4.6).
    let config = sled::Config::new().path(&directory.path).cache_capacity(cache_bytes);
    let db = run_caught(&directory.path, || config.open())?;
    check_schema(directory, &db)?;
    let checked = run_caught(&directory.path, || check_logs(&db))??;
    Ok((db, checked))
}

/// Reads the schema version, or writes it into a store that is new.
fn check_schema(directory: &Directory, db: &sled::Db) -> Result<(), StoreError> {
    let path = &directory.path;
    let damaged = |how: &str| StoreError::Corrupt { what: format!("{} {how}", path.display()) };
    let Some(sealed) = run_caught(path, || db.get(SCHEMA_KEY))? else {
        if directory.is_created() || run_caught(path, || db.first())?.is_some() {
            return Err(damaged("has lost its content: the schema version is missing"));
        }
        let sealed = envelope::seal(SCHEMA_KEY, SCHEMA_WRITE_ID, &SCHEMA_VERSION.to_be_bytes());
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
