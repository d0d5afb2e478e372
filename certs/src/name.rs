//! The one name that authenticates: `fleet://<fleet-id>/{agent|operator|controller}/<uuid>`.
//!
//! Parsing is strict, so that an identity has exactly one spelling (security-and-delivery §1.4).
//! Nothing here looks at common names, host names or addresses, and nothing may be added that does.

use std::fmt;
use std::str::FromStr;

use fleet_types::id::{ControllerId, FleetId, IdError, NodeId, OperatorId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a peer is. Must equal the authority that issued its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The agent of one node.
    Agent,
    /// A person with `fleetctl`.
    Operator,
    /// A controller.
    Controller,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Agent, Self::Operator, Self::Controller];

    /// The word in the name, and for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Operator => "operator",
            Self::Controller => "controller",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who a certificate speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// The agent of a node.
    Agent(FleetId, NodeId),
    /// An operator.
    Operator(FleetId, OperatorId),
    /// A controller.
    Controller(FleetId, ControllerId),
}

impl Identity {
    /// The fleet that the name belongs to.
    pub const fn fleet(&self) -> FleetId {
        match self {
            Self::Agent(fleet, _) | Self::Operator(fleet, _) | Self::Controller(fleet, _) => *fleet,
        }
    }

    /// The role in the name.
    pub const fn role(&self) -> Role {
        match self {
            Self::Agent(..) => Role::Agent,
            Self::Operator(..) => Role::Operator,
            Self::Controller(..) => Role::Controller,
        }
    }

    /// The node, when this is an agent.
    pub const fn node(&self) -> Option<NodeId> {
        match self {
            Self::Agent(_, node) => Some(*node),
            _ => None,
        }
    }

    /// The operator, when this is one.
    pub const fn operator(&self) -> Option<OperatorId> {
        match self {
            Self::Operator(_, operator) => Some(*operator),
            _ => None,
        }
    }

    /// The UUID at the end of the name.
    pub fn uuid(&self) -> uuid::Uuid {
        match self {
            Self::Agent(_, node) => *node.as_uuid(),
            Self::Operator(_, operator) => *operator.as_uuid(),
            Self::Controller(_, controller) => *controller.as_uuid(),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fleet://{}/{}/{}", self.fleet(), self.role(), self.uuid().as_hyphenated())
    }
}

/// The URI is no name of this project.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not of the form `fleet://<fleet-id>/<role>/<uuid>`.
    #[error("\"{0}\" is not a name such as fleet://<fleet-id>/agent/<uuid>")]
    Form(String),
    /// The role is none of the three.
    #[error("\"{0}\" is not a role: expected agent, operator or controller")]
    Role(String),
    /// One of the ids is malformed or not in its one spelling.
    #[error("the name holds a malformed id")]
    Id(#[from] IdError),
}

/// Foreign text in an error: no control characters, at most 96 characters (a full name has 95).
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).take(96).collect()
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let form = || IdentityError::Form(shown(text));
        let mut parts = text.strip_prefix("fleet://").ok_or_else(form)?.split('/');
        let (Some(fleet), Some(role), Some(id), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(form());
        };
        let fleet: FleetId = fleet.parse()?;
        match role {
            "agent" => Ok(Self::Agent(fleet, id.parse()?)),
            "operator" => Ok(Self::Operator(fleet, id.parse()?)),
            "controller" => Ok(Self::Controller(fleet, id.parse()?)),
            other => Err(IdentityError::Role(shown(other))),
        }
    }
}

impl Serialize for Identity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: &str = "0192f0c1-0000-7000-8000-000000000001";
    const U: &str = "0192f0c1-0000-7000-8000-000000000002";

    #[test]
    fn a_name_survives_its_text() {
        for role in Role::ALL {
            let text = format!("fleet://{F}/{role}/{U}");
            let identity: Identity = text.parse().unwrap();
            assert_eq!((identity.to_string(), identity.role()), (text, role));
        }
    }

    #[test]
    fn every_other_spelling_is_refused() {
        let good = format!("fleet://{F}/agent/{U}");
        let upper = good.to_uppercase();
        let cases = [
            String::new(),
            upper,
            good.replace("fleet://", "Fleet://"),
            good.replace("fleet://", "https://"),
            good.replace("fleet://", "fleet:"),
            format!("{good}/"),
            format!("{good}?x=1"),
            format!("{good}#x"),
            format!(" {good}"),
            format!("{good}\0"),
            good.replace("/agent/", "//agent/"),
            good.replace("agent", "Agent"),
            good.replace("agent", "admin"),
            good.replace("0192f0c1", "0192F0C1"),
            good.replace('-', ""),
            format!("fleet://{F}@x/agent/{U}"),
            format!("fleet://{F}:1/agent/{U}"),
            format!("fleet://{F}/agent/{{{U}}}"),
            format!("fleet://{F}/agent/%30192f0c1-0000-7000-8000-000000000002"),
        ];
        for bad in cases {
            assert!(bad.parse::<Identity>().is_err(), "{bad:?}");
        }
    }
}
