//! Live sessions: which node is connected by which link, a bounded outbox a session, and what nodes said of
//! their jobs between `offered` and the end.
//!
//! Lost messages are harmless: what a node should be doing stands in its inbox in the store, and the session
//! offers it again. So a full outbox drops, and says so by returning false.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use fleet_rollout::Mono;
use fleet_types::assignment::{Assignment, WaveProof};
use fleet_types::id::{Attempt, LinkEpoch, NodeId, RunId};
use fleet_types::job::{JobLimits, JobState};
use tokio::sync::{mpsc, watch};

/// What the controller says to a node outside of answers.
#[derive(Debug, Clone)]
pub enum ToNode {
    /// Work on this.
    Assign(Box<(Assignment, WaveProof)>),
    /// Stop this.
    Cancel {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: Attempt,
        /// Why.
        reason: String,
    },
}

/// What a node said last of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveJob {
    /// The attempt that it spoke of.
    pub attempt: Attempt,
    /// Where it stands.
    pub state: JobState,
    /// How long it may still take, from `said`; `None` when the node does not say.
    pub limits: Option<JobLimits>,
    /// When it said so.
    pub said: Mono,
}

/// Messages a session may be behind with. A node has one changing job and a few reading ones at a time; the
/// rest is offered again by the session's timer.
const OUTBOX: usize = 64;

/// Jobs a node may be heard of between offer and end: far more than it works on, and little memory. Only open
/// jobs come here (`service/jobs.rs`); this holds whatever else may be wrong.
const MAX_LIVE: usize = 1_024;

struct Session {
    epoch: LinkEpoch,
    outbox: mpsc::Sender<ToNode>,
    /// A message found no room: the session looks into the node's inbox again.
    missed: bool,
}

#[derive(Default)]
struct Inner {
    sessions: HashMap<NodeId, Session>,
    live: HashMap<NodeId, HashMap<RunId, LiveJob>>,
}

/// All sessions of this controller.
pub struct Sessions {
    inner: Mutex<Inner>,
    count: watch::Sender<usize>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { inner: Mutex::default(), count: watch::channel(0).0 }
    }
}

impl Sessions {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Registers a session; an older one of the same node loses its outbox and ends. `None` when a newer one
    /// is already there.
    pub fn register(&self, node: NodeId, epoch: LinkEpoch) -> Option<mpsc::Receiver<ToNode>> {
        let (sender, receiver) = mpsc::channel(OUTBOX);
        let registered = self.with(|inner| {
            if inner.sessions.get(&node).is_some_and(|old| old.epoch >= epoch) {
                return false;
            }
            inner.sessions.insert(node, Session { epoch, outbox: sender, missed: false });
            self.count.send_replace(inner.sessions.len());
            true
        });
        registered.then_some(receiver)
    }

    /// Removes a session if it is still the one of `epoch`; says whether it was.
    pub fn unregister(&self, node: NodeId, epoch: LinkEpoch) -> bool {
        self.with(|inner| {
            let own = inner.sessions.get(&node).is_some_and(|session| session.epoch == epoch);
            if own {
                inner.sessions.remove(&node);
                self.count.send_replace(inner.sessions.len());
            }
            own
        })
    }

    /// Takes a node's session away: its outbox ends, and with it the link. Says whether there was one.
    pub fn close(&self, node: NodeId) -> bool {
        self.with(|inner| {
            let was_there = inner.sessions.remove(&node).is_some();
            self.count.send_replace(inner.sessions.len());
            was_there
        })
    }

    /// Is this the node's newest link?
    pub fn is_current(&self, node: NodeId, epoch: LinkEpoch) -> bool {
        self.epoch(node) == Some(epoch)
    }

    /// The link of a connected node.
    pub fn epoch(&self, node: NodeId) -> Option<LinkEpoch> {
        self.with(|inner| inner.sessions.get(&node).map(|session| session.epoch))
    }

    /// How many nodes are connected.
    pub fn connected(&self) -> usize {
        *self.count.borrow()
    }

