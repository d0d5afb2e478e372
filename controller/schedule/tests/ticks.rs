//! What becomes of ticks: outages, overlap, pauses, orders signed anew, clocks that jump, late nodes, blackouts.

#![allow(clippy::unwrap_used)] // helpers of tests: a panic is the failure
#![allow(clippy::needless_pass_by_value)] // JSON is written where it is used

use std::time::Duration;

use fleet_calendar::Times;
use fleet_schedule::{
    Blackouts, ClockWatch, Decided, Free, Lane, LateTick, Round, Rules, Running, decide, late_round,
};
use fleet_types::document::schedule::{Schedule, ScheduleFile};
use fleet_types::id::RunId;
use fleet_types::label::Labels;
use fleet_types::time::Timestamp;
use fleet_types::view::NotFired;
use serde_json::json;

fn at(text: &str) -> Timestamp {
    format!("2026-06-{text}:00Z").parse().unwrap()
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_mins(minutes)
}

struct Case {
    times: Times,
    rules: Rules,
    decided: Option<Timestamp>,
    running: Option<Running>,
    paused: bool,
    from: Timestamp,
}

fn case(cron: &str, more: serde_json::Value) -> Case {
    let mut value = json!({"id": "s", "procedure": "p", "cron": cron});
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let schedule: Schedule = serde_json::from_value(value).unwrap();
    Case {
        times: Times::of_cron(cron.parse().unwrap(), "Europe/Berlin".parse().unwrap()),
        rules: Rules::of(&schedule, "edge/s/Europe/Berlin", None, None),
        decided: None,
        running: None,
        paused: false,
        from: at("01T00:00"),
    }
}

impl Case {
    fn at(&self, now: Timestamp) -> Decided {
        let lane = Lane {
            times: &self.times,
            rules: &self.rules,
            from: self.from,
            end: at("30T00:00"),
            decided: self.decided,
            running: self.running,
            paused: self.paused,
            retry_at: None,
        };
        decide(&lane, now)
    }

    /// Ticks that fire when the controller comes back at `now`, each run ending before the next look; and what is skipped.
    fn after_outage(&mut self, now: Timestamp) -> (Vec<Timestamp>, u32) {
        let (mut fired, mut skipped) = (vec![], 0);
        for _ in 0..20 {
            let decided = self.at(now);
            skipped += decided.skip.iter().map(|skip| skip.count).sum::<u32>();
            let newest =
                decided.skip.iter().map(|skip| skip.last).chain(decided.fire.map(|fire| fire.at)).max();
            self.decided = newest.or(self.decided);
            match decided.fire {
                Some(fire) => {
                    assert!(fire.not_before >= fire.at && fire.not_after > fire.not_before);
                    assert!(fire.not_after <= fire.at.plus(self.rules.lasts));
                    fired.push(fire.at);
                }
                None => break,
            }
        }
        (fired, skipped)
    }
}

/// T17.
#[test]
fn three_hours_of_outage_over_six_ticks() {
    let (gone, back) = (at("10T06:59"), at("10T10:15"));
    for (misfire, more, fires, skipped) in [
        ("run_once", json!({"catch_up": "12h"}), 1, 6),
        ("skip", json!({}), 0, 7),
        ("run_all", json!({"catch_up": "12h"}), 7, 0),
        ("run_all", json!({"catch_up": "80m"}), 3, 4),
        ("run_once", json!({"catch_up": "14m"}), 0, 7),
    ] {
        let mut more = more;
        more["misfire"] = misfire.into();
        more["window"] = "10m".into();
        let mut case = case("*/30 * * * *", more);
        case.decided = Some(gone);
        let (fired, missed) = case.after_outage(back);
        assert_eq!((fired.len(), missed), (fires, skipped), "{misfire} {fired:?}");
        assert!(fired.iter().all(|tick| back.since(*tick) <= case.rules.limit()), "{fired:?}");
        let nothing_left = case.at(back);
        assert_eq!((nothing_left.fire, nothing_left.skip.len()), (None, 0));
        assert_eq!(nothing_left.look_again, Some(at("10T10:30")));
    }
}

