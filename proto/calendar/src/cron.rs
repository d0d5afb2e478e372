//! Cron expressions: five fields, also `L`, `W` and `SAT#1`, or a macro such as `@daily`.
//!
//! Day and day of the week both written: either is enough. Bounds of security-and-delivery §1.24: at most 256 ASCII bytes
//! and an occurrence within five years; refused in less than 50 ms each (T39). [`crate::Times`] and the lint call it.

use std::str::FromStr;

use croner::Weekday;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::{Date, date};

/// Longest expression (security-and-delivery §1.24).
const MAX_CRON_BYTES: usize = 256;

/// The macros, and the five fields that they stand for (crontab(5)).
const MACROS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// From here five years are searched. A fixed day, so that a document which is good stays good and no
/// clock is read; five years after it hold every day of the calendar, 29 February among them.
const SEARCH_FROM: Date = date(2026, 1, 1);
/// Five years, one leap day among them.
const SEARCH_DAYS: usize = 5 * 365 + 1;

/// Why a text is no cron expression, and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CronError(String);

/// A cron expression that fires within five years.
#[derive(Debug, Clone)]
pub struct Cron {
    pattern: croner::Cron,
    /// The times of a matching day as (hour, minute), in order.
    times: Vec<(i8, i8)>,
}

impl Cron {
    /// The times of a day that matches, as (hour, minute), in order; never empty.
    pub(crate) fn times(&self) -> &[(i8, i8)] {
        &self.times
    }

    /// Does it fire on this day, as the calendar on the wall says it?
    pub(crate) fn on(&self, day: Date) -> bool {
        let (year, month, in_month) =
            (i32::from(day.year()), day.month().unsigned_abs(), day.day().unsigned_abs());
        let weekday =
            Weekday::from_days_from_sunday(day.weekday().to_sunday_zero_offset().unsigned_abs().into());
        self.pattern.pattern.month_match(month.into()).unwrap_or(false)
            && self.pattern.pattern.day_match(year, month.into(), in_month.into(), weekday).unwrap_or(false)
    }
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let text = fields(text).map_err(CronError)?;
        let pattern = parse(text).ok_or_else(|| CronError(bad_field(text)))?;
        let matching = |most: u8, matches: &dyn Fn(u32) -> bool| -> Vec<i8> {
            (0..most).filter(|number| matches(u32::from(*number))).map(u8::cast_signed).collect()
        };
        let hours = matching(24, &|hour| pattern.pattern.hour_match(hour).unwrap_or(false));
        let minutes = matching(60, &|minute| pattern.pattern.minute_match(minute).unwrap_or(false));
        let of_hour = |hour: i8| minutes.iter().map(move |minute| (hour, *minute));
        let cron = Self { times: hours.into_iter().flat_map(of_hour).collect(), pattern };
        // Asking for the next occurrence would search on for centuries before it gives up.
        let fires = SEARCH_FROM.series(jiff::Span::new().days(1)).take(SEARCH_DAYS).any(|day| cron.on(day));
        if fires && !cron.times.is_empty() {
            Ok(cron)
        } else {
            Err(CronError("it does not fire within five years".to_owned()))
        }
    }
}

/// The five fields of a text.
fn fields(text: &str) -> Result<&str, String> {
    if text.len() > MAX_CRON_BYTES {
        return Err("a cron expression is at most 256 bytes".to_owned());
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return Err("a cron expression holds ASCII characters and blanks only".to_owned());
    }
    if text.contains('@') {
        let known = MACROS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        let names = || MACROS.map(|(name, _)| name).join(" ");
        return known
            .map(|(_, fields)| *fields)
            .ok_or_else(|| format!("write five fields, or one of {}", names()));
    }
    if text.split_ascii_whitespace().count() != 5 {
        return Err("write five fields: minute, hour, day, month, day of the week".to_owned());
    }
    check_shape(text).map(|()| text)
}

fn parse(text: &str) -> Option<croner::Cron> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(text).ok()
}

/// Which of the five fields is wrong: each is tried alone. They hold printable ASCII only.
fn bad_field(text: &str) -> String {
    const FIELDS: [(&str, &str); 5] = [
        ("minute", "0 to 59"),
        ("hour", "0 to 23"),
        ("day", "1 to 31, L or W"),
        ("month", "1 to 12, or JAN to DEC"),
        ("day of the week", "0 to 7, or SUN to SAT"),
    ];
    for (at, (given, (name, range))) in text.split_ascii_whitespace().zip(FIELDS).enumerate() {
        let mut fields = ["*"; 5];
        fields[at] = given;
        if parse(&fields.join(" ")).is_none() {
            let cut = if given.len() > 64 { format!("{}…", &given[..64]) } else { given.to_owned() };
            return format!("the {name} \"{cut}\" is no number, range or list of {range}");
        }
    }
    "the fields do not go together".to_owned()
}

/// What the parser is too friendly about: empty parts of a list, a sign in front, `+`.
fn check_shape(text: &str) -> Result<(), String> {
    for field in text.split_ascii_whitespace() {
        for part in field.split(',') {
            if part.is_empty() {
                return Err(format!("\"{field}\": a part of the list is empty"));
            }
            if part.starts_with(['-', '/', '#', '+']) || part.ends_with(['-', '/', '#']) {
                return Err(format!("\"{field}\": a number is missing"));
            }
            if part.split_once('/').is_some_and(|(_, step)| step.bytes().all(|b| b == b'0')) {
                return Err(format!("\"{field}\": a step is at least 1"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn refused(text: &str) {
        let start = Instant::now();
        let result = text.parse::<Cron>();
        let took = start.elapsed();
        assert!(result.is_err(), "accepted {text:?}");
        assert!(took < Duration::from_millis(50), "{text:?} took {took:?}");
    }

    #[test]
    fn hostile_expressions_are_refused_quickly() {
        let long = "1,".repeat(500_000);
        let commas = format!("{} * * * *", ["1"; 120].join(","));
        for bad in [
            "",
            "99 * * * *",
            "*/0 * * * *",
            "0 0 30 2 *",
            "0 0 31 2,4 *",
            &long,
            "* * * * * *",
            "@reboot",
            "\u{661} * * * *",
        ] {
            refused(bad);
        }
        assert!(commas.parse::<Cron>().is_ok());
    }

    #[test]
    fn the_forms_of_the_reference_are_accepted() {
        for good in [
            "0 3 * * SUN",
            "0 1 * * SAT#1",
            "0 9 * JAN,APR,JUL,OCT TUE#2",
            "0 0 L * *",
            "0 0 15W * *",
            "0 0 29 2 *",
            "@daily",
            "*/5 * * * *",
            "30 3 * * 7",
        ] {
            assert!(good.parse::<Cron>().is_ok(), "{good}");
        }
    }

    #[test]
    fn the_wrong_field_is_named() {
        for (text, name) in [
            ("60 * * * *", "minute \"60\""),
            ("0 25 * * *", "hour \"25\""),
            ("0 0 0 * *", "day \"0\""),
            ("0 0 * JANUARY *", "month \"JANUARY\""),
            ("0 0 * * 9", "day of the week \"9\""),
        ] {
            let why = text.parse::<Cron>().unwrap_err().to_string();
            assert!(why.starts_with(&format!("the {name} is no number")), "{text}: {why}");
        }
    }
}
