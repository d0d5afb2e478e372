//! The calendar against the shared rows, which two other implementations agree on. They lie beside the workspace and may be
//! missing, which is said loudly.

#![allow(clippy::unwrap_used)] // helpers of tests: a panic is the failure

use fleet_calendar::{Cron, Times, Zone};
use fleet_types::time::Timestamp;
use std::time::{Duration, Instant};

fn rows(file: &str) -> Vec<serde_json::Value> {
    let path = format!("{}/../../../shared/data/cron/{file}", env!("CARGO_MANIFEST_DIR"));
    match std::fs::read_to_string(&path) {
        Ok(text) => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        Err(error) => {
            eprintln!("NOT TESTED: {path} cannot be read ({error}); the rows of {file} were not looked at");
            Vec::new()
        }
    }
}

#[test]
fn every_shared_row_fires_when_it_says() {
    for row in rows("next.jsonl") {
        let text = |key: &str| row[key].as_str().unwrap();
        let zone: Zone = text("tz").parse().unwrap();
        let times = Times::of_cron(text("expr").parse().unwrap(), zone);
        let mut at: Timestamp = text("after").parse().unwrap();
        for expected in row["next_utc"].as_array().unwrap() {
            let next = times.next_after(at).unwrap();
            assert_eq!(next.to_string(), expected.as_str().unwrap(), "{row}");
            assert!(times.is_tick(next), "{row}");
            at = next;
        }
    }
}

/// Other implementations differ on these; ours finds an answer at once, and never two ticks at one instant.
#[test]
fn disputed_rows_have_an_answer() {
    for row in rows("disputed.jsonl") {
        let text = |key: &str| row[key].as_str().unwrap();
        let times = Times::of_cron(text("expr").parse().unwrap(), text("tz").parse().unwrap());
        let start = Instant::now();
        let after: Timestamp = text("after").parse().unwrap();
        let found: Vec<Timestamp> =
            times.between(after, after.plus(fleet_calendar::SEARCH)).take(3).collect();
        assert_eq!(found.len(), 3, "{row}");
        assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "{row}");
        assert!(start.elapsed() < Duration::from_millis(150), "{row}: {:?}", start.elapsed());
    }
}

#[test]
fn shared_invalid_rows_are_refused_quickly() {
    for row in rows("invalid.jsonl") {
        let start = Instant::now();
        assert!(row["expr"].as_str().unwrap().parse::<Cron>().is_err(), "{row}");
        assert!(start.elapsed() < Duration::from_millis(50), "{row}: {:?}", start.elapsed());
    }
}