    /// Puts a message into a node's outbox; false when it is not connected or its outbox is full. In the
    /// latter case the session is told to look into the node's inbox again.
    pub fn send(&self, node: NodeId, message: ToNode) -> bool {
        self.with(|inner| {
            let Some(session) = inner.sessions.get_mut(&node) else { return false };
            let sent = session.outbox.try_send(message).is_ok();
            session.missed |= !sent;
            sent
        })
    }

    /// Did a message of this link find no room since the last call?
    pub fn take_missed(&self, node: NodeId, epoch: LinkEpoch) -> bool {
        self.with(|inner| {
            let session = inner.sessions.get_mut(&node).filter(|session| session.epoch == epoch);
            session.is_some_and(|session| std::mem::take(&mut session.missed))
        })
    }

    /// Notes what a node says of a job; beyond [`MAX_LIVE`] jobs nothing new is noted.
    pub fn set_live(
        &self,
        node: NodeId,
        run: RunId,
        attempt: Attempt,
        state: JobState,
        limits: Option<JobLimits>,
        said: Mono,
    ) {
        self.with(|inner| {
            let jobs = inner.live.entry(node).or_default();
            if jobs.len() < MAX_LIVE || jobs.contains_key(&run) {
                jobs.insert(run, LiveJob { attempt, state, limits, said });
            }
        });
    }

    /// What a node said last of a job.
    pub fn live(&self, node: NodeId, run: RunId) -> Option<LiveJob> {
        self.with(|inner| inner.live.get(&node)?.get(&run).cloned())
    }

    /// Forgets a job that has ended.
    pub fn clear_live(&self, node: NodeId, run: RunId) {
        self.with(|inner| {
            if let Some(jobs) = inner.live.get_mut(&node) {
                jobs.remove(&run);
                if jobs.is_empty() {
                    inner.live.remove(&node);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_link_never_replaces_a_newer_one() {
        let sessions = Sessions::default();
        let node = NodeId::from_uuid(uuid::Uuid::from_u128(1));
        let mut first = sessions.register(node, LinkEpoch(4)).unwrap();
        assert!(sessions.register(node, LinkEpoch(4)).is_none());
        assert!(sessions.register(node, LinkEpoch(3)).is_none());
        let _second = sessions.register(node, LinkEpoch(5)).unwrap();
        assert!(first.try_recv().is_err_and(|e| e == mpsc::error::TryRecvError::Disconnected));
        assert!(!sessions.unregister(node, LinkEpoch(4)), "the old session must not remove the new one");
        assert_eq!(sessions.connected(), 1);
    }

    #[test]
    fn a_node_that_talks_of_endless_jobs_fills_no_memory() {
        let sessions = Sessions::default();
        let node = NodeId::from_uuid(uuid::Uuid::from_u128(1));
        let say = |n: usize, state| {
            let run = RunId::from_number(n as u64);
            sessions.set_live(node, run, Attempt(1), state, None, Mono::default());
        };
        (0..2 * MAX_LIVE).for_each(|n| say(n, JobState::Accepted));
        let heard = |n: usize| sessions.live(node, RunId::from_number(n as u64));
        assert!(heard(MAX_LIVE - 1).is_some() && heard(MAX_LIVE).is_none());
        say(0, JobState::RollingBack { step: "s".to_owned() });
        assert!(heard(0).is_some_and(|live| live.state.as_str() == "rolling_back"), "known ones go on");
    }

    #[test]
    fn a_full_outbox_drops_and_says_so() {
        let sessions = Sessions::default();
        let node = NodeId::from_uuid(uuid::Uuid::from_u128(1));
        let _outbox = sessions.register(node, LinkEpoch(1)).unwrap();
        let cancel =
            ToNode::Cancel { run: RunId::from_number(1), attempt: Attempt(1), reason: String::new() };
        let accepted = (0..=OUTBOX).filter(|_| sessions.send(node, cancel.clone())).count();
        assert_eq!(accepted, OUTBOX);
        assert!(sessions.take_missed(node, LinkEpoch(1)), "the session learns of it");
        assert!(!sessions.take_missed(node, LinkEpoch(1)), "once");
    }
}
