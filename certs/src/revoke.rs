//! The deny list: certificates, nodes and operators that may no longer connect (security-and-delivery §1.10).
//!
//! In memory, with the version of the stored list that it was made from. Consulted in the handshake,
//! and offered for the check on every call and stream message: a check takes one short read lock and
//! two or three set lookups. The store is the truth; only the controller's loader replaces the list.

use std::collections::HashSet;
use std::sync::Arc;

use fleet_types::id::{NodeId, OperatorId};
use tokio::sync::watch;

use crate::serial::Serial;
use crate::verify::PeerIdentity;

/// What is denied, at one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Denied {
    /// Rises with every change in the store.
    pub version: u64,
    /// Single certificates.
    pub serials: HashSet<Serial>,
    /// All certificates of a node, also future ones.
    pub nodes: HashSet<NodeId>,
    /// All certificates of an operator, also future ones.
    pub operators: HashSet<OperatorId>,
}

/// Why a peer is denied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Revoked {
    /// This certificate.
    #[error("certificate {0} was revoked")]
    Serial(Serial),
    /// The whole node.
    #[error("node {0} was revoked")]
    Node(NodeId),
    /// The operator.
    #[error("operator {0} was revoked")]
    Operator(OperatorId),
}

impl Denied {
    /// Refuses a peer that is on the list.
    pub fn check(&self, peer: &PeerIdentity) -> Result<(), Revoked> {
        if let Some(node) = peer.identity.node().filter(|node| self.nodes.contains(node)) {
            return Err(Revoked::Node(node));
        }
        if let Some(operator) = peer.identity.operator().filter(|operator| self.operators.contains(operator))
        {
            return Err(Revoked::Operator(operator));
        }
        if self.serials.contains(&peer.serial) {
            return Err(Revoked::Serial(peer.serial.clone()));
        }
        Ok(())
    }
}

/// The list in use, shared by every listener and stream.
#[derive(Debug)]
pub struct DenyList {
    current: watch::Sender<Arc<Denied>>,
}

/// A list older than the one in use was offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("deny list version {offered} is older than version {current} in use")]
pub struct Stale {
    /// Version offered.
    pub offered: u64,
    /// Version in use.
    pub current: u64,
}

impl DenyList {
    /// Starts with a list; `Denied::default()` when nobody is denied.
    pub fn new(denied: Denied) -> Arc<Self> {
        Arc::new(Self { current: watch::Sender::new(Arc::new(denied)) })
    }

    /// Puts a newer list in use and wakes the subscribers; the same version again changes nothing, so
    /// that loading is repeatable.
    pub fn replace(&self, denied: Denied) -> Result<(), Stale> {
        let mut outcome = Ok(());
        self.current.send_if_modified(|current| {
            if denied.version < current.version {
                outcome = Err(Stale { offered: denied.version, current: current.version });
            }
            let newer = denied.version > current.version;
            if newer {
                *current = Arc::new(denied);
            }
            newer
        });
        outcome
    }

    /// Adds a node to the list in use, which becomes its next version; one that is on it already changes nothing.
    pub fn deny_node(&self, node: NodeId) {
        self.add(|denied| denied.nodes.insert(node));
    }

    /// The same for an operator.
    pub fn deny_operator(&self, operator: OperatorId) {
        self.add(|denied| denied.operators.insert(operator));
    }

    fn add(&self, insert: impl FnOnce(&mut Denied) -> bool) {
        self.current.send_if_modified(|current| {
            let mut denied = Denied::clone(current);
            let is_new = insert(&mut denied);
            if is_new {
                denied.version += 1;
                *current = Arc::new(denied);
            }
            is_new
        });
    }

    /// The list in use.
    pub fn get(&self) -> Arc<Denied> {
        Arc::clone(&self.current.borrow())
    }

    /// Refuses a peer that is on the list now.
    pub fn check(&self, peer: &PeerIdentity) -> Result<(), Revoked> {
        self.current.borrow().check(peer)
    }

    /// The version in use.
    pub fn version(&self) -> u64 {
        self.current.borrow().version
    }

    /// Wakes on every change: live streams check themselves again (they must close within 5 s).
    pub fn subscribe(&self) -> watch::Receiver<Arc<Denied>> {
        self.current.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use fleet_types::digest::Digest;

    use super::*;
    use crate::name::Identity;

    fn peer(text: &str) -> PeerIdentity {
        let identity: Identity = text.parse().unwrap();
        PeerIdentity {
            identity,
            serial: "4001".parse().unwrap(),
            not_before: "2026-11-22T12:00:00Z".parse().unwrap(),
            not_after: "2026-11-25T12:00:00Z".parse().unwrap(),
            fingerprint: Digest::of(b"x"),
        }
    }

    const FLEET: &str = "0192f0c1-0000-7000-8000-000000000001";
    const ID: &str = "0192f0c1-0000-7000-8000-000000000002";

    #[test]
    fn each_kind_of_entry_denies_its_own() {
        let (agent, operator) =
            (peer(&format!("fleet://{FLEET}/agent/{ID}")), peer(&format!("fleet://{FLEET}/operator/{ID}")));
        let list = DenyList::new(Denied::default());
        assert_eq!((list.check(&agent), list.check(&operator)), (Ok(()), Ok(())));
        let node: NodeId = ID.parse().unwrap();
        list.replace(Denied { version: 1, nodes: [node].into(), ..Denied::default() }).unwrap();
        assert_eq!((list.check(&agent), list.check(&operator)), (Err(Revoked::Node(node)), Ok(())));
        let person: OperatorId = ID.parse().unwrap();
        list.replace(Denied { version: 2, operators: [person].into(), ..Denied::default() }).unwrap();
        assert_eq!((list.check(&agent), list.check(&operator)), (Ok(()), Err(Revoked::Operator(person))));
        list.replace(Denied { version: 3, serials: [agent.serial.clone()].into(), ..Denied::default() })
            .unwrap();
        assert_eq!(list.check(&agent), Err(Revoked::Serial(agent.serial.clone())));
    }

    #[test]
    fn an_older_list_never_comes_back() {
        let list = DenyList::new(Denied { version: 7, ..Denied::default() });
        let mut woken = list.subscribe();
        assert_eq!(
            list.replace(Denied { version: 6, ..Denied::default() }),
            Err(Stale { offered: 6, current: 7 })
        );
        assert_eq!(list.replace(Denied { version: 7, ..Denied::default() }), Ok(()));
        assert!(!woken.has_changed().unwrap());
        list.replace(Denied { version: 8, ..Denied::default() }).unwrap();
        assert!(woken.has_changed().unwrap());
        assert_eq!((woken.borrow_and_update().version, list.version()), (8, 8));
        list.deny_node(ID.parse().unwrap());
        assert_eq!(woken.borrow_and_update().version, 9, "additions wake the subscribers, too");
        assert_eq!(woken.borrow_and_update().nodes.len(), 1);
        list.deny_node(ID.parse().unwrap());
        assert!(!woken.has_changed().unwrap(), "it is on the list already");
        list.deny_operator(ID.parse().unwrap());
        assert_eq!((woken.borrow_and_update().version, list.get().operators.len()), (10, 1));
    }
}
