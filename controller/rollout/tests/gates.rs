//! Gates of a ring: who is asked, and what each answer, none, and a pause do.
#![allow(clippy::unwrap_used)] // In a test a panic is the answer.

mod support;

use std::time::Duration;

use fleet_rollout::{
    Answer, Applied, Ask, Event, Look, Mode, Plan, PlanInput, PlannedNode, Presence, RingEvent, RingInput,
    Rollout,
};
use fleet_types::job::Outcome;
use fleet_types::run::{RingState, Verdict};
use support::{FIRST, input, mono, node, now, planned};

/// A canary of two nodes of which one must succeed, judged for at most ten minutes, and a third node behind it.
fn judged() -> Rollout {
    let ring = |name: &str, success_percent| RingInput {
        name: name.to_owned(),
        max_parallel: None,
        soak: Duration::ZERO,
        success_percent,
        is_manual: false,
    };
    let nodes: Vec<_> =
        (1..=3).map(|n| PlannedNode { ring: usize::from(n > 2), ..planned(n, None) }).collect();
    let judging = Some(Duration::from_mins(10));
    let plan = PlanInput { rings: vec![ring("canary", 50), ring("rest", 100)], judging, ..input(9, nodes) };
    let mut rollout = Rollout::new(Plan::new(plan).unwrap(), now(0));
    for n in 1..=3 {
        rollout.apply(now(0), &Event::presence(node(n), Presence::Online)).unwrap();
    }
    rollout
}

fn end(rollout: &mut Rollout, n: u32, outcome: Outcome) {
    rollout.apply(now(1), &Event::offered(node(n), FIRST)).unwrap();
    rollout.apply(now(1), &Event::ended(node(n), FIRST, outcome)).unwrap();
}

fn look(rollout: &mut Rollout, n: u32, judging: u32, verdict: Option<Verdict>) -> Applied {
    let answer = verdict.map(|verdict| Answer { verdict, because: "gate health".to_owned() });
    rollout.apply(now(2), &Event::Looked { node: node(n), look: Look { judging, answer } }).unwrap()
}

/// Takes every step of the rings that is wanted, as the runner does.
fn steps(rollout: &mut Rollout, at: u64) -> Vec<String> {
    let mut taken = Vec::new();
    while let Some(step) = rollout.wanted(now(at)).ring {
        taken.push(step.event.to_string());
        rollout.apply(now(at), &Event::Ring { ring: step.ring, what: step.event }).unwrap();
    }
    taken
}

fn asked(rollout: &Rollout, at: u64) -> Vec<Ask> {
    rollout.wanted(now(at)).ask
}

fn state(rollout: &Rollout) -> (RingState, String) {
    let ring = rollout.rings(now(2)).next().unwrap();
    (ring.state, ring.because.to_owned())
}

const fn ask(n: fleet_types::id::NodeId, judging: u32) -> Ask {
    Ask { node: n, judging }
}

#[test]
fn the_nodes_that_succeeded_are_asked_and_all_of_them_must_pass() {
    let mut rollout = judged();
    end(&mut rollout, 1, Outcome::Succeeded);
    assert_eq!(asked(&rollout, 1), []);
    assert_eq!(steps(&mut rollout, 2), ["enough succeeded", "soaked"]);
    assert_eq!(asked(&rollout, 2), [ask(node(1), 1)]);
    assert_eq!(look(&mut rollout, 1, 1, None), Applied::Changed);
    assert_eq!(asked(&rollout, 2), []);
    // One that succeeds meanwhile is asked as well, and one that does not is not.
    end(&mut rollout, 2, Outcome::SucceededWithWarnings);
    assert_eq!(asked(&rollout, 2), [ask(node(2), 1)]);
    assert_eq!(look(&mut rollout, 1, 1, Some(Verdict::Pass)), Applied::Changed);
    assert_eq!(look(&mut rollout, 1, 1, Some(Verdict::Pass)), Applied::Repeated);
    assert_eq!(look(&mut rollout, 1, 1, Some(Verdict::Fail)), Applied::Late, "an answer stands");
    assert_eq!(steps(&mut rollout, 2), [""; 0]);
    look(&mut rollout, 2, 1, None);
    look(&mut rollout, 2, 1, Some(Verdict::Pass));
    assert_eq!(steps(&mut rollout, 2), ["gates pass", "approved", "opened"]);
    assert_eq!(rollout.wanted(now(2)).offer.len(), 1);
    assert_eq!(rollout.rings(now(2)).next().unwrap().verdict, Some(Verdict::Pass));
}

