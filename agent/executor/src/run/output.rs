//! What tasks print: kept head and tail, sent in chunks until the controller says that they are stored.
//!
//! Output is progress: it lives in memory only, it is dropped before it delays anything, and what was
//! dropped is marked (security-and-delivery §2.9). How fast it goes is the flow control of its stream; little is under way
//! at a time, so that the core need not keep any. Written by tasks' threads, drained by a pump of its own, steered by the
//! dispatcher.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleet_types::digest::{Digest, Hasher};
use fleet_types::report::KeptOutput;
use tokio::sync::Notify;

use crate::journal::JobKey;
use crate::tasks::OutputSink;

/// Data of one chunk: half of what a chunk may hold, so that a control message waits for little.
const CHUNK_BYTES: usize = 32 * 1024;
/// May be under way of a step: two chunks keep the stream busy while one of them is stored.
const WINDOW: u64 = 2 * CHUNK_BYTES as u64;
/// Steps whose output is under way at a time: more than run beside each other. With [`WINDOW`] what the core holds at most.
const AT_ONCE: usize = 8;
/// A step whose output was under way so often when the controller refused it is given up.
const MAX_REFUSED: u32 = 3;
/// Bytes kept of ended steps whose output is not taken yet; beyond, the oldest step's output goes.
const MAX_ENDED_BYTES: usize = 4 * 1024 * 1024;

/// A piece of a step's output on its way to the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPiece {
    /// The job.
    pub key: JobKey,
    /// The step's id.
    pub step: String,
    /// Where the piece begins in the step's output.
    pub offset: u64,
    /// At most half of what a chunk of the wire may hold.
    pub data: Vec<u8>,
    /// The output ends with it.
    pub last: bool,
}

/// The output of all steps.
#[derive(Debug)]
pub struct OutputHub {
    hub: Mutex<Hub>,
    news: Notify,
    step_limit: usize,
}

#[derive(Debug, Default)]
struct Hub {
    linked: bool,
    spools: VecDeque<Spool>,
}

/// The output of one step.
#[derive(Debug)]
struct Spool {
    key: JobKey,
    step: String,
    /// What is kept from the start; once ended, all that is kept.
    kept: Vec<u8>,
    /// The newest bytes beyond the head.
    tail: VecDeque<u8>,
    dropped: u64,
    /// Over all that was written, kept or not.
    hasher: Hasher,
    written: u64,
    ended: bool,
    /// Taken by the receiver.
    stored: u64,
    sent: u64,
    last_sent: bool,
    /// How often the controller has said no while this was under way.
    refused: u32,
}

