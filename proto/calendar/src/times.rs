//! The ticks of one schedule in one zone.
//!
//! At a change of the clocks: a time that does not exist fires right after the gap, one that comes twice fires once, the
//! first time (`dst = "shift"`, reference/schedule.toml). A time relative to another schedule: whole days (`-14d`) keep the
//! hour on the wall, every other unit is time that passes. The scheduler, the node and the commands ask it.

use std::time::Duration;

use fleet_types::document::schedule::{Schedule, ScheduleFile};
use fleet_types::time::{Span, Timestamp};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::cron::{Cron, CronError};
use crate::zone::Zone;

/// No search goes further than this (security-and-delivery §1.24): five years, one leap day among them.
pub const SEARCH: Duration = Duration::from_hours((5 * 365 + 1) * 24);
const SEARCH_DAYS: usize = 5 * 365 + 1;

/// Why a schedule has no times.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// The cron expression is none.
    #[error("schedule \"{schedule}\": {why}")]
    Cron {
        /// The schedule that has it.
        schedule: String,
        /// What is wrong, and what to write.
        why: CronError,
    },
    /// It has neither cron nor another schedule.
    #[error("schedule \"{0}\" has neither cron nor relative_to")]
    NoTimes(String),
    /// The other schedule is not there.
    #[error("schedule \"{0}\" is relative to one that its file does not have")]
    NoSuch(String),
    /// It is relative to itself, through others.
    #[error("schedule \"{0}\" is relative to itself, through others")]
    Circle(String),
    /// The offset is no duration.
    #[error("schedule \"{schedule}\": \"{by}\" is no duration such as \"-14d\"")]
    Offset {
        /// The schedule that has it.
        schedule: String,
        /// What is written.
        by: String,
    },
    /// This machine's table of time zones does not have it.
    #[error(
        "time zone \"{0}\" is not in this machine's table; install the package tzdata, or write another name"
    )]
    Zone(String),
}

/// When one schedule fires in one zone.
#[derive(Debug, Clone)]
pub struct Times {
    cron: Cron,
    zone: Zone,
    offset: Offset,
}

/// What a chain of `relative_to` adds up to.
#[derive(Debug, Clone, Copy, Default)]
struct Offset {
    /// Days on the wall.
    days: i32,
    /// Time that passes.
    passing_ms: i64,
}

impl Times {
    /// The times of a schedule of `file`, for the nodes of one of its zones ([`crate::Zones`]).
    pub fn of(file: &ScheduleFile, schedule: &Schedule, zone: Zone) -> Result<Self, CalendarError> {
        let mut offset = Offset::default();
        for link in chain(file, schedule) {
            let link = link?;
            let Some(relative) = &link.relative_to else { continue };
            offset.add(&relative.by).ok_or_else(|| CalendarError::Offset {
                schedule: link.id.to_string(),
                by: relative.by.chars().take(64).collect(),
            })?;
        }
        let root = root_of(file, schedule)?;
        let text = root.cron.as_deref().ok_or_else(|| CalendarError::NoTimes(root.id.to_string()))?;
        let bad = |why| CalendarError::Cron { schedule: root.id.to_string(), why };
        Ok(Self { cron: text.parse().map_err(bad)?, zone, offset })
    }

    /// Times of a cron expression alone.
    pub const fn of_cron(cron: Cron, zone: Zone) -> Self {
        Self { cron, zone, offset: Offset { days: 0, passing_ms: 0 } }
    }

