//! Where a clock starts, when it ends, and how it stands now. Pure; the time is handed in.

use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::tier::{ClockStarts, Rules, Tier};

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

/// How a finding stands now. `deadline` is none where nothing is asked for; `held_until` is the end of a hold that holds now;
/// `is_known` is whether the node's report is fresh enough to tell anything. The clock runs on below a hold.
pub fn verdict(
    deadline: Option<&Deadline>,
    held_until: Option<Timestamp>,
    is_known: bool,
    now: Timestamp,
) -> Verdict {
    let Some(deadline) = deadline else { return Verdict::Nothing };
    let is_late = now >= deadline.due;
    if let Some(until) = held_until {
        return Verdict::Held { until, would_be_late: is_late };
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
        let told = |hour, until: Option<i64>, known| verdict(Some(&deadline), until.map(at), known, at(hour));
        assert_eq!(told(11, None, true), Verdict::InTime { due: at(24) });
        assert_eq!(told(12, None, true), Verdict::AtRisk { due: at(24) });
        assert_eq!(told(24, None, true), Verdict::Late { since: at(24) });
        assert_eq!(told(24, None, false), Verdict::Unknown);
        assert_eq!(told(23, Some(30), true), Verdict::Held { until: at(30), would_be_late: false });
        assert_eq!(told(29, Some(30), false), Verdict::Held { until: at(30), would_be_late: true });
        assert_eq!(told(30, None, true), Verdict::Late { since: at(24) }, "the clock ran on below it");
        assert_eq!(verdict(None, Some(at(30)), true, at(25)), Verdict::Nothing);
    }
}
