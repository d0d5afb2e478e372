//! Who calls: an identity from a verified certificate, as rules and audit records need it.

use std::sync::Arc;

use fleet_certs::PeerIdentity;
use fleet_types::audit::Actor;
use fleet_types::id::{Name, NodeId};

use crate::repo::operators::OperatorRecord;

/// An operator with their record, and where they call from.
#[derive(Debug, Clone)]
pub struct Operator {
    /// His record.
    pub record: Arc<OperatorRecord>,
    /// Their certificate.
    pub certificate: Arc<PeerIdentity>,
    /// His address.
    pub address: String,
}

impl Operator {
    /// For audit records.
    pub fn actor(&self) -> Actor {
        Actor {
            role: "operator".to_owned(),
            id: self.record.id.to_string(),
            name: self.record.name.to_string(),
            certificate: Some(self.certificate.fingerprint),
            address: self.address.clone(),
        }
    }
}

/// A node's agent, and where it calls from.
#[derive(Debug, Clone)]
pub struct Agent {
    /// The node of its certificate.
    pub node: NodeId,
    /// Its name, as the cache of nodes has it.
    pub name: Name,
    /// Its certificate.
    pub certificate: Arc<PeerIdentity>,
    /// Its address.
    pub address: String,
}

impl Agent {
    /// For audit records.
    pub fn actor(&self) -> Actor {
        Actor {
            role: "agent".to_owned(),
            id: self.node.to_string(),
            name: self.name.to_string(),
            certificate: Some(self.certificate.fingerprint),
            address: self.address.clone(),
        }
    }
}

/// A caller without a certificate, on the enrolment port.
pub fn nobody(address: &str) -> Actor {
    Actor {
        role: "nobody".to_owned(),
        id: String::new(),
        name: String::new(),
        certificate: None,
        address: address.to_owned(),
    }
}