#[test]
fn a_failure_goes_before_what_is_inconclusive_and_both_halt() {
    for (first, second, expected) in [
        (Verdict::Inconclusive, Verdict::Fail, "gate fails"),
        (Verdict::Fail, Verdict::Pass, "gate fails"),
        (Verdict::Pass, Verdict::Inconclusive, "gate inconclusive"),
    ] {
        let mut rollout = judged();
        end(&mut rollout, 1, Outcome::Succeeded);
        end(&mut rollout, 2, Outcome::Succeeded);
        steps(&mut rollout, 2);
        for (n, verdict) in [(1, first), (2, second)] {
            look(&mut rollout, n, 1, None);
            look(&mut rollout, n, 1, Some(verdict));
        }
        assert_eq!(steps(&mut rollout, 2), [expected], "{first:?} {second:?}");
        let worst = if second == Verdict::Pass || first == Verdict::Fail { 1 } else { 2 };
        assert_eq!(state(&rollout), (RingState::Halted, format!("fw-{worst}: gate health")));
        assert_eq!(rollout.wanted(now(2)).offer, []);
        // Judged anew, by both.
        rollout.apply(now(3), &Event::Ring { ring: 0, what: RingEvent::Resumed }).unwrap();
        steps(&mut rollout, 3);
        assert_eq!(asked(&rollout, 3), [ask(node(1), 2), ask(node(2), 2)]);
    }
}

#[test]
fn silence_ends_by_the_rising_clock_alone() {
    let mut rollout = judged();
    end(&mut rollout, 1, Outcome::Succeeded);
    end(&mut rollout, 2, Outcome::Succeeded);
    steps(&mut rollout, 2);
    look(&mut rollout, 1, 1, None);
    assert_eq!(rollout.next_look(now(2)), Some(Duration::from_mins(10)));
    // A wall clock that is a day ahead, and a machine that stood still, end nothing.
    let ahead =
        fleet_rollout::Moment { wall: now(86_400).wall.minus(Duration::from_hours(23)), mono: mono(60) };
    assert_eq!(rollout.wanted(ahead).ring, None);
    rollout.listening_from(mono(500));
    assert_eq!(steps(&mut rollout, 1_099), [""; 0]);
    assert_eq!(steps(&mut rollout, 1_100), ["gate inconclusive"]);
    assert_eq!(state(&rollout).1, "gates: no answer within 10 minutes from fw-1, fw-2");
}

#[test]
fn a_ring_in_which_nothing_succeeded_is_not_passed_and_a_paused_rollout_asks_nobody() {
    let mut rollout = judged();
    end(&mut rollout, 1, Outcome::Succeeded);
    end(&mut rollout, 2, Outcome::Succeeded);
    steps(&mut rollout, 2);
    let (known, rings): (Vec<_>, Vec<_>) = (rollout.known_jobs().collect(), rollout.known_rings().collect());
    let mode = Mode::Paused { reason: "lunch".to_owned() };
    let paused = Rollout::restore(rollout.plan().clone(), mode, now(2), mono(2), known, [], rings).unwrap();
    assert!(paused.wanted(now(3_000)).is_empty(), "{:?}", paused.wanted(now(3_000)));

    let mut rollout = judged();
    end(&mut rollout, 1, Outcome::Failed);
    end(&mut rollout, 2, Outcome::Failed);
    assert_eq!(steps(&mut rollout, 2), ["stopped"]);
    rollout.apply(now(3), &Event::Ring { ring: 0, what: RingEvent::Resumed }).unwrap();
    assert_eq!(steps(&mut rollout, 3).last().unwrap(), "gate inconclusive");
    assert_eq!(state(&rollout).1, "gates: no node of the ring succeeded, there is nothing to judge");
}
