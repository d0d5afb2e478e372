//! Time: instants in milliseconds and durations as operators write them. Nothing here reads a clock.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A wall-clock instant, milliseconds since the Unix epoch, UTC, between 2000 and 2100.
///
/// Serialised as a number of milliseconds (a newtype named [`Timestamp::TYPE`]); shown as RFC 3339 with seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Timestamp(i64);

/// 2000-01-01T00:00:00Z: older times on the wire come from a dead clock or a forged message.
const MIN_MS: i64 = 946_684_800_000;
/// 2100-01-01T00:00:00Z.
const MAX_MS: i64 = 4_102_444_800_000;

/// The instant lies outside 2000 to 2100, or the text is no RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Outside of the years 2000 to 2100.
    #[error("time {0} ms is outside the years 2000 to 2100")]
    OutOfRange(i64),
    /// Not an RFC 3339 time.
    #[error("\"{0}\" is not a time such as 2026-11-22T14:02:11Z")]
    Text(String),
}

impl Timestamp {
    /// Its name for serializers that show instants in a form of their own.
    pub const TYPE: &str = "Timestamp";

    /// Checks the range and wraps.
    pub fn from_millis(ms: i64) -> Result<Self, TimeError> {
        if (MIN_MS..MAX_MS).contains(&ms) { Ok(Self(ms)) } else { Err(TimeError::OutOfRange(ms)) }
    }

    /// The nearest allowed instant; for clocks of this machine, which may be dead.
    pub fn clamped(ms: i64) -> Self {
        Self(ms.clamp(MIN_MS, MAX_MS - 1))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This instant moved forward, stopping at the end of the allowed range.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self::clamped(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This instant moved back, stopping at the start of the allowed range.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self::clamped(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Time from `earlier` to this instant; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// As `20250901T020000Z`, the form of `{timestamp}` in file names.
    pub fn compact(self) -> String {
        self.zoned().strftime("%Y%m%dT%H%M%SZ").to_string()
    }

    /// RFC 3339 with all of its milliseconds, `2026-11-22T14:02:11.042Z`.
    pub fn to_milliseconds_text(self) -> String {
        self.zoned().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
    }

    fn zoned(self) -> jiff::Zoned {
        // The range is checked at construction and lies well inside jiff's.
        jiff::Timestamp::from_millisecond(self.0)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .to_zoned(jiff::tz::TimeZone::UTC)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.zoned().strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let parsed: jiff::Timestamp =
            text.parse().map_err(|_| TimeError::Text(text.chars().take(64).collect()))?;
        Self::from_millis(parsed.as_millisecond())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_millis(i64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A length of time as it was written, such as `30s`, `5m`, `24h`, `7d` or `500ms`.
///
/// Kept as written, because signed documents must not change under re-serialising
/// (security-and-delivery §1.15); compared by length.
#[derive(Debug, Clone)]
pub struct Span {
    text: String,
    length: Duration,
}

/// The text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a duration: write a whole number and a unit, such as 30s, 5m, 24h or 7d (at most 3660d)"
)]
pub struct SpanError(String);

impl Span {
    /// The length.
    pub const fn length(&self) -> Duration {
        self.length
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let bad = || SpanError(text.chars().filter(|c| !c.is_control()).take(64).collect());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 =
            text.get(..digits).filter(|n| !n.is_empty()).and_then(|n| n.parse().ok()).ok_or_else(bad)?;
        let unit_ms = match &text[digits..] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        // 3,660 days: ten years bound every rule that operators write.
        let ms = number.checked_mul(unit_ms).filter(|ms| *ms <= 3660 * 86_400_000).ok_or_else(bad)?;
        Ok(Self { text: text.to_owned(), length: Duration::from_millis(ms) })
    }
}

impl PartialEq for Span {
    fn eq(&self, other: &Self) -> bool {
        self.length == other.length
    }
}

impl Eq for Span {}

impl PartialOrd for Span {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Span {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.length.cmp(&other.length)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_outside_the_range_are_refused() {
        assert!(Timestamp::from_millis(0).is_err());
        assert!(Timestamp::from_millis(MAX_MS).is_err());
        assert!(serde_json::from_str::<Timestamp>("1").is_err());
        let instant = Timestamp::from_millis(1_763_820_131_000).unwrap();
        assert_eq!(instant.to_string(), "2025-11-22T14:02:11Z");
        assert_eq!(instant.compact(), "20251122T140211Z");
        assert_eq!("2025-11-22T14:02:11Z".parse::<Timestamp>().unwrap(), instant);
    }

    #[test]
    fn spans_keep_their_text() {
        let span: Span = "90m".parse().unwrap();
        assert_eq!(span.length(), Duration::from_mins(90));
        assert_eq!(serde_json::to_string(&span).unwrap(), "\"90m\"");
        for bad in ["", "5", "m", "-5m", "1.5h", "5 m", "5M", "99999999999999999999s", "3661d", "5m "] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
