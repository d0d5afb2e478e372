//! An archive that lacks what its origin has published. Pure.

use std::time::Duration;

use fleet_types::time::Timestamp;
use serde::Serialize;

use super::tier::Rules;

/// A fix that is published, and not in the node's own archive for longer than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MirrorLag {
    /// When it was published.
    pub published: Timestamp,
    /// For how long it has been missing.
    #[serde(skip)]
    pub lag: Duration,
}

/// Whether an archive lags. `is_missing` is that the origin names a fixed version which no archive of the node has.
pub fn mirror_lag(
    published: Option<Timestamp>,
    is_missing: bool,
    rules: &Rules,
    now: Timestamp,
) -> Option<MirrorLag> {
    let published = published.filter(|_| is_missing)?;
    let lag = now.since(published);
    (lag >= rules.mirror_lag_warn).then_some(MirrorLag { published, lag })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_lags_when_it_lacks_a_fix_for_six_hours() {
        let rules = Rules::default();
        let at = |minutes: i64| Timestamp::clamped(1_795_000_000_000 + minutes * 60_000);
        let lag = |published, is_missing, now| {
            mirror_lag(published, is_missing, &rules, at(now)).map(|lag| lag.lag)
        };
        assert_eq!(lag(Some(at(0)), true, 359), None);
        assert_eq!(lag(Some(at(0)), true, 360), Some(Duration::from_hours(6)));
        assert_eq!(lag(Some(at(0)), false, 9999), None);
        assert_eq!(lag(None, true, 9999), None);
        assert_eq!(lag(Some(at(999)), true, 0), None, "a publication that lies ahead");
    }
}
