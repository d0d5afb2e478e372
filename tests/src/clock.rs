//! The only file of this crate that reads the wall clock.
//!
//! Stories hand the time on as [`Timestamp`]; the simulator compares microseconds of several processes of one
//! machine. Nothing else may ask the system for the time.

use std::time::Duration;

use fleet_types::time::Timestamp;

/// Wall time since 1970, for comparing instants across processes of one machine.
#[allow(clippy::disallowed_methods)] // This is the file the ban points to.
pub fn since_epoch() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// Wall time now.
pub fn now() -> Timestamp {
    Timestamp::clamped(i64::try_from(since_epoch().as_millis()).unwrap_or(i64::MAX))
}

/// Wall time now in microseconds since 1970.
pub fn micros() -> u64 {
    u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX)
}
