//! Where a clock starts, when it ends, and how it stands now. Pure; the time is handed in.

use std::time::Duration;

use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::tier::{ClockStarts, Rules, Tier};

/// A hold or a waiver lasts a quarter at most; who needs longer decides again.
pub const MAX_HOLD: Duration = Duration::from_hours(92 * 24);
/// Longest text of a reason, in bytes.
const MAX_REASON_BYTES: usize = 500;

/// The instants that are kept of a finding. All stay, whichever governs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// When the origin published it.
    pub published: Option<Timestamp>,
    /// When the node's own archive had the fix for the first time.
    pub available: Option<Timestamp>,
    /// When it was found on the node: starts the clock where neither is known.
    pub found: Timestamp,
}

/// Which of them started the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartedBy {
    /// The origin's publication.
    Published,
    /// The node's archive.
    Available,
    /// Nothing else was known.
    Found,
}

/// A deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Deadline {
    /// When the clock started.
    pub started: Timestamp,
    /// What started it.
    pub by: StartedBy,
    /// When it is at risk.
    pub at_risk: Timestamp,
    /// When it is late.
    pub due: Timestamp,
}

/// A finding that may stay for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Which.
    pub kind: HoldKind,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// From when.
    pub from: Timestamp,
    /// Until when; then the clock tells again what it told all along.
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

/// Why a hold is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HoldProblem {
    /// Nobody answers for it.
    #[error("a hold needs an owner")]
    NoOwner,
    /// No reason, or a very long one.
    #[error("a hold needs a reason, of at most {MAX_REASON_BYTES} bytes")]
    NoReason,
    /// It ends before it begins, or too late.
    #[error("a hold ends after its beginning and at most {} days later", MAX_HOLD.as_secs() / 86_400)]
    Length,
}

/// How a finding stands; told apart everywhere, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Verdict {
    /// Past its end, by so much.
    Late {
        /// Since.
        since: Timestamp,
    },
    /// Soon.
    AtRisk {
        /// Its end.
        due: Timestamp,
    },
    /// What the node has is not known now, so neither is this.
    Unknown,
    /// Somebody answers for its staying.
    Held {
        /// Until when.
        until: Timestamp,
        /// Whether it would be late.
        would_be_late: bool,
    },
    /// There is time.
    InTime {
        /// Its end.
        due: Timestamp,
    },
    /// It asks for nothing.
    Nothing,
}

impl Start {
    /// The instant that governs. A publication that lies ahead of now is a mistake of its origin and starts nothing.
    fn governing(&self, starts: ClockStarts, now: Timestamp) -> (Timestamp, StartedBy) {
        let known = |at: Option<Timestamp>, by| at.filter(|at| *at <= now).map(|at| (at, by));
        let published = known(self.published, StartedBy::Published);
        let available = known(self.available, StartedBy::Available);
        let chosen = match starts {
            ClockStarts::FirstOf => match (published, available) {
                (Some(published), Some(available)) if available.0 < published.0 => Some(available),
                (published, available) => published.or(available),
            },
            ClockStarts::AdvisoryPublished => published.or(available),
            ClockStarts::FixAvailableForNode => available.or(published),
        };
        chosen.unwrap_or((self.found, StartedBy::Found))
    }
}

/// The deadline of a finding in a tier.
pub fn deadline(start: &Start, tier: Tier, rules: &Rules, now: Timestamp) -> Deadline {
    let (started, by) = start.governing(rules.clock_starts, now);
    let share = tier.respond_within.saturating_mul(u32::from(tier.at_risk_at_percent.min(100))) / 100;
    Deadline { started, by, at_risk: started.plus(share), due: started.plus(tier.respond_within) }
}

