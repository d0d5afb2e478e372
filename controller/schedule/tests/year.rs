//! A virtual year of both guides' schedules with outages, pauses and two changes of the clocks: every tick is decided once,
//! none later than it may, and there are as many as the guides say when they are counted day by day.

#![allow(clippy::unwrap_used)] // helpers of tests: a panic is the failure

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_calendar::{Times, Zones};
use fleet_schedule::{Lane, Rules, Running, decide};
use fleet_types::document::Document;
use fleet_types::document::schedule::{Misfire, ScheduleFile};
use fleet_types::id::RunId;
use fleet_types::time::Timestamp;
use fleet_types::view::NotFired;
use jiff::civil::{Date, Weekday, date};
use proptest::prelude::*;

const YEAR: (Date, Date) = (date(2026, 1, 1), date(2026, 12, 31));

fn midnight(day: Date) -> Timestamp {
    format!("{day}T00:00:00Z").parse().unwrap()
}

/// The shipped file of a guide, with zones for its sites.
fn guide(name: &str) -> ScheduleFile {
    let path = format!("{}/../../deploy/profiles/{name}/schedules.toml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let text = format!("{text}\n[zones]\nfra1 = \"Europe/Berlin\"\n");
    match fleet_documents::parse(&path, &text).map(|parsed| parsed.document) {
        Ok(Document::Schedule(file)) => *file,
        other => panic!("{path}: {other:?}"),
    }
}

/// What happens in the year.
struct Story {
    /// The controller is down from day to day.
    outages: Vec<(Timestamp, Timestamp)>,
    /// The schedules are paused.
    pauses: Vec<(Timestamp, Timestamp)>,
    /// How long each run takes.
    runs: Duration,
}

fn within(spans: &[(Timestamp, Timestamp)], at: Timestamp) -> Option<Timestamp> {
    spans.iter().find(|(from, to)| (*from..*to).contains(&at)).map(|(_, to)| *to)
}

#[derive(Default)]
struct Told {
    fired: BTreeMap<Timestamp, Timestamp>,
    skipped: BTreeMap<NotFired, u32>,
}

/// The year of one lane, look by look, as the controller goes through it.
fn live(times: &Times, rules: &Rules, story: &Story) -> Told {
    let (from, end) = (midnight(YEAR.0), midnight(YEAR.1.tomorrow().unwrap()));
    let (mut now, mut decided, mut run): (_, Option<Timestamp>, Option<(Timestamp, bool)>) =
        (from, None, None);
    let mut told = Told::default();
    let until = end.plus(Duration::from_hours(24 * 30));
    for _ in 0..2_000_000 {
        if now >= until {
            return told;
        }
        if let Some(back) = within(&story.outages, now) {
            now = back;
            continue;
        }
        run = run.filter(|(ends, _)| *ends > now);
        let running = run.map(|(_, caught_up)| Running { run: RunId::from_number(1), caught_up });
        let paused = within(&story.pauses, now).is_some();
        let lane = Lane { times, rules, from, end, decided, running, paused, retry_at: None };
        let answer = decide(&lane, now);
        for skip in &answer.skip {
            assert!(decided.is_none_or(|decided| skip.first > decided) && skip.last >= skip.first);
            *told.skipped.entry(skip.why).or_default() += skip.count;
            decided = Some(skip.last);
        }
        if answer.cancel.is_some() {
            run = None;
            continue;
        }
        if let Some(fire) = answer.fire {
            assert!(decided.is_none_or(|decided| fire.at > decided), "twice: {}", fire.at);
            assert!(now.since(fire.at) <= rules.limit(), "{} fires at {now}", fire.at);
            assert!(now >= fire.at && fire.not_after <= fire.at.plus(rules.lasts));
            assert!(told.fired.insert(fire.at, now).is_none());
            (decided, run) = (Some(fire.at), Some((now.plus(story.runs), fire.caught_up)));
            continue;
        }
        let ends = run.map(|(ends, _)| ends);
        let change = story.pauses.iter().flat_map(|(from, to)| [*from, *to]).filter(|at| *at > now).min();
        let Some(next) = [answer.look_again, ends, change].into_iter().flatten().min() else { return told };
        assert!(next > now, "{next} at {now}");
        now = next;
    }
    panic!("the year does not end");
}

