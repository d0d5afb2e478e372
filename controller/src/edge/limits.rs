//! Rate of the enrolment port: by token first, by address second, so that sites behind one address do not
//! block each other (security-and-delivery §1.1).

use std::net::IpAddr;
use std::num::NonZeroU32;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::error::{ControllerError, Kind, Result};

/// A whole site may enrol at once behind one address: this many times the rate of one token.
const ADDRESS_FACTOR: u32 = 20;
/// Keys kept before idle ones are dropped; a keyed limiter never forgets by itself.
const MAX_KEYS: usize = 10_000;

/// Limits of one enrolment port.
pub struct EnrolLimits {
    tokens: DefaultKeyedRateLimiter<String>,
    addresses: DefaultKeyedRateLimiter<IpAddr>,
}

impl EnrolLimits {
    /// At most `per_minute` calls a token, and [`ADDRESS_FACTOR`] times that an address.
    pub fn new(per_minute: u32) -> Self {
        let quota = |n: u32| Quota::per_minute(NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN));
        Self {
            tokens: RateLimiter::keyed(quota(per_minute)),
            addresses: RateLimiter::keyed(quota(per_minute.saturating_mul(ADDRESS_FACTOR))),
        }
    }

    /// May this call go on?
    pub fn check(&self, token_id: &str, address: IpAddr) -> Result<()> {
        let too_many = |who: &str| {
            ControllerError::new(
                Kind::Exhausted,
                "too-many-tries",
                format!("too many enrolment tries for this {who}"),
            )
            .fix("wait a minute and try again")
        };
        if self.tokens.len() > MAX_KEYS {
            self.tokens.retain_recent();
        }
        if self.addresses.len() > MAX_KEYS {
            self.addresses.retain_recent();
        }
        let token: String = token_id.chars().take(64).collect();
        self.tokens.check_key(&token).map_err(|_| too_many("token"))?;
        self.addresses.check_key(&address).map_err(|_| too_many("address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_is_limited_before_its_whole_site() {
        let limits = EnrolLimits::new(3);
        let address = IpAddr::from([127, 0, 0, 1]);
        let tries = (0..10).filter(|_| limits.check("a", address).is_ok()).count();
        assert_eq!(tries, 3);
        assert!(limits.check("b", address).is_ok(), "another token behind the same address goes on");
        let many = (0..100).filter(|n| limits.check(&format!("t{n}"), address).is_ok()).count();
        assert!(many < 60, "an address is limited too: {many}");
    }
}