#[test]
fn a_tick_that_is_a_little_late_is_no_missed_one() {
    let mut case = case("0 8 * * *", json!({"misfire": "skip", "window": "2h", "start_within": "30m"}));
    case.decided = Some(at("09T06:00"));
    let fire = case.at(at("10T06:29")).fire.unwrap();
    assert!(!fire.caught_up);
    assert_eq!((fire.not_before, fire.not_after), (at("10T06:29"), at("10T08:29")));
    assert_eq!(case.at(at("10T06:31")).skip[0].why, NotFired::Missed);
    // Nothing written: a restart of the controller is no outage, three hours are.
    let mut bare = self::case("0 8 * * *", json!({"misfire": "skip"}));
    bare.decided = Some(at("09T06:00"));
    assert!(bare.at(at("10T06:09")).fire.is_some());
    assert!(bare.at(at("10T09:00")).fire.is_none());
}

#[test]
fn the_run_before_is_waited_for_cancelled_or_the_reason_to_skip() {
    let running = Some(Running { run: RunId::from_number(7), caught_up: false });
    for overlap in ["skip", "queue", "cancel_running"] {
        let mut case = case("0 * * * *", json!({"overlap": overlap, "window": "20m"}));
        (case.decided, case.running) = (Some(at("10T06:00")), running);
        let decided = case.at(at("10T07:01"));
        assert_eq!(decided.fire, None);
        assert_eq!(
            decided.skip.iter().map(|skip| skip.why).collect::<Vec<_>>(),
            match overlap {
                "skip" => vec![NotFired::Overlap],
                _ => vec![],
            }
        );
        assert_eq!(decided.cancel.is_some(), overlap == "cancel_running");
        assert_eq!(decided.wait.is_some(), overlap != "skip");
        if overlap != "skip" {
            // It is asked again when the tick is given up, and then it is.
            let given_up = decided.look_again.unwrap();
            assert_eq!(given_up, decided.wait.unwrap().until.plus(Duration::from_millis(1)));
            assert_eq!(case.at(given_up).skip[0].why, NotFired::Overlap);
            case.running = None;
            assert!(case.at(at("10T07:19")).fire.is_some());
        }
    }
}

#[test]
fn missed_ticks_run_one_after_another_whatever_overlaps() {
    let mut case = case("0 * * * *", json!({"misfire": "run_all", "catch_up": "5h", "window": "20m"}));
    case.decided = Some(at("10T06:00"));
    assert!(case.at(at("10T09:30")).fire.unwrap().caught_up);
    (case.decided, case.running) =
        (Some(at("10T07:00")), Some(Running { run: RunId::from_number(7), caught_up: true }));
    let decided = case.at(at("10T09:30"));
    assert_eq!((decided.fire, decided.skip.len(), decided.wait.unwrap().at), (None, 0, at("10T08:00")));
}

#[test]
fn what_comes_due_while_it_is_paused_is_not_made_up_for() {
    let mut case = case("0 * * * *", json!({"catch_up": "1d", "window": "20m"}));
    (case.decided, case.paused) = (Some(at("10T06:00")), true);
    let decided = case.at(at("10T09:05"));
    assert_eq!((decided.skip[0].why, decided.skip[0].count, decided.fire), (NotFired::Paused, 3, None));
    (case.decided, case.paused) = (Some(decided.skip[0].last), false);
    assert_eq!(case.at(at("10T09:06")).fire, None);
}

#[test]
fn an_order_that_is_signed_anew_fires_nothing_from_before() {
    let mut case = case("0 * * * *", json!({"catch_up": "1d"}));
    case.from = at("10T08:30");
    assert_eq!(case.at(at("10T08:45")), Decided { look_again: Some(at("10T09:00")), ..Decided::default() });
    case.decided = Some(at("10T06:00"));
    let decided = case.at(at("10T08:45"));
    assert_eq!((decided.skip[0].why, decided.skip[0].count), (NotFired::SignedAnew, 2));
    assert_eq!(decided.fire, None);
    // And nothing at or after its end.
    case.decided = Some(at("29T23:00"));
    let after = case.at("2026-07-05T00:00:00Z".parse().unwrap());
    assert_eq!((after.fire, after.look_again), (None, None));
}

#[test]
fn nodes_begin_a_jitter_later_the_same_every_time() {
    let case = case("0 8 * * *", json!({"jitter": "10m", "window": "1h"}));
    let offset = case.rules.offset;
    assert!(offset > Duration::ZERO && offset <= minutes(10), "{offset:?}");
    assert_eq!(offset, self::case("0 8 * * *", json!({"jitter": "10m", "window": "1h"})).rules.offset);
    let fire = case.at(at("02T06:00")).fire.unwrap();
    assert_eq!(fire.not_before, at("02T06:00").plus(offset));
    assert_eq!(fire.not_after, fire.not_before.plus(minutes(60)));
}

