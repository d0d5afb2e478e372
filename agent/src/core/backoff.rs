//! How long to wait before dialling again (security-and-delivery §2.13). Pure: jitter is drawn by the caller.
//!
//! Attempts that never came up: full jitter, `uniform(0, cap)`, the cap doubling from its least to its most.
//! After an established link was lost: `uniform(0, spread)`, so that a controller's restart does not bring
//! the fleet back in one second. The cap goes back only after a link that lasted, so that a link which
//! breaks right after `Welcome` does not become a busy loop.

use std::time::Duration;

/// A controller that asks for more is wrong or hostile; the node must come back.
const LONGEST: Duration = Duration::from_hours(1);

/// The caps between which the pauses grow.
#[derive(Debug, Clone)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    stable: Duration,
    cap: Duration,
}

/// How the last attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// We ended it ourselves, to come back at once with another certificate.
    Renewed,
    /// No link came about.
    NeverUp,
    /// The controller let nobody in and said when to come back.
    TurnedAway {
        /// Not before this.
        retry_after: Duration,
    },
    /// A link was up and was lost.
    Lost {
        /// How long it had been up.
        lasted: Duration,
        /// The spread that the controller named.
        spread: Duration,
    },
    /// The controller said goodbye and when to come back.
    Goodbye {
        /// Not before this.
        retry_after: Duration,
        /// How long the link had been up.
        lasted: Duration,
        /// The spread that the controller named.
        spread: Duration,
    },
}

/// A pause: `fixed` plus a random part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// Waited in any case.
    pub fixed: Duration,
    /// The caller adds `uniform(0, jitter)`.
    pub jitter: Duration,
}

impl Backoff {
    /// Caps from `least` to `most`; a link that lasted `stable` resets them.
    pub const fn new(least: Duration, most: Duration, stable: Duration) -> Self {
        Self { least, most, stable, cap: least }
    }

    /// The pause after an attempt.
    pub fn after(&mut self, ending: Ending) -> Pause {
        match ending {
            // Renewals are spread over days, and each brings one of these.
            Ending::Renewed => Pause { fixed: Duration::ZERO, jitter: Duration::ZERO },
            Ending::NeverUp => Pause { fixed: Duration::ZERO, jitter: self.grow() },
            Ending::Lost { lasted, spread } => {
                Pause { fixed: Duration::ZERO, jitter: self.lost(lasted, spread) }
            }
            Ending::Goodbye { retry_after, lasted, spread } => {
                Pause { fixed: retry_after.min(LONGEST), jitter: self.lost(lasted, spread) }
            }
            Ending::TurnedAway { retry_after } => {
                Pause { fixed: retry_after.min(LONGEST), jitter: self.grow() }
            }
        }
    }

    fn lost(&mut self, lasted: Duration, spread: Duration) -> Duration {
        if lasted >= self.stable {
            self.cap = self.least;
            return spread;
        }
        spread.max(self.grow())
    }

    fn grow(&mut self) -> Duration {
        let cap = self.cap;
        self.cap = cap.saturating_mul(2).min(self.most);
        cap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn backoff() -> Backoff {
        Backoff::new(S, 60 * S, 60 * S)
    }

    #[test]
    fn pauses_grow_to_the_most_and_stay_there() {
        let mut backoff = backoff();
        let caps: Vec<_> = (0..9).map(|_| backoff.after(Ending::NeverUp).jitter.as_secs()).collect();
        assert_eq!(caps, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn only_a_stable_link_resets_them() {
        let mut backoff = backoff();
        for _ in 0..4 {
            backoff.after(Ending::NeverUp);
        }
        let flapping = backoff.after(Ending::Lost { lasted: 59 * S, spread: 2 * S });
        assert_eq!(flapping.jitter, 16 * S);
        let stable = backoff.after(Ending::Lost { lasted: 60 * S, spread: 2 * S });
        assert_eq!(stable.jitter, 2 * S);
        assert_eq!(backoff.after(Ending::NeverUp).jitter, S);
    }

    #[test]
    fn a_goodbye_is_honoured_within_reason() {
        let mut backoff = backoff();
        let ending = |after| Ending::Goodbye { retry_after: after, lasted: 90 * S, spread: 5 * S };
        assert_eq!(backoff.after(ending(7 * S)), Pause { fixed: 7 * S, jitter: 5 * S });
        assert_eq!(backoff.after(ending(90_000 * S)).fixed, 3600 * S);
        let turned_away = |after| Ending::TurnedAway { retry_after: after };
        assert_eq!(backoff.after(turned_away(300 * S)), Pause { fixed: 300 * S, jitter: S });
        assert_eq!(backoff.after(turned_away(90_000 * S)).fixed, 3600 * S);
    }
}
