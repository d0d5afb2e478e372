//! Ticks at the edges: changes of the clocks, month ends, times relative to another schedule, hostile expressions.

#![allow(clippy::unwrap_used)] // helpers of tests: a panic is the failure
#![allow(clippy::needless_pass_by_value)] // JSON is written where it is used

use std::time::{Duration, Instant};

use fleet_calendar::{CalendarError, SEARCH, Times, Zone, Zones};
use fleet_types::document::schedule::ScheduleFile;
use fleet_types::label::Labels;
use fleet_types::time::Timestamp;
use proptest::prelude::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn times(cron: &str, zone: &str) -> Times {
    Times::of_cron(cron.parse().unwrap(), zone.parse().unwrap())
}

#[track_caller]
fn fires(cron: &str, zone: &str, from: &str, to: &str, expected: &[&str]) {
    let times = times(cron, zone);
    let found: Vec<String> = times.between(at(from), at(to)).map(|tick| tick.to_string()).collect();
    assert_eq!(found, expected, "{cron} in {zone}");
}

/// T16.
#[test]
fn a_time_that_does_not_exist_fires_right_after_the_gap() {
    fires(
        "30 2 * * *",
        "Europe/Berlin",
        "2026-03-28T12:00:00Z",
        "2026-03-30T12:00:00Z",
        &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
    );
    // All of the gap's times and that of its end are one instant, and one tick.
    fires(
        "*/20 2,3 * * *",
        "Europe/Berlin",
        "2026-03-29T00:00:00Z",
        "2026-03-29T02:00:00Z",
        &["2026-03-29T01:00:00Z", "2026-03-29T01:20:00Z", "2026-03-29T01:40:00Z"],
    );
    // Half an hour only.
    fires(
        "15 2 * * *",
        "Australia/Lord_Howe",
        "2026-10-03T00:00:00Z",
        "2026-10-03T16:00:00Z",
        &["2026-10-03T15:30:00Z"],
    );
    // A day that the island left out.
    fires(
        "0 9 30 12 *",
        "Pacific/Apia",
        "2011-12-01T00:00:00Z",
        "2012-01-31T00:00:00Z",
        &["2011-12-30T10:00:00Z"],
    );
}

/// T16.
#[test]
fn a_time_that_comes_twice_fires_the_first_time_only() {
    fires(
        "30 2 * * *",
        "Europe/Berlin",
        "2026-10-24T12:00:00Z",
        "2026-10-26T12:00:00Z",
        &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
    );
    // Asked in the second pass, the hour is over.
    fires(
        "*/30 1-3 * * *",
        "Europe/Berlin",
        "2026-10-25T01:10:00Z",
        "2026-10-25T03:00:00Z",
        &["2026-10-25T02:00:00Z", "2026-10-25T02:30:00Z"],
    );
    assert!(!times("30 2 * * *", "Europe/Berlin").is_tick(at("2026-10-25T01:30:00Z")));
}

#[test]
fn month_ends_working_days_and_nth_weekdays() {
    let year = ("2026-01-01T00:00:00Z", "2026-04-30T23:59:00Z");
    fires(
        "0 0 L * *",
        "UTC",
        year.0,
        year.1,
        &["2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z", "2026-04-30T00:00:00Z"],
    );
    // The fifteenth of February and of March 2026 is a Sunday: the Monday after it.
    fires("0 6 15W 2,3 *", "UTC", year.0, year.1, &["2026-02-16T06:00:00Z", "2026-03-16T06:00:00Z"]);
    fires(
        "0 1 * * SAT#1",
        "UTC",
        year.0,
        "2026-03-31T00:00:00Z",
        &["2026-01-03T01:00:00Z", "2026-02-07T01:00:00Z", "2026-03-07T01:00:00Z"],
    );
    fires(
        "0 9 * JAN,APR TUE#2",
        "America/New_York",
        year.0,
        year.1,
        &["2026-01-13T14:00:00Z", "2026-04-14T13:00:00Z"],
    );
    fires("0 0 29 2 *", "UTC", year.0, "2029-01-01T00:00:00Z", &["2028-02-29T00:00:00Z"]);
}

fn file(schedules: serde_json::Value) -> ScheduleFile {
    serde_json::from_value(serde_json::json!({
        "schema": "fleet/v1", "name": "edge", "schedule": schedules,
        "zones": {"fra1": "Europe/Berlin", "nyc": "America/New_York"},
    }))
    .unwrap()
}

fn entry(id: &str, relative: Option<(&str, &str)>) -> serde_json::Value {
    let mut entry = serde_json::json!({"id": id, "procedure": "p"});
    if let Some((other, by)) = relative {
        entry["relative_to"] = serde_json::json!({"schedule": other, "by": by});
    } else {
        entry["cron"] = "30 2 * * SUN".into();
        entry["timezone"] = "site".into();
    }
    entry
}

