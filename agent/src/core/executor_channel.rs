//! The executor's socket as the core sees it: a bounded way in, a bounded queue out.
//!
//! The executor is behind a Unix socket pair also where both run in one process (security-and-delivery
//! §1.16). The owner of the link never waits for the executor: what goes to it queues here, and when the
//! queue is full the controller is not read any more, which HTTP/2 passes on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fleet_executor::socket::{CorePort, Socket};
use fleet_proto::pb;
use fleet_proto::pb::{core_message, executor_message};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::error;

use crate::error::chain;

/// Messages under way on the socket in each direction; they are small, and this is many round trips' worth.
pub const SOCKET_MESSAGES: usize = 32;
/// Messages that may wait for the executor before the controller is not read any more.
const MAX_QUEUED: usize = 64;
/// An executor that takes nothing for this long is stuck: the process ends and is started again. Longer
/// than any fsync of the journal on a dying disk that still answers.
pub const STUCK_LIMIT: Duration = Duration::from_mins(1);
/// Beats without a word of the executor after which it counts as hung: a minute, as above. Counted by the core's own
/// beats, so that a machine that slept blames nobody.
const HUNG_BEATS: u32 = 12;
/// Beats after which the controller is not told any more that this node is well.
const SILENT_BEATS: u32 = 6;

/// Beats since the executor's last word.
#[derive(Debug, Default)]
struct Hearing(AtomicU32);

impl Hearing {
    /// While a message waits to be taken by the core, the executor's silence is the core's doing.
    const PAUSED: u32 = u32::MAX;

    fn set(&self, beats: u32) {
        self.0.store(beats, Ordering::Relaxed);
    }

    fn beats(&self) -> u32 {
        Some(self.0.load(Ordering::Relaxed)).filter(|beats| *beats != Self::PAUSED).unwrap_or(0)
    }

    fn beat(&self) {
        let next =
            |beats: u32| (beats != Self::PAUSED).then(|| beats.saturating_add(1).min(Self::PAUSED - 1));
        // Fails while paused, which is right.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

/// The way to the executor.
#[derive(Debug)]
pub struct ToExecutor {
    queue: VecDeque<core_message::Body>,
    socket: mpsc::Sender<pb::CoreMessage>,
    waits_since: Option<Instant>,
    hearing: Arc<Hearing>,
    beat: Duration,
    beaten: Instant,
}

/// The way from the executor.
#[derive(Debug)]
pub struct FromExecutor {
    socket: mpsc::Receiver<pb::ExecutorMessage>,
    has_left: bool,
}

/// Both ways.
#[derive(Debug)]
pub struct ExecutorChannel {
    /// To the executor.
    pub to: ToExecutor,
    /// From the executor.
    pub from: FromExecutor,
}

impl ExecutorChannel {
    /// A channel over the core's end of the socket pair. Two tasks move the messages, because a frame must not
    /// be cut by a wait that is dropped; they end with the socket or with the channel. Each half says every `beat`
    /// that it is alive.
    pub fn open(socket: Socket, beat: Duration) -> std::io::Result<Self> {
        let hearing = Arc::new(Hearing::default());
        let heard = Arc::clone(&hearing);
        let (mut sender, mut receiver) = CorePort::bind(socket)?.split();
        let (to, mut outgoing) = mpsc::channel::<pb::CoreMessage>(SOCKET_MESSAGES);
        let (incoming, from) = mpsc::channel(SOCKET_MESSAGES);
        tokio::spawn(async move {
            while let Some(message) = outgoing.recv().await {
                if let Err(failed) = sender.send(&message).await {
                    error!("cannot send to the executor: {}", chain(&failed));
                    return;
                }
            }
        });
        tokio::spawn(async move {
            loop {
                match receiver.receive().await {
                    Ok(Some(message)) => {
                        if !matches!(message.body, Some(executor_message::Body::Alive(_))) {
                            heard.set(Hearing::PAUSED);
                            if incoming.send(message).await.is_err() {
                                return;
                            }
                        }
                        heard.set(0);
                    }
                    Ok(None) => return,
                    Err(failed) => {
                        error!("cannot receive from the executor: {}", chain(&failed));
                        return;
                    }
                }
            }
        });
        let (queue, beaten) = (VecDeque::new(), Instant::now());
        Ok(Self {
            to: ToExecutor { queue, socket: to, waits_since: None, hearing, beat, beaten },
            from: FromExecutor { socket: from, has_left: false },
        })
    }
}

impl ToExecutor {
    /// Queues a message; order is kept.
    pub fn push(&mut self, body: core_message::Body) {
        self.waits_since.get_or_insert_with(Instant::now);
        self.queue.push_back(body);
    }

    /// Hands over the first message; when there is none, says in its time that the core is alive. Safe to drop at any
    /// await.
    pub async fn progress(&mut self) {
        if self.queue.is_empty() {
            sleep_until(self.beaten + self.beat).await;
            self.beaten = Instant::now();
            self.hearing.beat();
            self.push(core_message::Body::Alive(pb::Alive {}));
        }
        let Ok(permit) = self.socket.reserve().await else {
            // The executor is gone; the way from it says so.
            self.queue.clear();
            self.waits_since = None;
            return;
        };
        if let Some(body) = self.queue.pop_front() {
            permit.send(pb::CoreMessage { body: Some(body) });
        }
        self.waits_since = (!self.queue.is_empty()).then(Instant::now);
    }

    /// May the controller send more?
    pub fn has_room(&self) -> bool {
        self.queue.len() < MAX_QUEUED
    }

    /// When the executor counts as stuck: it takes nothing, or it says nothing.
    pub fn stuck_at(&self) -> Option<Instant> {
        if self.hearing.beats() >= HUNG_BEATS {
            return Some(self.beaten);
        }
        self.waits_since.map(|since| since + STUCK_LIMIT)
    }

    /// Has the executor said nothing for so long that nobody should be told that this node is well?
    pub fn is_silent(&self) -> bool {
        self.hearing.beats() >= SILENT_BEATS
    }
}

impl FromExecutor {
    /// The next message with a body; `None` when the executor is gone. Safe to drop at any await.
    pub async fn next(&mut self) -> Option<executor_message::Body> {
        loop {
            // A message without a body is of a newer executor; there is none in the same package.
            match self.socket.recv().await?.body {
                Some(executor_message::Body::Leaving(_)) => self.has_left = true,
                Some(body) => return Some(body),
                None => {}
            }
        }
    }

    /// Did it say that it stops in good order?
    pub const fn has_left(&self) -> bool {
        self.has_left
    }
}
