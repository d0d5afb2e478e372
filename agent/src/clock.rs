//! The only file of the agent's core that reads the clock or draws random numbers.
//!
//! Wall time serves certificates and log lines; every wait runs on tokio's monotonic clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleet_types::time::Timestamp;

/// Wall time now.
#[allow(clippy::disallowed_methods, reason = "this is the clock file")]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::clamped(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A length between zero and `most`, each as likely: jitter, not a secret.
pub fn uniform(most: Duration) -> Duration {
    // The low half of a version 4 UUID holds 62 random bits.
    let random = u32::try_from(uuid::Uuid::new_v4().as_u128() & u128::from(u32::MAX)).unwrap_or(0);
    most.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Sixteen random bits: jitter, not a secret.
pub fn jitter() -> u16 {
    u16::try_from(uuid::Uuid::new_v4().as_u128() & u128::from(u16::MAX)).unwrap_or(0)
}

/// A name for this start of the core that no other has.
pub fn start_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_bound_and_moves() {
        let most = Duration::from_mins(1);
        let drawn: Vec<_> = (0..32).map(|_| uniform(most)).collect();
        assert!(drawn.iter().all(|length| *length <= most));
        assert!(drawn.iter().any(|length| *length != drawn[0]));
        assert_eq!(uniform(Duration::ZERO), Duration::ZERO);
    }
}
