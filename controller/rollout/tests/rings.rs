//! Rings: their table, the sizes that percentages make, the order, halts, and soaks over restarts and clock steps.
#![allow(clippy::unwrap_used)] // In a test a panic is the answer.

mod support;

use std::fmt::Write as _;
use std::time::Duration;

use fleet_rollout::{
    Event, EventError, Mode, Moment, Mono, Plan, PlanInput, PlanProblem, PlannedNode, Presence, RingEvent,
    RingInput, RingPlan, RingProgress, Rollout, SOAK_SAVED_EVERY, Tolerance,
};
use fleet_types::document::Share;
use fleet_types::id::NodeId;
use fleet_types::job::Outcome;
use fleet_types::run::{RingState, RunState};
use support::{FIRST, at, input, mono, node, now, planned, singles};

fn ring(name: &str, soak: u64, success_percent: u32) -> RingInput {
    let soak = Duration::from_secs(soak);
    RingInput { name: name.to_owned(), max_parallel: None, soak, success_percent, is_manual: false }
}

/// A canary of two nodes that soaks for ten minutes, and three others.
fn two_rings(canary: RingInput, tolerance: Tolerance) -> Plan {
    let in_ring = |n| PlannedNode { ring: usize::from(n > 2), ..planned(n, None) };
    let nodes = (1..=5).map(in_ring).collect();
    Plan::new(PlanInput { rings: vec![canary, ring("rest", 0, 95)], tolerance, ..input(9, nodes) }).unwrap()
}

fn online(plan: Plan) -> Rollout {
    let nodes: Vec<_> = plan.nodes().iter().map(|n| n.node).collect();
    let mut rollout = Rollout::new(plan, now(0));
    for node in nodes {
        rollout.apply(now(0), &Event::presence(node, Presence::Online)).unwrap();
    }
    rollout
}

fn offers(rollout: &Rollout, at: Moment) -> Vec<NodeId> {
    rollout.wanted(at).offer.into_iter().map(|offer| offer.node).collect()
}

fn end(rollout: &mut Rollout, n: u32, outcome: Outcome, at: u64) {
    rollout.apply(now(at), &Event::offered(node(n), FIRST)).unwrap();
    rollout.apply(now(at), &Event::ended(node(n), FIRST, outcome)).unwrap();
}

/// Takes every step of the rings that is wanted, as the runner does.
fn steps(rollout: &mut Rollout, at: Moment) -> Vec<String> {
    let mut taken = Vec::new();
    while let Some(step) = rollout.wanted(at).ring {
        assert_eq!(rollout.progress_after(step.ring, &step.event, at), Some(step.progress));
        taken.push(format!("{} {}", step.ring, step.event));
        rollout.apply(at, &Event::Ring { ring: step.ring, what: step.event }).unwrap();
    }
    taken
}

fn why(rollout: &Rollout, n: u32, at: u64) -> Vec<String> {
    rollout.blocked(node(n), now(at)).iter().map(ToString::to_string).collect()
}

fn states(rollout: &Rollout, at: u64) -> Vec<RingState> {
    rollout.rings(now(at)).map(|ring| ring.state).collect()
}

#[test]
fn a_ring_opens_when_the_one_before_it_is_done_and_has_soaked() {
    let mut rollout = online(two_rings(ring("canary", 600, 100), Tolerance::default()));
    assert_eq!(offers(&rollout, now(1)), [node(1), node(2)]);
    assert_eq!(why(&rollout, 3, 1), ["waits for ring canary, which is open"]);
    let error = rollout.apply(now(1), &Event::offered(node(3), FIRST)).unwrap_err().to_string();
    assert!(error.contains("waits for ring canary"), "{error}");
    end(&mut rollout, 1, Outcome::Succeeded, 10);
    assert_eq!(steps(&mut rollout, now(10)), [""; 0]);
    end(&mut rollout, 2, Outcome::SucceededWithWarnings, 20);
    assert_eq!(steps(&mut rollout, now(20)), ["0 enough succeeded"]);
    assert_eq!(why(&rollout, 3, 20), ["waits for ring canary, which is soaking"]);
    assert_eq!(rollout.next_look(now(20)), Some(SOAK_SAVED_EVERY), "what has soaked is saved");
    assert_eq!(steps(&mut rollout, now(80)), ["0 soak noted"]);
    assert_eq!(steps(&mut rollout, now(619)), ["0 soak noted"]);
    assert_eq!(rollout.next_look(now(619)), Some(Duration::from_secs(1)));
    let through = ["0 soaked", "0 gates pass", "0 approved", "1 opened"];
    assert_eq!(steps(&mut rollout, now(620)), through);
    assert_eq!(offers(&rollout, now(620)), [node(3), node(4), node(5)]);
    for n in 3..=5 {
        end(&mut rollout, n, Outcome::Succeeded, 700);
    }
    assert_eq!(states(&rollout, 700), [RingState::Done, RingState::Done]);
    assert_eq!(rollout.terminal_state(), Some(RunState::Succeeded));
    assert!(rollout.wanted(now(700)).is_empty() && rollout.next_look(now(700)).is_none());
}