#[test]
fn what_changes_nodes_begins_early_enough_to_be_done_in_the_window() {
    let schedule = |window: &str| {
        serde_json::from_value(json!({"id": "s", "procedure": "p", "cron": "0 8 * * *", "window": window}))
            .unwrap()
    };
    let window = |text, longest| Rules::of(&schedule(text), "lane", None, longest).window;
    assert_eq!(window("2h", Some(minutes(30))), minutes(90));
    assert_eq!(window("2h", None), minutes(120));
    assert_eq!(window("20m", Some(minutes(30))), minutes(20), "the lint looks at its segments");
}

/// T15.
#[test]
fn a_wall_clock_that_jumps_is_told_from_one_that_goes() {
    let start = at("10T06:00");
    let mut watch = ClockWatch::new(start, minutes(5));
    assert_eq!(watch.look(start.plus(minutes(60)), minutes(65)), None);
    assert_eq!(watch.look(start.plus(minutes(69)), minutes(65)), None, "nine minutes");
    let day = Duration::from_hours(24);
    assert_eq!(watch.look(start.plus(minutes(69)).plus(day), minutes(65)), Some(86_400_000));
    assert_eq!(watch.look(start.plus(minutes(70)), minutes(66)), Some(-86_400_000), "and back");
    assert_eq!(watch.look(start.plus(minutes(71)), minutes(67)), None);
}

#[test]
fn nodes_that_were_not_reached_get_further_rounds() {
    let tick = |rounds| LateTick { at: at("10T06:00"), rounds };
    let end = at("30T00:00");
    let late = |word: &str, rounds, now| {
        let case = case("0 8 * * MON", json!({"late_nodes": word, "catch_up": "60h", "window": "2h"}));
        let case =
            Case { times: Times::of_cron("0 8 * * WED".parse().unwrap(), case.times.zone().clone()), ..case };
        late_round(&case.rules, &case.times, tick(rounds), end, now)
    };
    for word in ["drop", "next_window"] {
        assert_eq!(late(word, 0, at("10T08:00")), Round::Over);
    }
    assert_eq!(
        late("when_online", 0, at("10T08:00")),
        Round::Now { not_after: at("11T08:00") },
        "a request's day"
    );
    assert_eq!(late("when_online", 1, at("10T09:00")), Round::Then(at("11T06:00")), "not at once again");
    assert_eq!(late("when_online", 1, at("11T08:00")), Round::Now { not_after: at("12T08:00") });
    assert_eq!(
        late("when_online", 2, at("12T08:00")),
        Round::Now { not_after: at("12T20:00") },
        "catch_up ends"
    );
    assert_eq!(late("when_online", 3, at("12T10:00")), Round::Over);
    assert_eq!(late("next_day", 0, at("10T08:00")), Round::Then(at("11T06:00")));
    assert_eq!(late("next_day", 0, at("11T07:00")), Round::Now { not_after: at("11T08:00") });
    assert_eq!(late("next_day", 1, at("11T08:00")), Round::Then(at("12T06:00")));
    assert_eq!(late("next_day", 2, at("12T08:00")), Round::Over, "catch_up ends");
}

#[test]
fn a_blackout_holds_its_nodes_and_bounds_the_others() {
    let file: ScheduleFile = serde_json::from_value(json!({
        "schema": "fleet/v1", "name": "edge",
        "blackout": [
            {"id": "close", "from": "2026-06-10T00:00:00Z", "to": "2026-06-11T00:00:00Z", "selector": "site=fra1",
             "allow": ["critical"]},
            {"id": "all", "from": "2026-06-20T00:00:00Z", "to": "2026-06-21T00:00:00Z"},
        ],
    }))
    .unwrap();
    let mut blackouts = Blackouts::default();
    blackouts.add(&file);
    let free = |site: &str, now| {
        blackouts.free(
            &"fw".parse().unwrap(),
            &Labels::new([("site".to_owned(), site.to_owned())]).unwrap(),
            now,
        )
    };
    assert_eq!(free("fra1", at("10T12:00")), Free::No("edge/close".to_owned()));
    assert_eq!(free("nyc", at("10T12:00")), Free::Until(Some(at("20T00:00"))));
    assert_eq!(free("fra1", at("09T12:00")), Free::Until(Some(at("10T00:00"))));
    assert_eq!(free("fra1", at("11T00:00")), Free::Until(Some(at("20T00:00"))));
    assert_eq!(free("nyc", at("21T00:00")), Free::Until(None));
}