impl Hold {
    /// Whether it can be kept.
    pub fn check(&self) -> Result<(), HoldProblem> {
        if self.owner.trim().is_empty() {
            return Err(HoldProblem::NoOwner);
        }
        if self.reason.trim().is_empty() || self.reason.len() > MAX_REASON_BYTES {
            return Err(HoldProblem::NoReason);
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

/// How a finding stands now. `deadline` is none where nothing is asked for; `is_known` is whether the node's report is
/// fresh enough to tell anything. The clock runs on below a hold.
pub fn verdict(deadline: Option<&Deadline>, hold: Option<&Hold>, is_known: bool, now: Timestamp) -> Verdict {
    let Some(deadline) = deadline else { return Verdict::Nothing };
    let is_late = now >= deadline.due;
    if let Some(hold) = hold.filter(|hold| hold.holds(now)) {
        return Verdict::Held { until: hold.until, would_be_late: is_late };
    }
    if !is_known {
        return Verdict::Unknown;
    }
    if is_late {
        Verdict::Late { since: deadline.due }
    } else if now >= deadline.at_risk {
        Verdict::AtRisk { due: deadline.due }
    } else {
        Verdict::InTime { due: deadline.due }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::clamped(1_795_000_000_000 + hour * 3_600_000)
    }

    fn due(published: Option<i64>, available: Option<i64>, starts: ClockStarts) -> (Timestamp, StartedBy) {
        let rules = Rules { clock_starts: starts, ..Rules::default() };
        let start = Start { published: published.map(at), available: available.map(at), found: at(0) };
        let deadline = deadline(&start, rules.critical, &rules, at(10));
        (deadline.due, deadline.by)
    }

    #[test]
    fn z08_the_earlier_of_both_governs() {
        for (published, available, starts, expected) in [
            (Some(-5), Some(-2), ClockStarts::FirstOf, (at(19), StartedBy::Published)),
            (Some(-2), Some(-5), ClockStarts::FirstOf, (at(19), StartedBy::Available)),
            (None, Some(-2), ClockStarts::FirstOf, (at(22), StartedBy::Available)),
            (None, None, ClockStarts::FirstOf, (at(24), StartedBy::Found)),
            // A publication that lies ahead starts nothing.
            (Some(5000), None, ClockStarts::FirstOf, (at(24), StartedBy::Found)),
            (Some(-2), Some(-5), ClockStarts::AdvisoryPublished, (at(22), StartedBy::Published)),
            (Some(-5), Some(-2), ClockStarts::FixAvailableForNode, (at(22), StartedBy::Available)),
            (Some(-5), None, ClockStarts::FixAvailableForNode, (at(19), StartedBy::Published)),
        ] {
            assert_eq!(due(published, available, starts), expected, "{published:?} {available:?} {starts:?}");
        }
    }

    #[test]
    fn z08_late_at_risk_held_and_unknown_are_told_apart() {
        let rules = Rules::default();
        let start = Start { published: Some(at(0)), available: None, found: at(1) };
        let deadline = deadline(&start, rules.critical, &rules, at(1));
        let hold = Hold {
            kind: HoldKind::Waiver,
            owner: "ada".to_owned(),
            reason: "not reachable".to_owned(),
            from: at(20),
            until: at(30),
        };
        assert_eq!(hold.check(), Ok(()));
        let told = |hour, hold: Option<&Hold>, known| verdict(Some(&deadline), hold, known, at(hour));
        assert_eq!(told(11, None, true), Verdict::InTime { due: at(24) });
        assert_eq!(told(12, None, true), Verdict::AtRisk { due: at(24) });
        assert_eq!(told(24, None, true), Verdict::Late { since: at(24) });
        assert_eq!(told(24, None, false), Verdict::Unknown);
        assert_eq!(told(19, Some(&hold), true), Verdict::AtRisk { due: at(24) });
        assert_eq!(told(23, Some(&hold), true), Verdict::Held { until: at(30), would_be_late: false });
        assert_eq!(told(29, Some(&hold), false), Verdict::Held { until: at(30), would_be_late: true });
        assert_eq!(told(30, Some(&hold), true), Verdict::Late { since: at(24) }, "the clock ran on below it");
        assert_eq!(verdict(None, Some(&hold), true, at(25)), Verdict::Nothing);
    }

    #[test]
    fn a_hold_has_an_owner_a_reason_and_an_end() {
        let hold = |owner: &str, reason: &str, until: i64| Hold {
            kind: HoldKind::Hold,
            owner: owner.to_owned(),
            reason: reason.to_owned(),
            from: at(0),
            until: at(until),
        };
        assert_eq!(hold(" ", "x", 1).check(), Err(HoldProblem::NoOwner));
        assert_eq!(hold("ada", "\n", 1).check(), Err(HoldProblem::NoReason));
        for until in [0, -1, 93 * 24] {
            assert_eq!(hold("ada", "x", until).check(), Err(HoldProblem::Length), "{until}");
        }
        assert_eq!(hold("ada", "x", 92 * 24).check(), Ok(()));
    }
}