impl OutputHub {
    /// A hub that keeps `step_limit` bytes of a step, half of it from the start and half from the end.
    pub fn new(step_limit: usize) -> Arc<Self> {
        Arc::new(Self { hub: Mutex::default(), news: Notify::new(), step_limit })
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the output of a step; its sink may be written from any thread.
    pub fn open(self: &Arc<Self>, key: JobKey, step: &str) -> StepOutput {
        let mut hub = self.hub();
        // A step that is tried again goes on with its output.
        if !hub.spools.iter().any(|spool| spool.is(key, step)) {
            hub.spools.push_back(Spool {
                key,
                step: step.to_owned(),
                kept: Vec::new(),
                tail: VecDeque::new(),
                dropped: 0,
                hasher: Hasher::new(),
                written: 0,
                ended: false,
                stored: 0,
                sent: 0,
                last_sent: false,
                refused: 0,
            });
        }
        StepOutput { hub: Arc::clone(self), key, step: step.to_owned() }
    }

    fn write(&self, key: JobKey, step: &str, bytes: &[u8]) {
        let half = self.step_limit / 2;
        if let Some(spool) = self.hub().spools.iter_mut().find(|s| s.is(key, step) && !s.ended) {
            spool.hasher.update(bytes);
            spool.written += bytes.len() as u64;
            let room = half.saturating_sub(spool.kept.len()).min(bytes.len());
            spool.kept.extend_from_slice(&bytes[..room]);
            spool.tail.extend(&bytes[room..]);
            let over = spool.tail.len().saturating_sub(half);
            spool.tail.drain(..over);
            spool.dropped += over as u64;
        }
        self.news.notify_one();
    }

    /// The step has ended: its tail follows its head, with a mark between them where something is missing.
    /// Gives the digest of all that it wrote, if it wrote anything, and what was kept, if that is not all.
    pub fn end(&self, key: JobKey, step: &str) -> (Option<Digest>, Option<KeptOutput>) {
        let mut ended = (None, None);
        let mut hub = self.hub();
        if let Some(spool) = hub.spools.iter_mut().find(|s| s.is(key, step) && !s.ended) {
            if spool.dropped > 0 {
                let mark = format!("\n[{} bytes left out]\n", spool.dropped);
                spool.kept.extend_from_slice(mark.as_bytes());
            }
            spool.kept.extend(std::mem::take(&mut spool.tail));
            spool.ended = true;
            let hasher = std::mem::take(&mut spool.hasher);
            let left_out = spool.dropped;
            ended.0 = (spool.written > 0).then(|| hasher.finish());
            ended.1 = (left_out > 0).then(|| KeptOutput { left_out, digest: Digest::of(&spool.kept) });
        }
        hub.spools.retain(|spool| !(spool.ended && spool.kept.is_empty()));
        let mut held: usize = hub.spools.iter().filter(|s| s.ended).map(|s| s.kept.len()).sum();
        while held > MAX_ENDED_BYTES
            && let Some(oldest) = hub.spools.iter().position(|spool| spool.ended)
        {
            held -= hub.spools.remove(oldest).map_or(0, |spool| spool.kept.len());
        }
        drop(hub);
        self.news.notify_one();
        ended
    }

    /// The controller has stored output up to `offset`.
    pub fn stored(&self, key: JobKey, step: &str, offset: u64) {
        let mut hub = self.hub();
        if let Some(spool) = hub.spools.iter_mut().find(|spool| spool.is(key, step)) {
            spool.stored = offset.clamp(spool.stored, spool.sent);
        }
        hub.spools.retain(|spool| !spool.is_taken());
        drop(hub);
        self.news.notify_one();
    }

    /// A link is up, or the output's stream has ended: what is not stored is sent again. Offsets make that harmless.
    /// Where the controller refused, what was under way each time is given up, so that it does not stand in the way.
    pub fn send_again(&self, refused: bool) {
        let mut hub = self.hub();
        hub.linked = true;
        for spool in &mut hub.spools {
            spool.refused += u32::from(refused && (spool.sent > spool.stored || spool.last_sent));
            spool.sent = spool.stored;
            spool.last_sent = false;
        }
        hub.spools.retain(|spool| spool.refused < MAX_REFUSED);
        // Whoever stood first may have been the reason.
        if refused && let Some(first) = hub.spools.pop_front() {
            hub.spools.push_back(first);
        }
        drop(hub);
        self.news.notify_one();
    }

    /// The link is gone: nothing is sent.
    pub fn link_down(&self) {
        self.hub().linked = false;
    }

    fn take_chunk(&self) -> Option<OutputPiece> {
        let mut hub = self.hub();
        if !hub.linked {
            return None;
        }
        hub.spools.iter_mut().take(AT_ONCE).find_map(Spool::next_chunk)
    }

    /// The next chunk, when there is one to send.
    pub async fn next_chunk(&self) -> OutputPiece {
        loop {
            // Registered before looking, so that news between look and wait are not missed.
            let news = self.news.notified();
            if let Some(chunk) = self.take_chunk() {
                return chunk;
            }
            news.await;
        }
    }
}

impl Spool {
    fn is(&self, key: JobKey, step: &str) -> bool {
        self.key == key && self.step == step
    }

    fn is_taken(&self) -> bool {
        self.ended && self.last_sent && self.stored >= self.kept.len() as u64
    }