#[test]
fn a_failure_halts_the_rollout_at_once_and_an_operator_can_excuse_it() {
    let mut rollout = online(two_rings(ring("canary", 0, 100), Tolerance::default()));
    end(&mut rollout, 1, Outcome::RolledBack, 10);
    // Before anything was saved.
    assert_eq!(offers(&rollout, now(10)), []);
    assert_eq!(rollout.state(at(10)), RunState::Paused);
    let halted = "ring canary halted: 1 of 2 nodes can still succeed, 2 must";
    assert_eq!(why(&rollout, 2, 10), [halted]);
    assert_eq!(steps(&mut rollout, now(10)), ["0 stopped"]);
    assert_eq!(states(&rollout, 10), [RingState::Halted, RingState::Pending]);
    assert_eq!(why(&rollout, 3, 10)[0], halted);
    assert_eq!(rollout.wanted(now(10)).end, [], "what is queued waits for the operator");
    rollout.apply(now(11), &Event::Ring { ring: 0, what: RingEvent::Resumed }).unwrap();
    assert_eq!(offers(&rollout, now(11)), [node(2)]);
    end(&mut rollout, 2, Outcome::Succeeded, 12);
    assert_eq!(steps(&mut rollout, now(12)).last().unwrap(), "1 opened");
}

#[test]
fn a_late_failure_of_a_ring_that_is_done_halts_the_next_one() {
    let tolerance = Tolerance { nodes: Some(0), ..Tolerance::default() };
    let mut rollout = online(two_rings(ring("canary", 0, 50), tolerance));
    rollout.apply(now(1), &Event::offered(node(2), FIRST)).unwrap();
    end(&mut rollout, 1, Outcome::Succeeded, 2);
    assert_eq!(steps(&mut rollout, now(2)).last().unwrap(), "1 opened");
    assert_eq!(offers(&rollout, now(2)), [node(3), node(4), node(5)]);
    rollout.apply(now(3), &Event::ended(node(2), FIRST, Outcome::Lost)).unwrap();
    assert_eq!(offers(&rollout, now(3)), []);
    assert_eq!(why(&rollout, 3, 3), ["ring canary halted: 1 of 2 nodes failed, 0 may"]);
}

#[test]
fn with_continue_failures_halt_nothing() {
    let tolerance = Tolerance { nodes: Some(0), percent: Some(1), goes_on: true };
    let mut rollout = online(two_rings(ring("canary", 0, 100), tolerance));
    end(&mut rollout, 1, Outcome::Failed, 1);
    assert_eq!(offers(&rollout, now(1)), [node(2)]);
    end(&mut rollout, 2, Outcome::Failed, 2);
    assert_eq!(steps(&mut rollout, now(2)).last().unwrap(), "1 opened");
}

