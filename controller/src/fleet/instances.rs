//! Which processes have connected as a node: two that take turns are two machines with one identity.
//!
//! An agent says in its hello which start of it speaks (the boot of its machine and a number drawn at the start of its
//! core). A start is over for good when another one has come: a machine that boots again, or an agent that is
//! started again, never says the old one any more. One that comes back was never away. In memory only; it decides
//! nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fleet_types::digest::Digest;
use fleet_types::id::NodeId;
use tokio::time::Instant;

/// Starts remembered of a node: two machines and a restart of each. About 200 bytes a node.
const REMEMBERED: usize = 4;
/// Comebacks within [`WINDOW`] that prove it. One could be a hello that was overtaken on its way by that of the
/// agent's next start.
const COMEBACKS: u32 = 2;
/// Two machines take each other's link away within the agents' longest back-off, a minute; this bears ten of them.
const WINDOW: Duration = Duration::from_mins(10);

/// What is remembered.
#[derive(Default)]
pub struct Instances(Mutex<HashMap<NodeId, Starts>>);

#[derive(Default)]
struct Starts {
    /// The present one last.
    seen: VecDeque<Digest>,
    comebacks: u32,
    first_comeback: Option<Instant>,
}

impl Instances {
    /// Notes a connect. True when two machines are known to take turns.
    pub fn note(&self, node: NodeId, start: Digest, now: Instant) -> bool {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let starts = nodes.entry(node).or_default();
        if starts.seen.back() == Some(&start) {
            return false;
        }
        if let Some(at) = starts.seen.iter().position(|seen| *seen == start) {
            starts.seen.remove(at);
            if starts.first_comeback.is_none_or(|first| now - first > WINDOW) {
                starts.first_comeback = Some(now);
                starts.comebacks = 0;
            }
            starts.comebacks += 1;
        } else if starts.seen.len() >= REMEMBERED {
            starts.seen.pop_front();
        }
        starts.seen.push_back(start);
        starts.comebacks >= COMEBACKS
    }

    /// Forgets a node: an operator has decided about it.
    pub fn forget(&self, node: NodeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says of each connect, a second after the one before it, whether two machines are seen.
    fn told(starts: &str, step: Duration) -> Vec<bool> {
        let instances = Instances::default();
        let (id, mut now) = (NodeId::from_uuid(uuid::Uuid::from_u128(1)), Instant::now());
        let mut note = |start: char| {
            now += step;
            instances.note(id, Digest::of(start.to_string().as_bytes()), now)
        };
        starts.chars().map(&mut note).collect()
    }

    #[test]
    fn two_machines_that_take_turns_are_seen_and_one_that_restarts_is_not() {
        let second = Duration::from_secs(1);
        assert_eq!(told("abab", second), [false, false, false, true]);
        assert!(told("aaabbbccc", second).iter().all(|two| !two), "a machine that boots again and again");
        assert!(told("aba", second).iter().all(|two| !two), "a hello that was overtaken");
        assert_eq!(told("abcabc", second).last(), Some(&true), "three machines");
        assert!(told("abab", WINDOW + second).iter().all(|two| !two), "far apart");
    }
}
