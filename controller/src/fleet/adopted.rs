//! Jobs that nodes list and this store does not have, as far as the audit log was told of them in this life of
//! the controller: a node lists them at each connect until their reports are stored.
//!
//! In memory only and bounded; what is forgotten is told once more. It never decides about a job.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use fleet_types::id::{Attempt, NodeId, RunId};

/// Remembered of one node: one page of its list. More unreported jobs than that have no honest node.
const MAX_OF_NODE: usize = 256;
/// Remembered of all nodes: after a restore a fleet of ten thousand lists a handful each. About 4 MiB.
const MAX_TOLD: usize = 65_536;

/// What the log was told of.
#[derive(Default)]
pub struct Adopted(Mutex<Told>);

#[derive(Default)]
struct Told {
    nodes: HashMap<NodeId, BTreeSet<(RunId, Attempt)>>,
    count: usize,
}

impl Adopted {
    fn with<T>(&self, act: impl FnOnce(&mut Told) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Was the log told of this job?
    pub fn is_told(&self, node: NodeId, run: RunId, attempt: Attempt) -> bool {
        self.with(|told| told.nodes.get(&node).is_some_and(|jobs| jobs.contains(&(run, attempt))))
    }

    /// Notes that the log was told of a job, as far as there is room.
    pub fn note(&self, node: NodeId, run: RunId, attempt: Attempt) {
        self.with(|told| {
            if told.count >= MAX_TOLD {
                return;
            }
            let jobs = told.nodes.entry(node).or_default();
            if jobs.len() < MAX_OF_NODE && jobs.insert((run, attempt)) {
                told.count += 1;
            }
        });
    }

    /// Forgets a run on a node: its report is stored.
    pub fn forget(&self, node: NodeId, run: RunId) {
        self.with(|told| {
            let Some(jobs) = told.nodes.get_mut(&node) else { return };
            let before = jobs.len();
            jobs.retain(|(of, _)| *of != run);
            told.count -= before - jobs.len();
            if jobs.is_empty() {
                told.nodes.remove(&node);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_by_node_and_in_all_and_stored_reports_give_room() {
        let adopted = Adopted::default();
        let node = |n: usize| NodeId::from_uuid(uuid::Uuid::from_u128(n as u128));
        let run = |n: usize| RunId::from_number(n as u64);
        for n in 0..2 * MAX_TOLD / MAX_OF_NODE {
            (0..=MAX_OF_NODE).for_each(|job| adopted.note(node(n), run(job), Attempt(1)));
        }
        assert_eq!(adopted.with(|told| told.count), MAX_TOLD);
        assert!(adopted.is_told(node(0), run(MAX_OF_NODE - 1), Attempt(1)));
        assert!(!adopted.is_told(node(0), run(MAX_OF_NODE), Attempt(1)), "over the limit of one node");
        adopted.forget(node(0), run(3));
        adopted.note(node(0), run(MAX_OF_NODE), Attempt(1));
        assert!(adopted.is_told(node(0), run(MAX_OF_NODE), Attempt(1)));
        assert!(!adopted.is_told(node(0), run(3), Attempt(1)));
        assert_eq!(adopted.with(|told| told.count), MAX_TOLD);
        (0..=MAX_OF_NODE).for_each(|job| adopted.forget(node(0), run(job)));
        assert!(adopted.with(|told| !told.nodes.contains_key(&node(0))));
    }
}