#[test]
fn a_manual_ring_waits_for_an_operator_and_a_pause_starts_nothing() {
    let manual = RingInput { is_manual: true, ..ring("canary", 0, 100) };
    let mut rollout = online(two_rings(manual, Tolerance::default()));
    for n in [1, 2] {
        end(&mut rollout, n, Outcome::Succeeded, 1);
    }
    steps(&mut rollout, now(1));
    assert_eq!(why(&rollout, 3, 1), ["waits for ring canary, which is awaiting approval"]);
    rollout.apply(now(2), &Event::Ring { ring: 0, what: RingEvent::Approved }).unwrap();
    assert_eq!(steps(&mut rollout, now(2)), ["1 opened"]);
    let (known, rings): (Vec<_>, Vec<_>) = (rollout.known_jobs().collect(), rollout.known_rings().collect());
    let mode = Mode::Paused { reason: "ada: lunch".to_owned() };
    let paused = Rollout::restore(rollout.plan().clone(), mode, now(2), mono(2), known, [], rings).unwrap();
    assert_eq!(offers(&paused, now(3)), []);
    assert_eq!(why(&paused, 3, 3), ["rollout is paused: ada: lunch"]);
    assert_eq!((paused.state(at(3)), paused.wanted(now(3)).is_empty()), (RunState::Paused, true));
    assert_eq!(paused.wanted(now(3600)).end.len(), 3, "the last start comes for a paused one, too");
}

#[test]
fn neither_a_restart_nor_a_clock_shortens_a_soak_or_begins_it_anew() {
    let mut rollout = online(two_rings(ring("canary", 600, 100), Tolerance::default()));
    for n in [1, 2] {
        end(&mut rollout, n, Outcome::Succeeded, 0);
    }
    steps(&mut rollout, now(0));
    // A wall clock that steps by a day, either way.
    for wall in [at(86_400), at(0)] {
        assert_eq!(steps(&mut rollout, Moment { wall, mono: mono(59) }), [""; 0]);
    }
    assert_eq!(steps(&mut rollout, now(70)), ["0 soak noted"]);
    // It dies at 100 s and comes back an hour later, on a monotonic clock of its own: 70 s were saved.
    let stored: Vec<_> = rollout.known_rings().map(|(progress, _)| (progress, mono(5))).collect();
    assert_eq!(stored[0].0.soaked, Duration::from_secs(70));
    let known: Vec<_> = rollout.known_jobs().map(|(node, job)| (node, job.fact.into())).collect();
    let again = Moment { wall: at(3_000), mono: mono(5) };
    let mut rollout =
        Rollout::restore(rollout.plan().clone(), Mode::Going, again, again.mono, known, [], stored).unwrap();
    let later = |seconds: u64| Moment { wall: at(3_000 + seconds), mono: mono(5 + seconds) };
    steps(&mut rollout, later(529));
    assert_eq!(states(&rollout, 0)[0], RingState::Soaking);
    assert_eq!(steps(&mut rollout, later(530))[0], "0 soaked");
    // A controller that stood still watched nobody: what was not saved does not count.
    let mut rollout = online(two_rings(ring("canary", 600, 100), Tolerance::default()));
    for n in [1, 2] {
        end(&mut rollout, n, Outcome::Succeeded, 0);
    }
    steps(&mut rollout, now(0));
    rollout.listening_from(mono(3_000));
    assert_eq!(rollout.rings(now(3_000)).next().unwrap().soaked, Duration::ZERO);
}

#[test]
fn a_pair_over_two_rings_goes_with_its_earlier_half() {
    let nodes = vec![
        PlannedNode { ring: 1, ..planned(1, Some("a")) },
        PlannedNode { ring: 0, ..planned(2, Some("a")) },
        PlannedNode { ring: 1, ..planned(3, None) },
    ];
    let rings = vec![
        ring("canary", 0, 100),
        RingInput { max_parallel: Share::try_from(1).ok(), ..ring("rest", 0, 1) },
    ];
    let mut rollout = online(Plan::new(PlanInput { rings, ..input(9, nodes) }).unwrap());
    assert_eq!(offers(&rollout, now(1)), [node(2)]);
    end(&mut rollout, 2, Outcome::Succeeded, 1);
    steps(&mut rollout, now(1));
    assert_eq!(offers(&rollout, now(1)), [node(1)], "one at once in this ring");
    rollout.apply(now(1), &Event::offered(node(1), FIRST)).unwrap();
    assert_eq!(why(&rollout, 3, 1), ["ring rest: 1 of 1 nodes in flight"]);
}

