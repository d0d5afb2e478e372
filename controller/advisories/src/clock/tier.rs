//! From a score to a lane, its hours and its tests. Pure; the values are those of a rollout policy.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cvss::Score;
use fleet_types::severity::Severity;

/// How much is tested before a fix goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Testing {
    /// The basic suite.
    Minimal,
    /// Basic and comprehensive.
    Standard,
    /// All suites.
    Full,
}

/// What one lane asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// From the clock's start until it is fixed on the node.
    pub respond_within: Duration,
    /// When so much of it has passed, it is at risk.
    pub at_risk_at_percent: u8,
    /// What is tested.
    pub testing: Testing,
}

/// Where the clock starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockStarts {
    /// With the earlier of both.
    FirstOf,
    /// When the origin published the fix.
    AdvisoryPublished,
    /// When the node's archive had it first.
    FixAvailableForNode,
}

/// What it does that a hole is known to be exploited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownExploitedRule {
    /// One lane up.
    OneTierUp,
    /// Nothing.
    AsScored,
}

/// The rules of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// 9.0 to 10.0.
    pub critical: Tier,
    /// 7.0 to 8.9.
    pub high: Tier,
    /// 4.0 to 6.9.
    pub medium: Tier,
    /// 0.1 to 3.9.
    pub low: Tier,
    /// Without a score that can be read.
    pub unknown: Tier,
    /// Where clocks start.
    pub clock_starts: ClockStarts,
    /// What is known to be exploited.
    pub known_exploited: KnownExploitedRule,
    /// A fix that is published and not in the node's archive for so long is a finding.
    pub mirror_lag_warn: Duration,
}

/// The lane of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "lane", rename_all = "snake_case")]
pub enum Lane {
    /// By its score, and by its being exploited.
    Scored {
        /// The tier that counts.
        tier: Severity,
        /// Whether it counts one higher than scored.
        raised: bool,
    },
    /// No score: neither 0 nor 10, a lane of its own.
    Unscored {
        /// Whether it is known to be exploited; then the hours of high count where those are fewer.
        raised: bool,
    },
    /// 0.0: nothing is to be done.
    Nothing,
}

impl Default for Rules {
    /// The clock of the requirements: 24 h, 72 h, a week, 30 days; two weeks where there is no score.
    fn default() -> Self {
        let tier = |within, at_risk_at_percent, testing| Tier {
            respond_within: Duration::from_hours(within),
            at_risk_at_percent,
            testing,
        };
        Self {
            critical: tier(24, 50, Testing::Minimal),
            high: tier(72, 60, Testing::Standard),
            medium: tier(7 * 24, 75, Testing::Full),
            low: tier(30 * 24, 80, Testing::Full),
            unknown: tier(14 * 24, 75, Testing::Full),
            clock_starts: ClockStarts::FirstOf,
            known_exploited: KnownExploitedRule::OneTierUp,
            mirror_lag_warn: Duration::from_hours(6),
        }
    }
}

/// The lane of a score. What is known to be exploited goes one up: from none to low too, for then the score is wrong;
/// critical stays critical.
pub fn lane(score: Option<Score>, is_exploited: bool, rules: &Rules) -> Lane {
    let raised = is_exploited && rules.known_exploited == KnownExploitedRule::OneTierUp;
    let Some(score) = score else { return Lane::Unscored { raised } };
    let scored = score.band().severity();
    let tier = match (scored, raised) {
        (None, false) => return Lane::Nothing,
        (None, true) => Severity::Low,
        (Some(Severity::Low), true) => Severity::Medium,
        (Some(Severity::Medium), true) => Severity::High,
        (Some(Severity::High), true) => Severity::Critical,
        (Some(severity), _) => severity,
    };
    Lane::Scored { tier, raised: scored != Some(tier) }
}

impl Rules {
    /// What a lane asks for; nothing of what has nothing to do.
    pub fn tier(&self, lane: Lane) -> Option<Tier> {
        Some(match lane {
            Lane::Scored { tier: Severity::Critical, .. } => self.critical,
            Lane::Scored { tier: Severity::High, .. } => self.high,
            Lane::Scored { tier: Severity::Medium, .. } => self.medium,
            Lane::Scored { tier: Severity::Low, .. } => self.low,
            Lane::Unscored { raised: false } => self.unknown,
            Lane::Unscored { raised: true } => Tier {
                respond_within: self.unknown.respond_within.min(self.high.respond_within),
                ..self.unknown
            },
            Lane::Nothing => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z08_each_score_has_its_hours_and_tests() {
        let rules = Rules::default();
        let mut table = Vec::new();
        for score in ["10.0", "9.0", "8.9", "7.0", "6.9", "4.0", "3.9", "0.1", "0.0", ""] {
            for exploited in [false, true] {
                let tier = rules.tier(lane(score.parse().ok(), exploited, &rules));
                let asked = tier.map_or_else(
                    || "none".to_owned(),
                    |tier| format!("{} h {:?}", tier.respond_within.as_secs() / 3600, tier.testing),
                );
                table.push(format!("{score:>4} {} {asked}", if exploited { "exploited" } else { "-" }));
            }
        }
        assert_eq!(
            table,
            [
                "10.0 - 24 h Minimal",
                "10.0 exploited 24 h Minimal",
                " 9.0 - 24 h Minimal",
                " 9.0 exploited 24 h Minimal",
                " 8.9 - 72 h Standard",
                " 8.9 exploited 24 h Minimal",
                " 7.0 - 72 h Standard",
                " 7.0 exploited 24 h Minimal",
                " 6.9 - 168 h Full",
                " 6.9 exploited 72 h Standard",
                " 4.0 - 168 h Full",
                " 4.0 exploited 72 h Standard",
                " 3.9 - 720 h Full",
                " 3.9 exploited 168 h Full",
                " 0.1 - 720 h Full",
                " 0.1 exploited 168 h Full",
                " 0.0 - none",
                " 0.0 exploited 720 h Full",
                "     - 336 h Full",
                "     exploited 72 h Full",
            ]
        );
        let as_scored = Rules { known_exploited: KnownExploitedRule::AsScored, ..rules };
        assert_eq!(
            lane("8.9".parse().ok(), true, &as_scored),
            Lane::Scored { tier: Severity::High, raised: false }
        );
    }
}