/// How many ticks a guide's words make in the year; counted by hand, day by day.
fn expected(id: &str, guide: &str) -> usize {
    let days = || YEAR.0.series(jiff::Span::new().days(1)).take_while(|day| *day <= YEAR.1);
    let nth = |day: &Date, weekday, nth: i8| day.weekday() == weekday && (day.day() - 1) / 7 + 1 == nth;
    let before = |day: Date, by: i64| day.checked_add(jiff::Span::new().days(by)).unwrap();
    let quarter = |day: &Date, first: i8| (day.month() - first) % 3 == 0 && day.month() >= first;
    let monthly = |day: &Date| match guide {
        "wan22" => nth(day, Weekday::Saturday, 1),
        _ => nth(day, Weekday::Tuesday, 2),
    };
    let quarterly = |day: &Date| match guide {
        "wan22" => quarter(day, 3) && nth(day, Weekday::Tuesday, 2),
        _ => quarter(day, 1) && nth(day, Weekday::Tuesday, 3),
    };
    days()
        .filter(|day| match id {
            "daily-maintenance" | "signature-update" | "daily-log-review" | "filesystem-maintenance" => true,
            "weekly-maintenance" => day.weekday() == Weekday::Sunday,
            "weekly-restore-test" => day.weekday() == Weekday::Monday,
            "monthly-maintenance" => monthly(day),
            "monthly-planning" | "vulnerability-assessment" => monthly(&before(*day, 7)),
            "quarterly-maintenance" => quarterly(day),
            "quarterly-planning" => quarterly(&before(*day, 14)),
            other => panic!("nobody counted {other}"),
        })
        .count()
}

#[test]
fn a_year_of_both_guides_decides_every_tick_once() {
    let span = |from: Date, days: i64, hours: u64| {
        let from = midnight(from).plus(Duration::from_mins(90));
        (from, from.plus(Duration::from_hours(u64::try_from(days).unwrap() * 24 + hours)))
    };
    let story = Story {
        outages: vec![
            span(date(2026, 2, 7), 0, 3),
            span(date(2026, 3, 29), 0, 6), // The clocks go forward meanwhile.
            span(date(2026, 7, 1), 9, 0),
            span(date(2026, 10, 25), 0, 1), // And back.
        ],
        pauses: vec![span(date(2026, 5, 4), 3, 0), span(date(2026, 9, 30), 0, 12)],
        runs: Duration::from_mins(40),
    };
    for name in ["wan22", "zehrasec"] {
        let file = guide(name);
        let mut seen = BTreeSet::new();
        for schedule in &file.schedules {
            let id = schedule.id.as_str().trim_start_matches("wan22-");
            seen.insert(id.to_owned());
            for zone in Zones::of(&file, schedule).unwrap().all() {
                let times = Times::of(&file, schedule, zone.parse().unwrap()).unwrap();
                let rules = Rules::of(schedule, &format!("{name}/{id}/{zone}"), None, None);
                let told = live(&times, &rules, &story);
                let skipped: u32 = told.skipped.values().sum();
                let all = told.fired.len() + skipped as usize;
                assert_eq!(all, expected(id, name), "{name}/{id} in {zone}: {:?}", told.skipped);
                assert!(told.fired.len() * 10 >= all * 9 || all < 20, "{name}/{id}: {:?}", told.skipped);
                if rules.misfire == Misfire::RunOnce && id.starts_with("daily") {
                    // Ten days of darkness and four days of pauses; nothing else is lost.
                    assert!(told.fired.len() >= all - 14, "{name}/{id}: {:?}", told.skipped);
                }
            }
        }
        assert!(seen.len() >= 7, "{seen:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever happens: each tick is decided once, in order, and none too late.
    #[test]
    fn every_tick_is_decided_once_whatever_happens(
        cron in prop::sample::select(vec!["30 2 * * *", "0 */3 * * *", "0 9 * * TUE#2", "15 1 1,15 * *"]),
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York"]),
        misfire in prop::sample::select(vec!["skip", "run_once", "run_all"]),
        overlap in prop::sample::select(vec!["skip", "queue", "cancel_running"]),
        catch_up in 1_u32..100,
        run_hours in 0_u64..30,
        outages in prop::collection::vec((0_u64..8760, 1_u64..200), 0..6),
        pauses in prop::collection::vec((0_u64..8760, 1_u64..100), 0..3),
    ) {
        let schedule = serde_json::from_value(serde_json::json!({
            "id": "s", "procedure": "p", "cron": cron, "misfire": misfire, "overlap": overlap,
            "window": "2h", "catch_up": format!("{catch_up}h"),
        })).unwrap();
        let times = Times::of_cron(cron.parse().unwrap(), zone.parse().unwrap());
        let rules = Rules::of(&schedule, "lane", None, None);
        let span = |(from, hours): &(u64, u64)| {
            let from = midnight(YEAR.0).plus(Duration::from_hours(*from));
            (from, from.plus(Duration::from_hours(*hours)))
        };
        let story = Story {
            outages: outages.iter().map(span).collect(),
            pauses: pauses.iter().map(span).collect(),
            runs: Duration::from_hours(run_hours) + Duration::from_mins(1),
        };
        let told = live(&times, &rules, &story);
        let all = times.between(midnight(YEAR.0).minus(Duration::from_millis(1)),
            midnight(YEAR.1.tomorrow().unwrap()).minus(Duration::from_millis(1))).count();
        let skipped: u32 = told.skipped.values().sum();
        prop_assert_eq!(told.fired.len() + skipped as usize, all, "{:?}", told.skipped);
        if misfire == "skip" {
            prop_assert!(told.fired.iter().all(|(tick, now)| now.since(*tick) <= Duration::from_hours(2)));
        }
    }
}
