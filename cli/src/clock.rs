//! The clock and the dice of this crate: the only file that reads the wall clock or draws randomness.

use fleet_types::time::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};

/// The wall clock, kept within the allowed years.
#[allow(clippy::disallowed_methods, reason = "this is the clock file")]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::clamped(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Random bits for a run id; `None` when the system has none to give.
pub fn random_u32() -> Option<u32> {
    let mut bytes = [0u8; 4];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(u32::from_be_bytes(bytes))
}

/// A key that names one change, so that sending it twice changes once.
pub fn idempotency_key() -> String {
    uuid::Uuid::new_v4().as_hyphenated().to_string()
}
