//! A document of any kind: its head, and which kind it is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::procedure::Procedure;
use super::profile::Profile;
use super::rollout_policy::RolloutPolicy;
use super::schedule::ScheduleFile;
use super::schema::JsonSchema;
use crate::id::{IdError, Name};

/// The schema a document is written in; there is one so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SchemaVersion {
    /// `fleet/v1`.
    #[serde(rename = "fleet/v1")]
    FleetV1,
}

/// What operators write and apply, read and signed as one JSON value with its `kind` inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Document {
    /// What a kind of node is made of, and what healthy means for it.
    Profile(Box<Profile>),
    /// Ordered steps, the way back, and what always runs last.
    Procedure(Box<Procedure>),
    /// When procedures run, where, and what happens when they could not.
    #[schemars(extend("x-name" = "schedule-file"))]
    Schedule(Box<ScheduleFile>),
    /// In which order nodes change, and what must be true before going on.
    RolloutPolicy(Box<RolloutPolicy>),
}

/// Which kind a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKind {
    /// What a kind of node is made of.
    Profile,
    /// Ordered steps.
    Procedure,
    /// When procedures run.
    Schedule,
    /// In which order nodes change.
    RolloutPolicy,
}

impl DocumentKind {
    /// Every kind, in the order in which a set is applied.
    pub const ALL: [Self; 4] = [Self::Profile, Self::Procedure, Self::Schedule, Self::RolloutPolicy];

    /// The word after `kind =`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Procedure => "procedure",
            Self::Schedule => "schedule",
            Self::RolloutPolicy => "rollout_policy",
        }
    }
}

impl fmt::Display for DocumentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for DocumentKind {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| IdError {
            what: "document kind",
            text: text.chars().filter(|c| !c.is_control()).take(64).collect(),
            why: "expected profile, procedure, schedule or rollout_policy",
        })
    }
}

impl Document {
    /// Which kind it is.
    pub const fn kind(&self) -> DocumentKind {
        match self {
            Self::Profile(_) => DocumentKind::Profile,
            Self::Procedure(_) => DocumentKind::Procedure,
            Self::Schedule(_) => DocumentKind::Schedule,
            Self::RolloutPolicy(_) => DocumentKind::RolloutPolicy,
        }
    }

    /// Its name, unique among documents of its kind.
    pub const fn name(&self) -> &Name {
        match self {
            Self::Profile(profile) => &profile.name,
            Self::Procedure(procedure) => &procedure.name,
            Self::Schedule(schedule) => &schedule.name,
            Self::RolloutPolicy(policy) => &policy.name,
        }
    }

    /// The version its author wrote; schedule files and rollout policies have none.
    pub const fn version(&self) -> Option<u32> {
        match self {
            Self::Profile(profile) => Some(profile.version),
            Self::Procedure(procedure) => Some(procedure.version),
            Self::Schedule(_) | Self::RolloutPolicy(_) => None,
        }
    }
}
