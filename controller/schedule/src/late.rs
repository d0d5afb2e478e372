//! Further rounds of a tick for nodes that were not reached: offline, or their turn did not come.
//!
//! A round is another run of the same tick. None begins once a newer tick is decided: that one has them.

use fleet_calendar::Times;
use fleet_types::document::schedule::LateNodes;
use fleet_types::request::MAX_PLAIN_RUN;
use fleet_types::time::Timestamp;

use crate::rules::Rules;

/// A tick whose run has ended and did not reach all of its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LateTick {
    /// The tick.
    pub at: Timestamp,
    /// Rounds after the first run.
    pub rounds: u32,
}

/// What becomes of the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// Another run, now.
    Now {
        /// No first start on a node after this instant.
        not_after: Timestamp,
    },
    /// Another run, then.
    Then(Timestamp),
    /// None any more.
    Over,
}

/// What becomes of the nodes that the newest tick of a lane did not reach. No round lasts into the next tick, nor beyond the
/// end of the order.
pub fn late_round(rules: &Rules, times: &Times, tick: LateTick, end: Timestamp, now: Timestamp) -> Round {
    let next = times.next_after(tick.at).unwrap_or(end);
    let last = tick.at.plus(rules.lasts).min(next).min(end);
    if now >= last {
        return Round::Over;
    }
    match rules.late_nodes {
        // A request is good for a day at most: one round a day, so that a run that ends early begins none at once.
        LateNodes::WhenOnline => {
            let begin = match tick.rounds {
                0 => now,
                rounds => tick.at.plus(MAX_PLAIN_RUN * rounds).max(now),
            };
            match begin {
                begin if begin >= last => Round::Over,
                begin if begin > now => Round::Then(begin),
                _ => Round::Now { not_after: last.min(now.plus(MAX_PLAIN_RUN)) },
            }
        }
        LateNodes::NextWindow | LateNodes::Drop => Round::Over,
        LateNodes::NextDay => {
            let latest = tick.at.plus(rules.catch_up);
            let days = (tick.rounds + 1..).map_while(|day| times.zone().days_later(tick.at, day));
            for begin in days.take_while(|begin| *begin <= latest && *begin < last) {
                let not_after = begin.plus(rules.window).min(last);
                if now < begin {
                    return Round::Then(begin);
                }
                if now < not_after {
                    return Round::Now { not_after };
                }
            }
            Round::Over
        }
    }
}
