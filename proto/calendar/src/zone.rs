//! Time zones: names of the IANA table of this machine, and which of them a schedule's nodes live in.
//!
//! A file of schedules says the zones of its sites (`[zones]`), so that they are signed with it: a node and the controller
//! find the same. A site without an entry is in UTC.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use fleet_types::document::schedule::{Schedule, ScheduleFile};
use fleet_types::label::Labels;
use fleet_types::time::Timestamp;
use jiff::tz::TimeZone;

use crate::times::{CalendarError, instant, root_of};

/// `timezone = "site"`: each node in the zone of its site.
pub const SITE: &str = "site";
/// The zone where none is written, and of sites without an entry.
pub const UTC: &str = "UTC";

/// A zone of the IANA table.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    name: String,
    table: TimeZone,
}

impl Zone {
    /// Its IANA name, as written.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) const fn table(&self) -> &TimeZone {
        &self.table
    }

    /// The same time on the wall so many days later.
    pub fn days_later(&self, at: Timestamp, days: u32) -> Option<Timestamp> {
        let at = jiff::Timestamp::from_millisecond(at.as_millis()).ok()?;
        let wall = self.table.to_datetime(at).checked_add(jiff::Span::new().try_days(days).ok()?).ok()?;
        Timestamp::from_millis(instant(&self.table, wall)?.as_millisecond()).ok()
    }

    /// An instant as people of the zone write it: `2026-12-01 03:00 CET`.
    pub fn show(&self, at: Timestamp) -> String {
        jiff::Timestamp::from_millisecond(at.as_millis()).map_or_else(
            |_| at.to_string(),
            |at| at.to_zoned(self.table.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string(),
        )
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

impl FromStr for Zone {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        // POSIX strings and file paths are no zone names; the table would try them.
        let shaped = text.len() <= 64
            && !text.starts_with('/')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'+'));
        let unknown = || CalendarError::Zone(text.chars().take(64).collect());
        if !shaped {
            return Err(unknown());
        }
        // UTC needs no table: machines without one keep all schedules that name no zone.
        let table = if text == UTC { TimeZone::UTC } else { TimeZone::get(text).map_err(|_| unknown())? };
        Ok(Self { name: text.to_owned(), table })
    }
}

/// Is this a zone of this machine's table?
pub fn is_zone(text: &str) -> bool {
    text.parse::<Zone>().is_ok()
}

/// The names of the table, for a hint.
pub fn suggestions() -> Vec<String> {
    jiff::tz::db().available().map(|name| name.to_string()).collect()
}

/// Which zones the nodes of a schedule live in.
#[derive(Debug, Clone, Copy)]
pub struct Zones<'f> {
    file: &'f ScheduleFile,
    /// What the schedule at the root of the chain says.
    written: &'f str,
}

impl<'f> Zones<'f> {
    /// The zones of a schedule: its own, and where it is relative to another the other's.
    pub fn of(file: &'f ScheduleFile, schedule: &'f Schedule) -> Result<Self, CalendarError> {
        let root = root_of(file, schedule)?;
        Ok(Self { file, written: root.timezone.as_deref().unwrap_or(UTC) })
    }

    /// Does each node live in the zone of its site?
    pub fn by_site(self) -> bool {
        self.written == SITE
    }

    /// The name of the zone of a node with these labels.
    pub fn of_node(self, labels: &Labels) -> &'f str {
        if self.by_site() {
            self.file.zones.get(labels.site()).map_or(UTC, String::as_str)
        } else {
            self.written
        }
    }

    /// The names of all zones in which it may fire.
    pub fn all(self) -> BTreeSet<&'f str> {
        if self.by_site() {
            self.file.zones.values().map(String::as_str).chain([UTC]).collect()
        } else {
            BTreeSet::from([self.written])
        }
    }
}
