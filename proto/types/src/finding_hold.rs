//! A finding that may stay for a while: who answers for it, why, and until when. Signed by an operator (DESIGN, "The clock").
//!
//! The clock of the finding runs on below it, and tells again what it told all along when the hold ends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::FleetId;
use crate::label::Selector;
use crate::time::Timestamp;

/// Schema of a hold.
pub const FINDING_HOLD_SCHEMA: &str = "fleet/v1/finding-hold";
/// It lasts a quarter at most; who needs longer decides again.
pub const MAX_HOLD: Duration = Duration::from_hours(92 * 24);
/// Longest text of a reason, in bytes.
const MAX_REASON_BYTES: usize = 500;
/// Longest name of an owner and of a finding, in bytes.
const MAX_NAME_BYTES: usize = 100;

/// What an operator signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FindingHold {
    /// [`FINDING_HOLD_SCHEMA`].
    pub schema: String,
    /// The fleet.
    pub fleet: FleetId,
    /// A CVE, or the id of an advisory.
    pub finding: String,
    /// The nodes on which it may stay; empty: all.
    pub selector: Selector,
    /// Which.
    pub kind: HoldKind,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

/// What a hold means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldKind {
    /// It is to be fixed, later.
    Hold,
    /// The risk is taken.
    Waiver,
}

impl HoldKind {
    /// The word as shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Waiver => "waiver",
        }
    }
}

/// Why a hold is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldProblem {
    /// Another form of it.
    #[error("its schema is {0:?}, expected {FINDING_HOLD_SCHEMA:?}")]
    Schema(String),
    /// Of another fleet.
    #[error("it is of fleet {0}")]
    Fleet(FleetId),
    /// No finding, or one that no finding is named like.
    #[error("a hold names a CVE or an advisory, in at most {MAX_NAME_BYTES} bytes")]
    Finding,
    /// Nobody answers for it.
    #[error("a hold needs an owner, in at most {MAX_NAME_BYTES} bytes")]
    Owner,
    /// No reason, or a very long one.
    #[error("a hold needs a reason, of at most {MAX_REASON_BYTES} bytes")]
    Reason,
    /// It ends before it begins, or too late.
    #[error("a hold ends after its beginning and at most {} days later", MAX_HOLD.as_secs() / 86_400)]
    Length,
}

fn is_name(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control)
}

impl FindingHold {
    /// Whether it can be kept.
    pub fn check(&self, fleet: FleetId) -> Result<(), HoldProblem> {
        if self.schema != FINDING_HOLD_SCHEMA {
            return Err(HoldProblem::Schema(self.schema.chars().take(64).collect()));
        }
        if self.fleet != fleet {
            return Err(HoldProblem::Fleet(self.fleet));
        }
        if !is_name(&self.finding) {
            return Err(HoldProblem::Finding);
        }
        if !is_name(&self.owner) {
            return Err(HoldProblem::Owner);
        }
        if self.reason.trim().is_empty() || self.reason.len() > MAX_REASON_BYTES {
            return Err(HoldProblem::Reason);
        }
        if self.until <= self.from || self.until.since(self.from) > MAX_HOLD {
            return Err(HoldProblem::Length);
        }
        Ok(())
    }

    /// Whether it holds now.
    pub fn holds(&self, now: Timestamp) -> bool {
        (self.from..self.until).contains(&now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::clamped(1_795_000_000_000 + hour * 3_600_000)
    }

    #[test]
    fn a_hold_has_an_owner_a_reason_and_an_end() {
        let fleet = FleetId::from_uuid(uuid::Uuid::from_u128(7));
        let good = FindingHold {
            schema: FINDING_HOLD_SCHEMA.to_owned(),
            fleet,
            finding: "CVE-2026-0001".to_owned(),
            selector: Selector::all(),
            kind: HoldKind::Hold,
            owner: "ada".to_owned(),
            reason: "not reachable".to_owned(),
            from: at(0),
            until: at(92 * 24),
        };
        let with = |change: fn(&mut FindingHold)| {
            let mut hold = good.clone();
            change(&mut hold);
            hold.check(fleet)
        };
        assert_eq!(with(|_| ()), Ok(()));
        assert_eq!(with(|hold| hold.owner = " ".to_owned()), Err(HoldProblem::Owner));
        assert_eq!(with(|hold| hold.reason = "\n".to_owned()), Err(HoldProblem::Reason));
        assert_eq!(with(|hold| hold.reason = "x".repeat(501)), Err(HoldProblem::Reason));
        assert_eq!(with(|hold| hold.finding = "CVE\u{7}".to_owned()), Err(HoldProblem::Finding));
        assert!(matches!(with(|hold| hold.schema = "fleet/v2".to_owned()), Err(HoldProblem::Schema(_))));
        let other = FleetId::from_uuid(uuid::Uuid::from_u128(8));
        assert_eq!(good.check(other), Err(HoldProblem::Fleet(fleet)));
        for until in [0, -1, 93 * 24] {
            let hold = FindingHold { until: at(until), ..good.clone() };
            assert_eq!(hold.check(fleet), Err(HoldProblem::Length), "{until}");
        }
        assert!(!good.holds(at(-1)) && good.holds(at(0)) && !good.holds(at(92 * 24)));
    }
}
