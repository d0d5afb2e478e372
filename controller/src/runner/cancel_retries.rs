//! When a node was last told to stop: at once, and then once an offer interval until its job has ended.
//!
//! Kept by the loop beside a run, so that reading the run anew does not tell everybody again. In memory only: after
//! a start all are told once more, which is harmless. A node that comes back is told by its session, from its inbox.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_types::id::NodeId;
use tokio::time::Instant;

/// The nodes of one run that were told; as many as are in flight.
#[derive(Debug, Default)]
pub struct CancelRetries(BTreeMap<NodeId, Instant>);

impl CancelRetries {
    /// Those of `nodes` that are to be told now. All others are forgotten: their jobs have ended.
    pub fn due(&mut self, nodes: &[NodeId], now: Instant, every: Duration) -> Vec<NodeId> {
        let open: BTreeSet<&NodeId> = nodes.iter().collect();
        self.0.retain(|node, _| open.contains(node));
        let is_due = |node: &NodeId| self.0.get(node).is_none_or(|told| now - *told >= every);
        nodes.iter().copied().filter(is_due).collect()
    }

    /// Notes that a node was told.
    pub fn told(&mut self, node: NodeId, now: Instant) {
        self.0.insert(node, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_once_then_once_an_interval_until_the_end() {
        let every = Duration::from_secs(30);
        let start = Instant::now();
        let [a, b] = [1, 2].map(|n| NodeId::from_uuid(uuid::Uuid::from_u128(n)));
        let mut cancel_retries = CancelRetries::default();
        let mut told = Vec::new();
        for second in 0..=60 {
            let now = start + Duration::from_secs(second);
            // b's job is cancelled later, and a's ends at 45.
            let nodes: &[NodeId] = match second {
                0..10 => &[a],
                10..45 => &[a, b],
                _ => &[b],
            };
            for node in cancel_retries.due(nodes, now, every) {
                told.push((second, node));
                cancel_retries.told(node, now);
            }
        }
        assert_eq!(told, [(0, a), (10, b), (30, a), (40, b)]);
        assert_eq!(cancel_retries.0.len(), 1, "ended jobs are forgotten");
    }
}
