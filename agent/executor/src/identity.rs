//! Who this node is, as enrolment said. Values only; read everywhere in the executor, changed nowhere.

use fleet_types::id::{FleetId, Name, NodeId};
use fleet_types::label::Labels;

/// The node's own identity and labels (security-and-delivery §1.13: labels are assigned, not reported).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// Its fleet.
    pub fleet: FleetId,
    /// Its labels, as an operator assigned them.
    pub labels: Labels,
}