    fn next_chunk(&mut self) -> Option<OutputPiece> {
        let total = self.kept.len() as u64;
        let until = total.min(self.stored + WINDOW).min(self.sent + CHUNK_BYTES as u64);
        let last = self.ended && until == total;
        if until == self.sent && (!last || self.last_sent) {
            return None;
        }
        let offset = self.sent;
        let range = usize::try_from(offset).ok()?..usize::try_from(until).ok()?;
        let data = self.kept[range].to_vec();
        self.sent = until;
        self.last_sent |= last;
        Some(OutputPiece { key: self.key, step: self.step.clone(), offset, data, last })
    }
}

/// The sink of one step.
#[derive(Debug, Clone)]
pub struct StepOutput {
    hub: Arc<OutputHub>,
    key: JobKey,
    step: String,
}

impl OutputSink for StepOutput {
    fn write(&self, bytes: &[u8]) {
        self.hub.write(self.key, &self.step, bytes);
    }
}

#[cfg(test)]
mod tests {
    use fleet_types::id::{Attempt, RunId};

    use super::*;

    fn all_chunks(hub: &OutputHub) -> (Vec<u8>, bool) {
        let mut data = Vec::new();
        let mut last = false;
        while let Some(chunk) = hub.take_chunk() {
            assert_eq!(chunk.offset, data.len() as u64);
            data.extend(chunk.data);
            last |= chunk.last;
        }
        (data, last)
    }

    #[test]
    fn head_and_tail_are_kept_and_the_middle_is_marked() {
        let key = (RunId::from_number(1), Attempt(1));
        let hub = OutputHub::new(100);
        hub.send_again(false);
        let output = hub.open(key, "a");
        for n in 0..1000 {
            output.write(format!("{n:04}\n").as_bytes());
        }
        let (whole, kept) = hub.end(key, "a");
        let (data, last) = all_chunks(&hub);
        assert_eq!(kept, Some(KeptOutput { left_out: 4900, digest: Digest::of(&data) }));
        assert!(whole.is_some_and(|whole| whole != Digest::of(&data)));
        let text = String::from_utf8(data).unwrap();
        assert!(last && text.starts_with("0000\n0001\n") && text.ends_with("0998\n0999\n"), "{text}");
        assert!(text.contains("[4900 bytes left out]"), "{text}");
        hub.stored(key, "a", text.len() as u64);
        hub.send_again(false);
        assert_eq!(hub.take_chunk(), None);
    }

    #[test]
    fn little_is_under_way_and_what_is_not_stored_is_sent_again() {
        let key = (RunId::from_number(1), Attempt(1));
        let hub = OutputHub::new(2 * 1024 * 1024);
        let output = hub.open(key, "a");
        output.write(&vec![b'x'; 600 * 1024]);
        assert_eq!(hub.take_chunk(), None, "no link");
        hub.send_again(false);
        assert_eq!(all_chunks(&hub).0.len() as u64, WINDOW);
        hub.stored(key, "a", 10 * 1024);
        let next = hub.take_chunk().unwrap();
        assert_eq!((next.offset, next.data.len()), (WINDOW, 10 * 1024));
        // More than was sent cannot be stored.
        hub.stored(key, "a", u64::MAX);
        assert_eq!(hub.take_chunk().unwrap().offset, WINDOW + 10 * 1024);
        hub.link_down();
        assert_eq!(hub.take_chunk(), None);
        hub.send_again(false);
        assert_eq!(hub.take_chunk().unwrap().offset, WINDOW + 10 * 1024);
    }

    #[test]
    fn what_is_refused_again_and_again_stands_in_nobodys_way() {
        let key = |run| (RunId::from_number(run), Attempt(1));
        let hub = OutputHub::new(1024);
        hub.send_again(false);
        // More of them than may be under way at a time, and one behind them.
        for run in 0..=AT_ONCE as u64 {
            hub.open(key(run), "a").write(b"words");
            hub.end(key(run), "a");
        }
        let mut sent = std::collections::BTreeSet::new();
        for _ in 0..=MAX_REFUSED {
            while let Some(chunk) = hub.take_chunk() {
                sent.insert(chunk.key);
            }
            hub.send_again(true);
        }
        assert_eq!(sent.len(), AT_ONCE + 1, "each had its turn");
        for _ in 0..MAX_REFUSED {
            while hub.take_chunk().is_some() {}
            hub.send_again(true);
        }
        assert_eq!(hub.take_chunk(), None, "all are given up");
    }
}