#[test]
fn days_before_keep_the_hour_on_the_wall_and_hours_pass() {
    let file = file(serde_json::json!([
        entry("base", None),
        entry("week-before", Some(("base", "-7d"))),
        entry("then", Some(("week-before", "2h"))),
    ]));
    let of = |index: usize| {
        let times = Times::of(&file, &file.schedules[index], "Europe/Berlin".parse().unwrap()).unwrap();
        let ticks = times.between(at("2026-03-20T00:00:00Z"), at("2026-03-30T00:00:00Z"));
        ticks.map(|tick| tick.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(of(0), ["2026-03-22T01:30:00Z", "2026-03-29T01:00:00Z"]);
    assert_eq!(of(1), ["2026-03-22T01:30:00Z", "2026-03-29T01:00:00Z"], "seven days before the next Sundays");
    assert_eq!(of(2), ["2026-03-22T03:30:00Z", "2026-03-29T03:00:00Z"]);
}

#[test]
fn a_chain_without_an_end_or_in_a_circle_has_no_times() {
    let chained = file(serde_json::json!([
        entry("a", Some(("b", "1h"))),
        entry("b", Some(("a", "1h"))),
        entry("c", Some(("gone", "1h"))),
    ]));
    let of = |index: usize| {
        Times::of(&chained, &chained.schedules[index], "UTC".parse().unwrap()).map(drop).unwrap_err()
    };
    assert_eq!(of(0), CalendarError::Circle("a".to_owned()));
    assert_eq!(of(2), CalendarError::NoSuch("c".to_owned()));
}

#[test]
fn a_node_lives_in_the_zone_of_its_site() {
    let file = file(serde_json::json!([entry("base", None), entry("before", Some(("base", "-1d")))]));
    for schedule in &file.schedules {
        let zones = Zones::of(&file, schedule).unwrap();
        let labels = |site: &str| Labels::new([("site".to_owned(), site.to_owned())]).unwrap();
        assert_eq!(zones.of_node(&labels("nyc")), "America/New_York");
        assert_eq!(zones.of_node(&labels("else")), "UTC");
        assert_eq!(zones.all().into_iter().collect::<Vec<_>>(), ["America/New_York", "Europe/Berlin", "UTC"]);
    }
    let zone: Zone = "Europe/Berlin".parse().unwrap();
    assert_eq!(zone.show(at("2026-12-01T02:00:00Z")), "2026-12-01 03:00 CET");
}

/// T39.
#[test]
fn hostile_expressions_are_answered_quickly() {
    let most = (0..59).step_by(2).map(|minute| minute.to_string()).collect::<Vec<_>>().join(",");
    for cron in [format!("{most} * 29 2 *"), "59 23 29 2 SUN#5".to_owned(), "* * 29 2 *".to_owned()] {
        let start = Instant::now();
        let times = times(&cron, "America/New_York");
        let next = times.next_after(at("2096-03-01T00:00:00Z"));
        assert!(start.elapsed() < Duration::from_millis(50), "{cron}: {:?}, {next:?}", start.elapsed());
    }
    // Nothing within five years after the last leap day before 2100.
    assert_eq!(times("0 0 29 2 *", "UTC").next_after(at("2096-03-01T00:00:00Z")), None);
}

#[test]
fn the_newest_is_found_without_counting_all() {
    let every_minute = times("* * * * *", "UTC");
    let (from, now) = (at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:30Z"));
    assert_eq!(every_minute.newest_between(from, now), Some(at("2027-01-01T00:00:00Z")));
    let rare = times("0 0 29 2 *", "UTC");
    assert_eq!(rare.newest_between(from, at("2028-05-01T00:00:00Z")), Some(at("2028-02-29T00:00:00Z")));
    assert_eq!(rare.newest_between(from, now), None);
}

fn an_instant() -> impl Strategy<Value = Timestamp> {
    (1_735_689_600_000_i64..1_893_456_000_000).prop_map(|ms| Timestamp::from_millis(ms).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A tick is after what was asked, nothing lies between, and asking from anywhere before it finds the same.
    #[test]
    fn the_next_tick_is_the_next(
        now in an_instant(),
        cron in prop::sample::select(vec![
            "30 2 * * *", "*/20 * * * *", "0 9 * * TUE#2", "0 0 L * *", "15 1 1,15 * MON", "0 3 15W * *", "59 23 31 * *",
        ]),
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Karachi"]),
        share in 0_u32..1000,
    ) {
        let times = times(cron, zone);
        let next = times.next_after(now).unwrap();
        prop_assert!(next > now && next.since(now) < SEARCH);
        prop_assert!(times.is_tick(next));
        let between = now.plus(next.since(now).saturating_sub(Duration::from_millis(1)) * share / 1000);
        prop_assert_eq!(times.next_after(between), Some(next));
        prop_assert_eq!(times.newest_between(now, next), Some(next));
    }
}
