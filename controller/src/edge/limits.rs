//! Rate of the enrolment port: by token first, by address second, so that sites behind one address do not
//! block each other (security-and-delivery §1.1).
//!
//! A token that was issued has a rate of its own, and is asked for nothing else. An address is counted by its
//! failures alone, and only those who name no issued token are held back by them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

use super::admission::Source;
use crate::error::{ControllerError, Kind, Result};

/// Guesses of one source in a minute, in times of the rate of a token: mistyped tokens of a whole site.
const FAILURES_FACTOR: u32 = 20;
const MINUTE: Duration = Duration::from_mins(1);
/// Keys kept before old ones are dropped; a keyed limiter never forgets by itself.
const MAX_KEYS: usize = 10_000;

/// Limits of one enrolment port.
pub struct EnrolLimits {
    tokens: DefaultKeyedRateLimiter<String>,
    failures: Mutex<HashMap<Source, (Instant, u32)>>,
    most_failures: u32,
}

fn too_many(who: &str) -> ControllerError {
    ControllerError::new(
        Kind::Exhausted,
        "too-many-tries",
        format!("too many enrolment tries for this {who}"),
    )
    .fix("wait a minute and try again")
}

impl EnrolLimits {
    /// At most `per_minute` calls a token, and [`FAILURES_FACTOR`] times that many failures a source.
    pub fn new(per_minute: u32) -> Self {
        Self {
            tokens: RateLimiter::keyed(Quota::per_minute(
                NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN),
            )),
            failures: Mutex::default(),
            most_failures: per_minute.saturating_mul(FAILURES_FACTOR),
        }
    }

    /// May a call with an issued token go on?
    pub fn check_token(&self, token_id: &str) -> Result<()> {
        if self.tokens.len() > MAX_KEYS {
            self.tokens.retain_recent();
        }
        self.tokens.check_key(&token_id.to_owned()).map_err(|_| too_many("token"))
    }

    /// May a call that names no issued token be answered?
    pub fn check_address(&self, address: IpAddr) -> Result<()> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get(&address.into()) {
            Some((began, count)) if began.elapsed() < MINUTE && *count >= self.most_failures => {
                Err(too_many("address"))
            }
            _ => Ok(()),
        }
    }

    /// Counts a refused try.
    pub fn failed(&self, address: IpAddr) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() > MAX_KEYS {
            failures.retain(|_, (began, _)| began.elapsed() < MINUTE);
        }
        let (began, count) = failures.entry(address.into()).or_insert((Instant::now(), 0));
        if began.elapsed() >= MINUTE {
            (*began, *count) = (Instant::now(), 0);
        }
        *count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_is_limited_and_no_other_by_it() {
        let limits = EnrolLimits::new(3);
        assert_eq!((0..10).filter(|_| limits.check_token("a").is_ok()).count(), 3);
        assert!(limits.check_token("b").is_ok(), "another token behind the same address goes on");
    }

    #[test]
    fn guesses_hold_back_guesses_of_their_source_alone() {
        let limits = EnrolLimits::new(3);
        let (site, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let answered = (0..1_500).filter(|_| {
            let goes_on = limits.check_address(site).is_ok();
            limits.failed(site);
            goes_on
        });
        assert_eq!(answered.count(), 60);
        assert!(limits.check_address(other).is_ok());
        assert!(limits.check_token("issued").is_ok(), "who holds a token is asked for nothing else");
    }
}
