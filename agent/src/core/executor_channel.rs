//! The executor's socket as the core sees it: a bounded way in, a bounded queue out.
//!
//! The executor is behind a Unix socket pair also where both run in one process (security-and-delivery
//! §1.16). The owner of the link never waits for the executor: what goes to it queues here, and when the
//! queue is full the controller is not read any more, which HTTP/2 passes on.

use std::collections::VecDeque;
use std::time::Duration;

use fleet_executor::socket::{CorePort, Socket};
use fleet_proto::pb;
use fleet_proto::pb::{core_message, executor_message};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::error;

use crate::error::chain;

/// Messages under way on the socket in each direction; they are small, and this is many round trips' worth.
pub const SOCKET_MESSAGES: usize = 32;
/// Messages that may wait for the executor before the controller is not read any more.
const MAX_QUEUED: usize = 64;
/// An executor that takes nothing for this long is stuck: the process ends and is started again. Longer
/// than any fsync of the journal on a dying disk that still answers.
pub const STUCK_LIMIT: Duration = Duration::from_mins(1);

/// The way to the executor.
#[derive(Debug)]
pub struct ToExecutor {
    queue: VecDeque<core_message::Body>,
    socket: mpsc::Sender<pb::CoreMessage>,
    waits_since: Option<Instant>,
}

/// The way from the executor.
#[derive(Debug)]
pub struct FromExecutor {
    socket: mpsc::Receiver<pb::ExecutorMessage>,
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
    /// be cut by a wait that is dropped; they end with the socket or with the channel.
    pub fn open(socket: Socket) -> std::io::Result<Self> {
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
                        if incoming.send(message).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(failed) => {
                        error!("cannot receive from the executor: {}", chain(&failed));
                        return;
                    }
                }
            }
        });
        Ok(Self::new(to, from))
    }

    const fn new(to: mpsc::Sender<pb::CoreMessage>, from: mpsc::Receiver<pb::ExecutorMessage>) -> Self {
        Self {
            to: ToExecutor { queue: VecDeque::new(), socket: to, waits_since: None },
            from: FromExecutor { socket: from },
        }
    }
}

impl ToExecutor {
    /// Queues a message; order is kept.
    pub fn push(&mut self, body: core_message::Body) {
        self.waits_since.get_or_insert_with(Instant::now);
        self.queue.push_back(body);
    }

    /// Hands over the first message; waits for ever when there is none. Safe to drop at any await.
    pub async fn progress(&mut self) {
        if self.queue.is_empty() {
            return std::future::pending().await;
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

    /// When the executor counts as stuck.
    pub fn stuck_at(&self) -> Option<Instant> {
        self.waits_since.map(|since| since + STUCK_LIMIT)
    }
}

impl FromExecutor {
    /// The next message with a body; `None` when the executor is gone. Safe to drop at any await.
    pub async fn next(&mut self) -> Option<executor_message::Body> {
        loop {
            // A message without a body is of a newer executor; there is none in the same package.
            if let Some(body) = self.socket.recv().await?.body {
                return Some(body);
            }
        }
    }
}
