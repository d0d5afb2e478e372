//! Times as people read them: relative, in the local zone, or UTC. Never without saying which.

use std::time::Duration;

use fleet_types::time::Timestamp;
use jiff::tz::TimeZone;

/// `--time`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum TimeStyle {
    /// `22m ago`, `in 11h57m`.
    #[default]
    Relative,
    /// In the zone of this machine.
    Local,
    /// In UTC.
    Utc,
}

/// Shows instants in one style.
#[derive(Debug, Clone)]
pub struct Times {
    /// The style.
    pub style: TimeStyle,
    /// What "now" is.
    pub now: Timestamp,
    /// Zone of [`TimeStyle::Local`].
    pub zone: TimeZone,
}

impl Times {
    /// An instant in the style asked for.
    pub fn show(&self, at: Timestamp) -> String {
        match self.style {
            TimeStyle::Relative => self.relative(at),
            TimeStyle::Local => in_zone(at, &self.zone),
            TimeStyle::Utc => in_zone(at, &TimeZone::UTC),
        }
    }

    /// An instant that may be missing.
    pub fn show_optional(&self, at: Option<Timestamp>) -> String {
        at.map_or_else(|| "-".to_owned(), |at| self.show(at))
    }

    /// A point of time for a headline: never relative, since the reader wants to know when they looked.
    pub fn absolute(&self, at: Timestamp) -> String {
        match self.style {
            TimeStyle::Local => in_zone(at, &self.zone),
            TimeStyle::Relative | TimeStyle::Utc => in_zone(at, &TimeZone::UTC),
        }
    }

    /// The same without its day, where what it says is seconds old.
    pub fn time_of_day(&self, at: Timestamp) -> String {
        let text = self.absolute(at);
        text.split_once(' ').map_or(text.clone(), |(_, time)| time.to_owned())
    }

    /// A text of the controller's, its instants in the style asked for. What is still to come stands in the midst of
    /// a sentence such as "starts at", and is not told relative to now.
    pub fn retold(&self, text: &str) -> String {
        let word = |word: &str| {
            let bare = word.trim_end_matches([',', ';', '.', ')']);
            match bare.parse() {
                Ok(at) if at > self.now => self.absolute(at) + &word[bare.len()..],
                Ok(at) => self.show(at) + &word[bare.len()..],
                Err(_) => word.to_owned(),
            }
        };
        text.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }

    fn relative(&self, at: Timestamp) -> String {
        if at > self.now {
            format!("in {}", length(at.since(self.now)))
        } else {
            format!("{} ago", length(self.now.since(at)))
        }
    }
}

fn in_zone(at: Timestamp, zone: &TimeZone) -> String {
    // The range of a Timestamp lies well inside jiff's.
    let at = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// A length of time in its two largest units: `42s`, `5m03s`, `11h57m`, `6d04h`.
pub fn length(length: Duration) -> String {
    let seconds = length.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    if days > 0 {
        format!("{days}d{hours:02}h")
    } else if hours > 0 {
        format!("{hours}h{minutes:02}m")
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_styles() {
        let now: Timestamp = "2026-11-21T14:02:11Z".parse().unwrap();
        let mut times = Times { style: TimeStyle::Relative, now, zone: TimeZone::UTC };
        let earlier: Timestamp = "2026-11-21T13:40:02Z".parse().unwrap();
        assert_eq!(times.show(earlier), "22m09s ago");
        assert_eq!(times.show(now.plus(Duration::from_mins(717))), "in 11h57m");
        assert_eq!(times.show(now), "0s ago");
        times.style = TimeStyle::Utc;
        assert_eq!(times.show(earlier), "2026-11-21 13:40:02 UTC");
        times.style = TimeStyle::Local;
        times.zone = TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(times.show(earlier), "2026-11-21 14:40:02 +01");
        assert_eq!(times.time_of_day(earlier), "14:40:02 +01");
        assert_eq!(times.show_optional(None), "-");
        let told = "offline, last seen 2026-11-21T13:40:02Z (or 2026-11-21), 12 of 2026";
        assert_eq!(
            times.retold(told),
            "offline, last seen 2026-11-21 14:40:02 +01 (or 2026-11-21), 12 of 2026"
        );
        times.style = TimeStyle::Relative;
        assert_eq!(
            times.retold("warn (score 9, seen 2026-11-21T13:40:02Z)"),
            "warn (score 9, seen 22m09s ago)"
        );
    }

    #[test]
    fn lengths() {
        let shown = [0u64, 59, 61, 3600, 86_399, 90_000, 8_640_000].map(|s| length(Duration::from_secs(s)));
        assert_eq!(shown, ["0s", "59s", "1m01s", "1h00m", "23h59m", "1d01h", "100d00h"]);
    }
}
