//! Cron expressions: five fields, also `L`, `W` and `SAT#1`, or a macro such as `@daily`.
//!
//! Bounds of security-and-delivery §1.24: at most 256 ASCII bytes and an occurrence within five years;
//! refused in less than 50 ms each (T39). The controller's scheduler computes the ticks.

use croner::Weekday;
use croner::parser::{CronParser, Seconds, Year};

use crate::text_check::quoted;

/// Longest expression (security-and-delivery §1.24).
const MAX_CRON_BYTES: usize = 256;

/// The macros that stand for five fields.
const MACROS: [&str; 7] = ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"];

/// From here five years are searched. A fixed day, so that a document which is good stays good and no
/// clock is read; five years after it hold every day of the calendar, 29 February among them.
const SEARCH_FROM: jiff::civil::Date = jiff::civil::date(2026, 1, 1);
/// Five years, one leap day among them.
const SEARCH_DAYS: u32 = 5 * 365 + 1;

/// Refuses what is no cron expression or never fires; the text says why.
pub fn check_cron(text: &str) -> Result<(), String> {
    if text.len() > MAX_CRON_BYTES {
        return Err("a cron expression is at most 256 bytes".to_owned());
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return Err("a cron expression holds ASCII characters and blanks only".to_owned());
    }
    if text.contains('@') {
        let known = MACROS.iter().any(|known| known.eq_ignore_ascii_case(text));
        return if known {
            Ok(())
        } else {
            Err(format!("write five fields, or one of {}", MACROS.join(" ")))
        };
    }
    if text.split_ascii_whitespace().count() != 5 {
        return Err("write five fields: minute, hour, day, month, day of the week".to_owned());
    }
    check_shape(text)?;
    let cron = parse(text).ok_or_else(|| bad_field(text))?;
    if fires(&cron) { Ok(()) } else { Err("it does not fire within five years".to_owned()) }
}

fn parse(text: &str) -> Option<croner::Cron> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(text).ok()
}

/// Which of the five fields is wrong: each is tried alone.
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
            return format!("the {name} {} is no number, range or list of {range}", quoted(given));
        }
    }
    "the fields do not go together".to_owned()
}

/// Whether a day of the five years matches. Minute and hour always exist, so days are enough; asking
/// for the next occurrence would search on for centuries before it gives up.
fn fires(cron: &croner::Cron) -> bool {
    let mut day = SEARCH_FROM;
    for _ in 0..SEARCH_DAYS {
        let (year, month, in_month) =
            (i32::from(day.year()), day.month().unsigned_abs(), day.day().unsigned_abs());
        let weekday =
            Weekday::from_days_from_sunday(day.weekday().to_sunday_zero_offset().unsigned_abs().into());
        let matches = cron.pattern.month_match(month.into()).unwrap_or(false)
            && cron.pattern.day_match(year, month.into(), in_month.into(), weekday).unwrap_or(false);
        if matches {
            return true;
        }
        let Ok(next) = day.tomorrow() else { return false };
        day = next;
    }
    false
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
        let result = check_cron(text);
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
        assert!(check_cron(&commas).is_ok());
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
            assert_eq!(check_cron(good), Ok(()), "{good}");
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
            let why = check_cron(text).unwrap_err();
            assert!(why.starts_with(&format!("the {name} is no number")), "{text}: {why}");
        }
    }

    /// Rows of the shared test data; they lie beside the workspace and may be missing.
    fn rows(file: &str) -> Vec<serde_json::Value> {
        let path = format!("{}/../../../shared/data/cron/{file}", env!("CARGO_MANIFEST_DIR"));
        match std::fs::read_to_string(&path) {
            Ok(text) => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            Err(error) => {
                eprintln!(
                    "NOT TESTED: {path} cannot be read ({error}); the rows of {file} were not looked at"
                );
                Vec::new()
            }
        }
    }

    #[test]
    fn the_shared_invalid_rows_are_refused() {
        for row in rows("invalid.jsonl") {
            refused(row["expr"].as_str().unwrap());
        }
    }

    #[test]
    fn the_shared_good_rows_are_accepted() {
        for row in rows("next.jsonl") {
            let expr = row["expr"].as_str().unwrap();
            assert_eq!(check_cron(expr), Ok(()), "{expr}");
        }
    }
}
