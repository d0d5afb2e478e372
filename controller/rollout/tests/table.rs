//! Every phase with every event, against the table as plain text.

#![allow(clippy::unwrap_used)] // In a test a panic is the answer.

mod support;

use fleet_rollout::{Applied, Event, EventError, JobFact, Mode, Presence, Reported, Rollout};
use fleet_types::id::Attempt;
use fleet_types::job::{Outcome, Phase};
use support::{FIRST, all_phases, at, mono, node, now, one_ring, plan, rollout, singles};

fn job_events(attempt: Attempt) -> Vec<Event> {
    let mut events = vec![Event::offered(node(1), attempt)];
    for phase in [Reported::Accepted, Reported::Running, Reported::Waiting, Reported::RollingBack] {
        events.push(Event::reported(node(1), attempt, phase, None));
    }
    events.extend(Outcome::ALL.map(|outcome| Event::ended(node(1), attempt, outcome)));
    let presences = [Presence::Online, Presence::Held, Presence::Offline];
    events.extend(presences.map(|presence| Event::presence(node(1), presence)));
    events
}

/// Where the job stands afterwards, in one word.
fn stands(rollout: &Rollout) -> String {
    let job = rollout.job(node(1)).unwrap();
    let phase = match (job.fact, job.live.and_then(|l| l.reported)) {
        (JobFact::Queued, _) => "queued".to_owned(),
        (JobFact::Offered { .. }, None) => "offered".to_owned(),
        (JobFact::Offered { .. }, Some(said)) => match said {
            Reported::Accepted => "accepted",
            Reported::Running => "running",
            Reported::Waiting => "waiting",
            Reported::RollingBack => "rolling_back",
        }
        .to_owned(),
        (JobFact::Ended { outcome, .. }, _) => outcome.as_str().to_owned(),
    };
    match job.presence {
        _ if matches!(job.fact, JobFact::Ended { .. }) => phase,
        Presence::Online => phase,
        Presence::Held => format!("{phase} (held)"),
        Presence::Offline => format!("{phase} (offline)"),
    }
}

fn line(before: &str, event: &Event, mut rollout: Rollout) -> String {
    let untouched = rollout.clone();
    let answer = match rollout.apply(now(60), event) {
        Ok(Applied::Changed) => format!("-> {}", stands(&rollout)),
        Ok(Applied::Repeated) => {
            assert_eq!(stands(&rollout), stands(&untouched));
            "= repeated".to_owned()
        }
        Ok(Applied::Late) => {
            assert_eq!(rollout, untouched);
            "= late".to_owned()
        }
        Err(error) => {
            assert_eq!(rollout, untouched, "an error changes nothing");
            assert!(!error.to_string().is_empty());
            match error {
                EventError::Job { .. } => "! no such pair".to_owned(),
                EventError::Attempt { .. } => "! no such attempt".to_owned(),
                other => format!("! {other}"),
            }
        }
    };
    format!("{before:<24}{:<32}{answer}\n", event.to_string())
}

#[test]
fn every_phase_with_every_event() {
    let mut text = String::new();
    for phase in all_phases() {
        let before = stands(&rollout(1, &[phase]));
        for event in job_events(FIRST) {
            text.push_str(&line(&before, &event, rollout(1, &[phase])));
        }
    }
    assert_snapshot("table.txt", &text);
}

#[test]
fn the_attempt_must_be_the_known_one() {
    for phase in all_phases() {
        // A later attempt than any that exists is invalid everywhere.
        for event in &job_events(Attempt(2))[..14] {
            let error = rollout(1, &[phase]).apply(now(60), event).unwrap_err();
            assert!(matches!(error, EventError::Attempt { .. }), "{phase:?} {event}: {error}");
        }
    }
    let second = JobFact::Offered { attempt: Attempt(2), at: at(0) };
    let mut rollout = Rollout::restore(
        plan(1, singles(1)),
        Mode::Going,
        now(0),
        mono(0),
        [(node(1), second.into())],
        [],
        one_ring(),
    )
    .unwrap();
    // What is left over from the first attempt is kept beside, and changes nothing.
    let late = rollout.apply(now(1), &Event::ended(node(1), FIRST, Outcome::Failed));
    assert_eq!(late, Ok(Applied::Late));
    let error = rollout.apply(now(1), &Event::offered(node(1), FIRST)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "job {}/{} is offered at attempt 2, but attempt 1 is said to be offered",
            rollout.plan().run(),
            node(1)
        )
    );
}

#[test]
fn errors_name_the_phase_and_the_event() {
    let error = rollout(1, &[Phase::Queued])
        .apply(now(1), &Event::reported(node(1), FIRST, Reported::Running, None))
        .unwrap_err();
    assert!(error.to_string().ends_with("is queued and cannot be reported running"), "{error}");
    let error =
        rollout(1, &[Phase::Running]).apply(now(1), &Event::presence(node(9), Presence::Online)).unwrap_err();
    assert!(matches!(error, EventError::UnknownNode { .. }), "{error}");
}

#[test]
fn an_offer_that_breaks_a_rule_of_safety_is_refused() {
    let mut full = rollout(1, &[Phase::Running, Phase::Queued]);
    let error = full.apply(now(1), &Event::offered(node(2), FIRST)).unwrap_err();
    assert!(error.to_string().contains("all slots taken: 1 of 1 nodes in flight"), "{error}");
    let pair = vec![support::planned(1, Some("a")), support::planned(2, Some("a"))];
    let mut both = Rollout::new(plan(2, pair), now(0));
    both.apply(now(1), &Event::offered(node(1), FIRST)).unwrap();
    let error = both.apply(now(1), &Event::offered(node(2), FIRST)).unwrap_err();
    assert!(error.to_string().contains("partner fw-1 is in flight"), "{error}");
}

/// Compares with the kept text; prints the whole new one where it differs, to be put in its place.
fn assert_snapshot(file: &str, text: &str) {
    let path = format!("{}/tests/snapshots/{file}", env!("CARGO_MANIFEST_DIR"));
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "{file} differs; now:\n{text}");
}