    /// Their zone.
    pub const fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The first tick after this instant, if one comes within [`SEARCH`].
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let asked = after.as_millis().checked_sub(self.offset.passing_ms)?;
        let asked = jiff::Timestamp::from_millisecond(asked).ok()?;
        // What the wall shows grows with the instant, so nothing that it shows until now is still to come.
        let wall = self.zone.table().to_datetime(asked);
        let (first, time) = (self.before_days(wall)?, wall.time());
        let days = first.date().series(jiff::Span::new().days(1)).take(SEARCH_DAYS);
        for day in days.filter(|day| self.cron.on(*day)) {
            for (hour, minute) in self.cron.times().iter().copied() {
                if day == first.date() && (hour, minute) < (time.hour(), time.minute()) {
                    continue;
                }
                let tick = self.instant(day.at(hour, minute, 0, 0))?;
                if tick > asked {
                    let ms = tick.as_millisecond().checked_add(self.offset.passing_ms)?;
                    return Timestamp::from_millis(ms).ok();
                }
            }
        }
        None
    }

    /// The ticks after `from` up to and including `to`, in order.
    pub const fn between(&self, from: Timestamp, to: Timestamp) -> Ticks<'_> {
        Ticks { times: self, at: from, to }
    }

    /// The newest tick at or before `at` that is after `from`: looked for backwards in steps that double, because a schedule
    /// of each minute has half a million a year.
    pub fn newest_between(&self, from: Timestamp, at: Timestamp) -> Option<Timestamp> {
        let mut step = Duration::from_mins(2);
        loop {
            let begin = at.minus(step).max(from);
            if let Some(newest) = self.between(begin, at).last() {
                return Some(newest);
            }
            if begin == from || step > SEARCH {
                return None;
            }
            step = step.saturating_mul(4);
        }
    }

    /// Is this instant a tick?
    pub fn is_tick(&self, at: Timestamp) -> bool {
        self.next_after(at.minus(Duration::from_millis(1))) == Some(at)
    }

    /// The wall without the offset's days.
    fn before_days(&self, wall: DateTime) -> Option<DateTime> {
        wall.checked_sub(jiff::Span::new().days(self.offset.days)).ok()
    }

    /// The instant of a time on the wall of the root schedule.
    fn instant(&self, root: DateTime) -> Option<jiff::Timestamp> {
        let wall = root.checked_add(jiff::Span::new().days(self.offset.days)).ok()?;
        instant(self.zone.table(), wall)
    }
}

/// The instant of a time on the wall: right after the gap where there is none, the first where there are two.
pub(crate) fn instant(table: &TimeZone, wall: DateTime) -> Option<jiff::Timestamp> {
    let ambiguous = table.to_ambiguous_timestamp(wall);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { after, .. } => {
            // With the offset that holds after the gap the time lies before it: the change is the next one.
            let before = after.to_timestamp(wall).ok()?;
            table.following(before).next().map(|change| change.timestamp())
        }
        _ => ambiguous.earlier().ok(),
    }
}

impl Offset {
    fn add(&mut self, by: &str) -> Option<()> {
        let (negative, text) = by.strip_prefix('-').map_or((false, by), |text| (true, text));
        let span: Span = text.parse().ok()?;
        let ms = i64::try_from(span.length().as_millis()).ok()?;
        let ms = if negative { -ms } else { ms };
        if text.ends_with('d') {
            // Spans are at most 3,660 days and a file has a bounded number of schedules.
            self.days = self.days.checked_add(i32::try_from(ms / 86_400_000).ok()?)?;
        } else {
            self.passing_ms = self.passing_ms.checked_add(ms)?;
        }
        Some(())
    }
}

/// Ticks of a span of time, in order; each is searched for when it is asked for.
#[derive(Debug, Clone)]
pub struct Ticks<'t> {
    times: &'t Times,
    at: Timestamp,
    to: Timestamp,
}

impl Iterator for Ticks<'_> {
    type Item = Timestamp;

    fn next(&mut self) -> Option<Timestamp> {
        let next = self.times.next_after(self.at).filter(|next| *next <= self.to)?;
        self.at = next;
        Some(next)
    }
}

/// The schedule, the one that it is relative to, and so on.
fn chain<'f>(
    file: &'f ScheduleFile,
    schedule: &'f Schedule,
) -> impl Iterator<Item = Result<&'f Schedule, CalendarError>> {
    let mut left = file.schedules.len();
    let mut next = Some(Ok(schedule));
    std::iter::from_fn(move || {
        let this = next.take()?;
        if let Ok(at) = &this
            && let Some(relative) = &at.relative_to
        {
            let found = file.schedules.iter().find(|other| other.id == relative.schedule);
            next = Some(match left.checked_sub(1) {
                Some(fewer) => {
                    left = fewer;
                    found.ok_or_else(|| CalendarError::NoSuch(at.id.to_string()))
                }
                None => Err(CalendarError::Circle(schedule.id.to_string())),
            });
        }
        Some(this)
    })
}

/// The schedule at the end of the chain: the one with the cron expression.
pub(crate) fn root_of<'f>(
    file: &'f ScheduleFile,
    schedule: &'f Schedule,
) -> Result<&'f Schedule, CalendarError> {
    chain(file, schedule).last().unwrap_or(Ok(schedule))
}
