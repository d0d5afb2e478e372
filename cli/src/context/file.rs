//! `config.toml` as it is written.

use std::collections::BTreeMap;

use fleet_types::id::{FleetId, Name, OperatorId};
use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// The context that is used when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Name>,
    /// All contexts by name.
    #[serde(default)]
    pub contexts: BTreeMap<String, ContextEntry>,
}

/// One fleet and who we are in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextEntry {
    /// The controller's address for operators, host:port.
    pub endpoint: String,
    /// Its enrolment address, host:port.
    pub enrol: String,
    /// The name in its certificate.
    pub server_name: String,
    /// The fleet.
    pub fleet: FleetId,
    /// Who we are.
    pub operator: OperatorId,
    /// Our name, for people.
    pub operator_name: Name,
}

/// For tests: who Ada is at an endpoint.
#[cfg(test)]
pub(super) fn entry(endpoint: &str) -> ContextEntry {
    ContextEntry {
        endpoint: endpoint.to_owned(),
        enrol: "ctl:7444".to_owned(),
        server_name: "ctl".to_owned(),
        fleet: FleetId::from_uuid(uuid::Uuid::from_u128(1)),
        operator: OperatorId::from_uuid(uuid::Uuid::from_u128(2)),
        operator_name: "ada".parse().unwrap(),
    }
}
