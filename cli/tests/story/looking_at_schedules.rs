//! What operators see of schedules, and how they stop them for a while.

use fleet_proto::pb;
use fleet_types::run::RunState;
use fleet_types::time::Timestamp;
use fleet_types::view::{self, NextTick, NotFired, ScheduleItem, ScheduleState, TickItem};

use crate::answers::{Reply, page, view};
use crate::world::World;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn tick(at_text: &str, not_fired: Option<NotFired>) -> TickItem {
    TickItem {
        at: at(at_text),
        zone: "Europe/Berlin".to_owned(),
        shown: "2026-11-23 03:00 CET".to_owned(),
        count: if not_fired.is_some() { 3 } else { 1 },
        first: None,
        decided: at(at_text),
        not_fired,
        because: String::new(),
        runs: if not_fired.is_some() { vec![] } else { vec![fleet_types::id::RunId::from_number(7)] },
        run_state: not_fired.is_none().then_some(RunState::Succeeded),
        unseen: not_fired.is_some(),
    }
}

fn items() -> Vec<ScheduleItem> {
    let item = |id: &str, state, notes: &[&str]| ScheduleItem {
        file: "edge".parse().unwrap(),
        schedule: id.parse().unwrap(),
        procedure: "look".parse().unwrap(),
        state,
        notes: notes.iter().map(|note| (*note).to_owned()).collect(),
        next: vec![],
        last: None,
        unseen: 0,
        ends_soon: false,
        signed_by: None,
        until: None,
    };
    let up = item("nightly", ScheduleState::Up, &[]);
    let next = |day| NextTick {
        at: at(&format!("2026-11-{day}T02:00:00Z")),
        zone: "Europe/Berlin".to_owned(),
        shown: format!("2026-11-{day} 03:00 CET"),
    };
    vec![
        ScheduleItem {
            next: vec![next(24), next(25), next(26)],
            last: Some(tick("2026-11-23T02:00:00Z", None)),
            signed_by: Some("ada".parse().unwrap()),
            until: Some(at("2027-11-01T00:00:00Z")),
            ..up
        },
        ScheduleItem {
            last: Some(tick("2026-11-23T02:00:00Z", Some(NotFired::Missed))),
            unseen: 1,
            ..item("weekly", ScheduleState::Down, &["the tick of 2026-11-23 03:00 CET did not fire: missed"])
        },
    ]
}

pub fn list(asked: &pb::SchedulesRequest) -> Reply {
    let mut items = items();
    items.retain(|item| asked.schedule.is_empty() || item.name() == asked.schedule);
    page("fleet/v1/schedule-list", items)
}

pub fn ticks() -> Reply {
    let missed = tick("2026-11-23T02:00:00Z", Some(NotFired::Missed));
    page("fleet/v1/schedule-history", vec![missed, tick("2026-11-20T02:00:00Z", None)])
}

pub fn steer(asked: &pb::SteerSchedulesRequest) -> Reply {
    assert_eq!(asked.all, asked.schedule.is_empty());
    let which = if asked.all { "all" } else { &asked.schedule };
    let message = format!("{which}: {} because {}", asked.action, asked.reason);
    view(&view::Done { schema: "fleet/v1/done".into(), message })
}

#[test]
fn a_list_has_the_states_the_zones_and_the_reasons() {
    let world = World::signed_in();
    let ended = world.run(&["schedule", "list"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    for part in ["edge/nightly", "up", "2026-11-24 03:00 CET", "succeeded", "edge/weekly", "down", "missed"] {
        assert!(ended.out.contains(part), "{part}: {}", ended.out);
    }
    let ended = world.run(&["schedule", "show", "edge/nightly"]);
    assert!(ended.out.contains("2026-11-26 03:00 CET (Europe/Berlin)"), "{}", ended.out);
    assert!(ended.out.contains("ada, until"), "{}", ended.out);
    let ended = world.run(&["schedule", "next", "edge/nightly"]);
    assert!(ended.out.contains("2026-11-25T02:00:00Z"), "{}", ended.out);
}

#[test]
fn misses_are_seen_once_somebody_says_so() {
    let world = World::signed_in();
    let ended = world.run(&["schedule", "history", "edge/weekly"]);
    assert!(
        ended.out.contains("missed") && !ended.err.contains("seen because"),
        "{}{}",
        ended.out,
        ended.err
    );
    let ended = world.run(&["schedule", "history", "edge/weekly", "--seen", "--reason", "the link was down"]);
    assert!(ended.err.contains("edge/weekly: seen because the link was down"), "{}", ended.err);
}

#[test]
fn a_pause_wants_its_reason_and_all_is_said_in_so_many_words() {
    let world = World::signed_in();
    for (line, code) in [
        (&["schedule", "pause", "edge/nightly"][..], 2),
        (&["schedule", "pause", "--reason", "x"], 2),
        (&["schedule", "pause", "edge/nightly", "--all", "--reason", "x"], 2),
        (&["schedule", "pause", "nightly", "--reason", "x"], 2),
    ] {
        let ended = world.run(line);
        assert_eq!((ended.code, ended.out.as_str()), (code, ""), "{line:?}: {}", ended.err);
    }
    let ended = world.run(&["schedule", "pause", "edge/nightly", "--reason", "disk"]);
    assert!(ended.out.contains("edge/nightly: pause because disk"), "{}{}", ended.out, ended.err);
    let ended = world.run(&["schedule", "resume", "--all"]);
    assert!(ended.out.contains("all: resume because"), "{}{}", ended.out, ended.err);
}

#[test]
fn the_times_of_a_file_need_no_controller() {
    let world = World::signed_in();
    let text = "schema = \"fleet/v1\"\nkind = \"schedule\"\nname = \"edge\"\n[zones]\nfra1 = \"Europe/Berlin\"\n[[schedule]]\nid = \"a\"\nprocedure = \"p\"\ncron = \"0 3 * * *\"\ntimezone = \"site\"\n";
    let file = world.file("s.toml", text);
    let ended = world.run(&["schedule", "next", &file, "--count", "4", "-o", "json"]);
    let page: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    let items = page["items"].as_array().unwrap();
    assert_eq!(items.len(), 4, "{page}");
    let zones: std::collections::BTreeSet<_> =
        items.iter().map(|one| one["zone"].as_str().unwrap()).collect();
    assert_eq!(zones.into_iter().collect::<Vec<_>>(), ["Europe/Berlin", "UTC"]);
}
