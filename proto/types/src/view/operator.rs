//! People of a fleet, and invites for them.

use serde::{Deserialize, Serialize};

use crate::id::{Name, OperatorId};
use crate::seal::PublicKey;
use crate::time::Timestamp;
use crate::trust::OperatorRole;

/// Where a person stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorState {
    /// Has an invite and has not come.
    Invited,
    /// Belongs to the fleet.
    Active,
    /// Is shut out for good.
    Revoked,
}

impl OperatorState {
    /// The word as shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invited => "invited",
            Self::Active => "active",
            Self::Revoked => "revoked",
        }
    }
}

/// A person in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorItem {
    /// Their name.
    pub name: Name,
    /// Their id; none before they have come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<OperatorId>,
    /// Their role.
    pub role: OperatorRole,
    /// Where they stand.
    pub state: OperatorState,
    /// The public half of their content key; none before they have come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_key: Option<PublicKey>,
    /// Does the trust bundle list that key, so that nodes take what it signs?
    pub is_listed: bool,
    /// When they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When their certificate ends; before they have come, their invite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// An invite, shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteView {
    /// `fleet/v1/invite`.
    pub schema: String,
    /// The invite with its secret.
    pub invite: String,
    /// For whom.
    pub name: Name,
    /// With which role.
    pub role: OperatorRole,
    /// When it ends.
    pub expires: Timestamp,
    /// An older one for the same name is void.
    pub replaces: bool,
}
