//! The contract in front of readers and writer.
//!
//! Gets run on the calling thread: a value is in sled's cache or one read of a few KiB away from the page cache, and
//! handing it to another thread would cost more than the read. Scans copy up to 7 MB and go to the blocking threads.
//! Commits wait for the writer thread without blocking anybody.

use std::panic;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::directory::Directory;
use super::failure::Failure;
use super::visible::{Closed, Visible};
use super::watchdog::Watchdog;
use super::writer::{Message, Request, closed};
use crate::batch::{Batch, Committed};
use crate::commit_plan::{counter_key, read_counter};
use crate::contract::{Direction, Entry, KvStore, check_scan_limit};
use crate::envelope;
use crate::error::StoreError;
use crate::key::{Key, LogName};
use crate::scan_range::ScanRange;

/// A store in a local directory. Close it ([`KvStore::close`]) before the process ends; a store that was not closed
/// is opened on trial the next time.
pub struct SledStore {
    pub(crate) directory: Directory,
    pub(crate) visible: Arc<Visible>,
    pub(crate) failure: Arc<Failure>,
    pub(crate) queue: mpsc::Sender<Message>,
    /// The threads, until they are joined.
    pub(crate) threads: Mutex<Option<Threads>>,
}

pub(crate) struct Threads {
    pub(crate) writer: JoinHandle<()>,
    pub(crate) watchdog: Watchdog,
}

impl SledStore {
    fn sealed(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.failure.guard(|| self.visible.get(key))?.map_err(|Closed| closed())
    }

    /// Joins the threads and gives sled's files back; blocks.
    fn end(
        threads: Option<Threads>,
        visible: &Visible,
        failure: &Failure,
        directory: &Directory,
    ) -> Result<(), StoreError> {
        let Some(threads) = threads else { return Ok(()) };
        if threads.writer.join().is_err() {
            failure.set("its writer has panicked");
        }
        threads.watchdog.stop();
        let db = visible.take();
        if let Err(error) = failure.check() {
            // See Writer::run: dropping a failed sled may wait for ever.
            std::mem::forget(db);
            return Err(error);
        }
        let Some(db) = db else { return Ok(()) };
        failure.guard(|| db.flush())?;
        drop(db);
        directory.note_clean()
    }
}

impl Drop for SledStore {
    /// A store that was not closed: the writer ends by itself when its queue is gone, the watchdog must be told. The
    /// mark of an unclean stop stays.
    fn drop(&mut self) {
        if let Some(threads) = self.threads.get_mut().unwrap_or_else(PoisonError::into_inner) {
            threads.watchdog.release();
        }
    }
}

#[async_trait]
impl KvStore for SledStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.sealed(key.as_bytes())?.map(|sealed| envelope::open(key.as_bytes(), &sealed)).transpose()
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<(Key, Entry)>, StoreError> {
        check_scan_limit(limit)?;
        let Some(range) = ScanRange::new(prefix, after, direction) else { return Ok(Vec::new()) };
        let (visible, failure) = (self.visible.clone(), self.failure.clone());
        let page = move || -> Result<Vec<(Key, Entry)>, StoreError> {
            let page =
                failure.guard(|| visible.page(&range, limit, direction))?.map_err(|Closed| closed())?;
            let open = |(key, sealed): (Vec<u8>, Vec<u8>)| {
                let entry = envelope::open(&key, &sealed)?;
                Ok((Key::from_stored(key), entry))
            };
            page.into_iter().map(open).collect()
        };
        run_blocking(page).await?
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        self.failure.check()?;
        batch.check()?;
        let write_id = batch.write_id;
        let (answer, answered) = oneshot::channel();
        self.queue.send(Message::Commit(Request { batch, answer })).await.map_err(|_| closed())?;
        answered.await.unwrap_or_else(|_| {
            Err(StoreError::OutcomeUnknown { write_id, reason: "the writer has ended".to_owned() })
        })
    }

    async fn log_len(&self, log: &LogName) -> Result<u64, StoreError> {
        let counter = counter_key(log);
        read_counter(&counter, self.sealed(&counter)?.as_deref())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.sealed(crate::commit_plan::SCHEMA_KEY).map(|_| ())
    }

    async fn failed(&self) -> StoreError {
        self.failure.wait().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        // An error means that the writer has ended already.
        drop(self.queue.send(Message::Close).await);
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (visible, failure, directory) =
            (self.visible.clone(), self.failure.clone(), self.directory.clone());
        run_blocking(move || Self::end(threads, &visible, &failure, &directory)).await?
    }
}

/// Runs work that blocks; it is cancelled only when the runtime shuts down.
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => Ok(value),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => panic::resume_unwind(panic),
            Err(_) => Err(closed()),
        },
    }
}
