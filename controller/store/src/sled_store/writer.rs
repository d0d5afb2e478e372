//! The one thread that commits.
//!
//! It gathers the requests that wait, judges each, writes those that pass as one sled batch, flushes, syncs, and only
//! then answers. One writer, because sled hangs when many tasks flush at once (security-and-delivery §4.1) and because
//! preconditions need nobody else to write between check and write.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::failure::Failure;
use super::group_state::GroupState;
use super::mark::GroupMark;
use super::space::{SpaceFloor, free_bytes};
use super::visible::Visible;
use super::watchdog::Watched;
use crate::batch::{Batch, Committed, WriteId};
use crate::commit_plan::{GROUP_KEY, GroupPlan, StoredView, Writes};
use crate::contract::MAX_BATCH_BYTES;
use crate::error::StoreError;

/// Requests that may wait for the writer: two full groups, so that the next group is there when one is durable. When
/// it is full, callers wait. Worst case 256 MiB (all batches at their limit), ordinarily less than 1 MiB.
pub(crate) const QUEUE_REQUESTS: usize = 256;
/// Requests of one group: the size at which the cost of a flush was measured to be spread thin (79,000 commits/s,
/// security-and-delivery §4.1).
const GROUP_REQUESTS: usize = 128;
/// A group takes no further request once it has this many bytes: bounds the time to flush and the values held back.
const GROUP_BYTES: usize = 4 * MAX_BATCH_BYTES;

/// What reaches the writer.
pub(crate) enum Message {
    /// Commit this, and answer when it is durable.
    Commit(Request),
    /// End, when everything before it is done.
    Close,
}

/// One commit with its way back.
pub(crate) struct Request {
    pub(crate) batch: Batch,
    pub(crate) answer: oneshot::Sender<Result<Committed, StoreError>>,
}

/// The writer's belongings.
pub(crate) struct Writer {
    pub(crate) db: sled::Db,
    pub(crate) data_file: File,
    pub(crate) visible: Arc<Visible>,
    pub(crate) failure: Arc<Failure>,
    pub(crate) space: SpaceFloor,
    pub(crate) watched: Arc<Watched>,
    pub(crate) queue: mpsc::Receiver<Message>,
    /// The last durable group, and where its number is noted.
    pub(crate) last_group: GroupState,
    pub(crate) mark: GroupMark,
}

struct Judged {
    write_id: WriteId,
    answer: oneshot::Sender<Result<Committed, StoreError>>,
    verdict: Result<Committed, StoreError>,
}

impl Writer {
    /// Works until it is told to close or nobody can ask any more.
    pub(crate) fn run(mut self) {
        while let Some(Message::Commit(first)) = self.queue.blocking_recv() {
            self.watched.begin();
            let (group, is_closing) = self.gather(first);
            self.commit_group(group);
            self.watched.end();
            if is_closing {
                break;
            }
        }
        self.refuse_the_rest();
        if self.failure.is_set() {
            // sled's own threads may be dead, and dropping the last handle would wait for them for ever. The process
            // ends anyway.
            std::mem::forget(self.db);
        } else if let Err(error) = self.mark.sync() {
            tracing::warn!(%error, "the mark of the last durable group could not be synced");
        }
    }

    /// What waits behind the first request, up to the limits of a group.
    fn gather(&mut self, first: Request) -> (Vec<Request>, bool) {
        let mut bytes = first.batch.known_bytes();
        let mut group = vec![first];
        while group.len() < GROUP_REQUESTS && bytes < GROUP_BYTES {
            match self.queue.try_recv() {
                Ok(Message::Commit(request)) => {
                    bytes += request.batch.known_bytes();
                    group.push(request);
                }
                Ok(Message::Close) => return (group, true),
                Err(_) => break,
            }
        }
        (group, false)
    }

