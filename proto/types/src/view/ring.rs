//! Views of the rings of a rollout. Data only, as the other views; made by the controller's run views.

use serde::{Deserialize, Serialize};

use crate::run::{RingState, Verdict};

/// One ring of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingView {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: RingState,
    /// How many of its nodes are where; none when the run has ended, its jobs say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<RingNodes>,
    /// How long it must soak, in milliseconds.
    pub soak_ms: u64,
    /// How long it has.
    pub soaked_ms: u64,
    /// Does an operator let the next ring begin?
    #[serde(default)]
    pub is_manual: bool,
    /// Why it halted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub because: String,
    /// Its gates; none where the policy has none, and of the last ring, after which nothing waits for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gates: Option<GatesView>,
}

/// The gates of a ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatesView {
    /// Their ids.
    pub ids: Vec<String>,
    /// What they said last; none while they have not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// On so many nodes they hold; none while they are not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<u32>,
    /// So many nodes have not answered; none while they are not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaited: Option<u32>,
}

/// How many nodes of a ring are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingNodes {
    /// All of them.
    pub all: u32,
    /// So many must succeed.
    pub needed: u32,
    /// Ended well.
    pub succeeded: u32,
    /// Failed, rolled back or lost.
    pub failed: u32,
    /// Offered and not ended.
    pub in_flight: u32,
    /// Ended, however.
    pub ended: u32,
}
