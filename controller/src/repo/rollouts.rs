//! What a run's record keeps of the rollout policy that it follows, and how far each ring has come.
//!
//! Copied from the policy when the run is made: a run that is under way does not change with the documents. Data, and its
//! way to the engine and back; must never decide anything. Part of [`super::runs::RunRecord`].

use std::num::NonZeroU32;
use std::time::Duration;

use fleet_rollout::{Limits, RingInput, RingProgress, Tolerance};
use fleet_types::digest::Digest;
use fleet_types::document::Share;
use fleet_types::run::{RingState, Verdict};
use serde::{Deserialize, Serialize};

/// A run by a rollout policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// Name of the policy.
    pub policy: String,
    /// Its digest, which the request names.
    pub policy_digest: Digest,
    /// So many nodes of a ring may fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failed_nodes: Option<u32>,
    /// So many percent of a ring may fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failed_percent: Option<u32>,
    /// Do failures halt nothing?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub goes_on: bool,
    /// At most so many nodes of a site in change, over all runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_site: Option<u32>,
    /// The gates of every ring but the last, by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<String>,
    /// How long nodes may take to say whether they hold, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judging_ms: Option<u64>,
    /// The rings, in their order.
    pub rings: Vec<RingRecord>,
}

/// One ring: what is asked of it, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingRecord {
    /// Its name.
    pub name: String,
    /// At most so many of its nodes at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<Share>,
    /// How long it soaks, in milliseconds.
    pub soak_ms: u64,
    /// So many percent must succeed.
    pub success_percent: u32,
    /// Does an operator let the next ring begin?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_manual: bool,
    /// Where it stands.
    pub state: RingState,
    /// How long it has soaked, in milliseconds, as far as somebody watched.
    #[serde(default)]
    pub soaked_ms: u64,
    /// So many nodes had failed when an operator went on.
    #[serde(default)]
    pub excused_failed: u32,
    /// So many had ended without success.
    #[serde(default)]
    pub excused: u32,
    /// Why it halted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub because: String,
    /// How often its gates were asked.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub judgings: u32,
    /// What they said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl RolloutRecord {
    /// The limits of the controller, as narrow as the policy makes them.
    pub fn limits(&self, configured: Limits) -> Limits {
        let own = self.max_per_site.and_then(NonZeroU32::new);
        Limits { site: [own, configured.site].into_iter().flatten().min(), ..configured }
    }

    /// How long nodes may take to judge a ring, for the engine; none where nothing judges it.
    pub fn judging(&self) -> Option<Duration> {
        self.judging_ms.map(Duration::from_millis)
    }

    /// How many failures a ring may have, for the engine.
    pub const fn tolerance(&self) -> Tolerance {
        Tolerance { nodes: self.max_failed_nodes, percent: self.max_failed_percent, goes_on: self.goes_on }
    }
}

impl RingRecord {
    /// What is asked of it, for the engine.
    pub fn input(&self) -> RingInput {
        RingInput {
            name: self.name.clone(),
            max_parallel: self.max_parallel,
            soak: Duration::from_millis(self.soak_ms),
            success_percent: self.success_percent,
            is_manual: self.is_manual,
        }
    }

    /// Where it stands, for the engine.
    pub fn progress(&self) -> RingProgress {
        RingProgress {
            state: self.state,
            soaked: Duration::from_millis(self.soaked_ms),
            excused_failed: self.excused_failed,
            excused: self.excused,
            because: self.because.clone(),
            judgings: self.judgings,
            verdict: self.verdict,
        }
    }

    /// Notes where it stands by the engine. What is less than a millisecond of a soak is not kept: it soaks that much
    /// longer.
    pub fn note(&mut self, progress: &RingProgress) {
        self.state = progress.state;
        self.soaked_ms = u64::try_from(progress.soaked.as_millis()).unwrap_or(u64::MAX);
        self.excused_failed = progress.excused_failed;
        self.excused = progress.excused;
        self.because.clone_from(&progress.because);
        self.judgings = progress.judgings;
        self.verdict = progress.verdict;
    }
}