    fn commit_group(&mut self, group: Vec<Request>) {
        let (mut judged, writes) = self.judge(group);
        let written = match writes {
            // The tree could not be read: nothing of this group was applied.
            Err(error) => {
                for one in judged.iter_mut().filter(|one| one.verdict.is_ok()) {
                    one.verdict = Err(error.clone());
                }
                Ok(())
            }
            Ok(writes) if writes.is_empty() => Ok(()),
            Ok(writes) => self.make_durable(writes),
        };
        // Refusals are answered after the flush too: somebody who lost against a request of this group would read the
        // value from before it, and lose again.
        for one in judged {
            let answer = match (&written, one.verdict) {
                (Err(error), Ok(_)) => {
                    Err(StoreError::OutcomeUnknown { write_id: one.write_id, reason: error.to_string() })
                }
                (_, verdict) => verdict,
            };
            // A caller who has gone away treats that commit as unknown; there is nobody to tell.
            drop(one.answer.send(answer));
        }
    }

    /// The verdict on each request, and what the group writes, unless the tree could not be read.
    fn judge(&self, group: Vec<Request>) -> (Vec<Judged>, Result<Writes, StoreError>) {
        let view = TreeView { db: &self.db, failure: &self.failure, failed_with: RefCell::new(None) };
        let free = free_bytes(&self.space.path);
        let mut plan = GroupPlan::new(&view);
        let judged = group
            .into_iter()
            .map(|Request { batch, answer }| {
                let write_id = batch.write_id;
                let verdict = self
                    .failure
                    .check()
                    .and_then(|()| self.check_space(&free, batch.from_reserve))
                    .and_then(|()| plan.add(batch));
                Judged { write_id, answer, verdict }
            })
            .collect();
        let writes = plan.into_writes();
        (judged, view.failed_with.into_inner().map_or(Ok(writes), Err))
    }

    fn check_space(&self, free: &io::Result<u64>, from_reserve: bool) -> Result<(), StoreError> {
        match free {
            Ok(free) => self.space.check(*free, from_reserve),
            Err(error) => Err(StoreError::Unavailable {
                reason: format!("the free space of {} cannot be read ({error})", self.space.path.display()),
            }),
        }
    }

    /// Applies, flushes, syncs. Any error leaves the outcome of the group unknown and the store failed.
    fn make_durable(&mut self, writes: Writes) -> Result<(), StoreError> {
        let before = self.failure.guard(|| {
            let held_before =
                |key: &Vec<u8>| Ok((key.clone(), self.db.get(key)?.map(|sealed| sealed.to_vec())));
            writes.keys().map(held_before).collect::<sled::Result<Writes>>()
        })?;
        let group = self.last_group.after(&before, &writes);
        // Nobody reads this key through the contract, so it is not held back.
        let mut batch = sled::Batch::default();
        batch.insert(GROUP_KEY, group.seal());
        for (key, sealed) in writes {
            match sealed {
                Some(sealed) => batch.insert(key, sealed),
                None => batch.remove(key),
            }
        }
        self.visible.hold_back(before);
        self.failure.guard(|| {
            self.db.apply_batch(batch)?;
            self.db.flush()?;
            self.data_file.sync_data()?;
            Ok(())
        })?;
        self.last_group = group;
        self.visible.reveal();
        if let Err(error) = self.mark.write(group.number) {
            // The group is durable; only a later loss of it would not be noticed.
            tracing::warn!(%error, group = group.number, "the last durable group could not be marked");
        }
        Ok(())
    }

    /// Answers those who came too late, so that they know nothing was written.
    fn refuse_the_rest(&mut self) {
        self.queue.close();
        while let Ok(message) = self.queue.try_recv() {
            if let Message::Commit(request) = message {
                drop(request.answer.send(Err(closed())));
            }
        }
    }
}

/// What callers of a closed store get.
pub(crate) fn closed() -> StoreError {
    StoreError::Unavailable { reason: "the store is closed; the process is stopping".to_owned() }
}

/// The tree as the plan sees it; remembers when it could not be read.
struct TreeView<'a> {
    db: &'a sled::Db,
    failure: &'a Failure,
    failed_with: RefCell<Option<StoreError>>,
}

impl StoredView for TreeView<'_> {
    fn stored(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.failure.guard(|| self.db.get(key));
        let found = found.inspect_err(|error| *self.failed_with.borrow_mut() = Some(error.clone()))?;
        Ok(found.map(|sealed| sealed.to_vec()))
    }
}