#[test]
fn a_plan_with_too_many_rings_or_a_node_of_none_is_refused() {
    let rings = vec![ring("one", 0, 100); 17];
    let nodes = vec![PlannedNode { ring: 17, ..planned(1, None) }];
    let problems = Plan::new(PlanInput { rings, ..input(1, nodes) }).unwrap_err();
    assert_eq!(problems, [PlanProblem::TooManyRings(17), PlanProblem::NoSuchRing(node(1), 17, 17)]);
    let plan = Plan::new(input(1, singles(1))).unwrap();
    let two = [0, 1].map(|number| (RingProgress::begin(number), Mono::default()));
    let known = [(node(1), fleet_rollout::JobFact::Queued.into())];
    assert!(Rollout::restore(plan, Mode::Going, now(0), mono(0), known, [], two).is_err());
}

fn all_events() -> Vec<RingEvent> {
    let because = || "x".to_owned();
    vec![
        RingEvent::Opened,
        RingEvent::Enough,
        RingEvent::SoakNoted,
        RingEvent::Soaked,
        RingEvent::Passed,
        RingEvent::Failed { because: because() },
        RingEvent::Inconclusive { because: because() },
        RingEvent::Approved,
        RingEvent::Stopped { because: because() },
        RingEvent::Resumed,
    ]
}

#[test]
fn every_state_with_every_event_is_the_table_of_the_docs() {
    let mut text = String::from("| state | event | goes to |\n|---|---|---|\n");
    for state in RingState::ALL {
        for event in all_events() {
            let plan = Plan::new(input(1, singles(1))).unwrap();
            let progress = RingProgress { state, ..RingProgress::begin(0) };
            let known = [(node(1), fleet_rollout::JobFact::Queued.into())];
            let ring = [(progress, mono(0))];
            let mut rollout = Rollout::restore(plan, Mode::Going, now(0), mono(0), known, [], ring).unwrap();
            let before = rollout.clone();
            match rollout.apply(now(1), &Event::Ring { ring: 0, what: event.clone() }) {
                Ok(_) => {
                    let after = rollout.known_rings().next().unwrap().0.state;
                    writeln!(text, "| {state} | {event} | {after} |").unwrap();
                }
                Err(error) => {
                    assert!(matches!(error, EventError::Ring { .. }), "{error}");
                    assert_eq!(rollout, before, "an error changes nothing");
                }
            }
        }
    }
    in_docs(&text);
}

#[test]
fn every_edge_of_a_size_is_a_row_of_the_docs() {
    let mut text = String::from(
        "| nodes | at once | success | may fail | → at once | must succeed | halts with failure no. |\n|---|---|---|---|---|---|---|\n",
    );
    let parallel =
        |text: &str| text.parse::<Share>().ok().or_else(|| Share::try_from(text.parse::<i64>().ok()?).ok());
    for (nodes, at_once, success, may, percent) in [
        (0, "10%", 100, Some(1), Some(5)),
        (1, "10%", 95, Some(1), Some(5)),
        (3, "10%", 100, Some(0), None),
        (3, "50%", 50, Some(1), Some(5)),
        (10, "25%", 95, None, Some(5)),
        (19, "10%", 95, None, Some(5)),
        (20, "10%", 95, None, Some(5)),
        (20, "10%", 95, Some(0), Some(5)),
        (20, "100%", 0, None, Some(0)),
        (39, "10%", 95, Some(9), Some(5)),
        (40, "3", 95, Some(9), Some(5)),
        (100, "33%", 99, None, None),
    ] {
        let input = RingInput { max_parallel: parallel(at_once), ..ring("r", 0, success) };
        let plan = RingPlan::new(&input, Tolerance { nodes: may, percent, goes_on: false }, nodes);
        let may = [may.map(|may| may.to_string()), percent.map(|percent| format!("{percent} %"))];
        let may = may.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let halts = plan.may_fail.map_or("-".to_owned(), |may| (may + 1).to_string());
        let (now, needed) = (plan.at_once, plan.needed);
        writeln!(text, "| {nodes} | {at_once} | {success} % | {may} | {now} | {needed} | {halts} |").unwrap();
    }
    in_docs(&text);
}

/// The tables of the documentation are printed from here.
fn in_docs(table: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rollouts.md");
    let docs = std::fs::read_to_string(path).unwrap();
    assert!(docs.contains(table), "docs/rollouts.md must have this table:\n{table}");
}
