//! What is wanted, what is blocked and why, and when to look again: one case a rule.
#![allow(clippy::unwrap_used)] // In a test a panic is the answer.

mod support;

use std::time::Duration;

use fleet_rollout::{
    BlockReason, Event, Holder, JobFact, LOST_GRACE, Mode, Moment, Offer, PAGE, Place, Plan, PlanProblem,
    Presence, Reported, RestoreError, Rollout,
};
use fleet_types::id::{NodeId, RunId};
use fleet_types::job::{Outcome, Phase};
use fleet_types::run::RunState;
use support::{FIRST, at, input, known, mono, node, now, one_ring, plan, planned, rollout, singles};

/// A rollout with everyone online.
fn online(plan: Plan) -> Rollout {
    let nodes: Vec<_> = plan.nodes().iter().map(|n| n.node).collect();
    let mut rollout = Rollout::new(plan, now(0));
    for node in nodes {
        rollout.apply(now(0), &Event::presence(node, Presence::Online)).unwrap();
    }
    rollout
}

/// The nodes that are to be offered their first try.
fn offers(rollout: &Rollout, at: Moment) -> Vec<NodeId> {
    nodes_of(rollout.wanted(at).offer)
}

fn nodes_of(offers: Vec<Offer>) -> Vec<NodeId> {
    assert!(offers.iter().all(|offer| offer.attempt == FIRST));
    offers.into_iter().map(|offer| offer.node).collect()
}

fn held(place: Place, holder: Option<Holder>) -> Event {
    Event::Held { place, holder }
}

fn why(rollout: &Rollout, n: u32, at: Moment) -> Vec<String> {
    rollout.blocked(node(n), at).iter().map(ToString::to_string).collect()
}

fn ends(rollout: &Rollout, at: Moment) -> Vec<(Outcome, String)> {
    rollout.wanted(at).end.into_iter().map(|end| (end.outcome, end.reason)).collect()
}

#[test]
fn all_problems_of_a_plan_at_once() {
    let mut bad = input(0, vec![planned(2, None), planned(1, Some("")), planned(2, None)]);
    bad.not_after = bad.not_before;
    bad.job_limit = Duration::ZERO;
    bad.max_failures = Some(0);
    let problems = Plan::new(bad).unwrap_err();
    assert_eq!(
        problems,
        [
            PlanProblem::Twice(node(2)),
            PlanProblem::EmptyPair(node(1)),
            PlanProblem::NoneAtOnce,
            PlanProblem::NoTime { not_before: at(0), not_after: at(0) },
            PlanProblem::NoWorkingTime,
            PlanProblem::NoFailures,
        ]
    );
    assert_eq!(Plan::new(input(1, Vec::new())).unwrap_err(), [PlanProblem::NoNodes]);
}

#[test]
fn the_first_nodes_go_up_to_the_cap_in_the_order_of_their_ids() {
    let mut rollout = online(plan(2, vec![planned(3, None), planned(1, None), planned(2, None)]));
    assert_eq!(offers(&rollout, now(1)), [node(1), node(2)]);
    assert_eq!(why(&rollout, 3, now(1)), ["its turn has not come: 2 free slots, others go first"]);
    assert_eq!(rollout.state(at(1)), RunState::Planned);
    rollout.apply(now(1), &Event::offered(node(1), FIRST)).unwrap();
    rollout.apply(now(1), &Event::offered(node(2), FIRST)).unwrap();
    assert_eq!(why(&rollout, 3, now(1)), ["all slots taken: 2 of 2 nodes in flight"]);
    assert_eq!(rollout.state(at(1)), RunState::Running);
    rollout.apply(now(2), &Event::ended(node(1), FIRST, Outcome::Failed)).unwrap();
    assert_eq!(offers(&rollout, now(2)), [node(3)]);
    assert_eq!(why(&rollout, 1, now(2)), ["already ended: failed"]);
}

#[test]
fn a_pair_goes_one_after_the_other_only_where_the_run_changes_nodes() {
    let nodes = || vec![planned(1, Some("a")), planned(2, Some("a")), planned(3, None)];
    let mut rollout = online(plan(3, nodes()));
    assert_eq!(offers(&rollout, now(1)), [node(1), node(3)]);
    assert_eq!(why(&rollout, 2, now(1)), ["partner fw-1 goes first"]);
    rollout.apply(now(1), &Event::offered(node(1), FIRST)).unwrap();
    assert_eq!(why(&rollout, 2, now(1)), ["partner fw-1 is in flight"]);
    // It may be changing, so being offline does not free its partner.
    rollout.apply(now(1), &Event::presence(node(1), Presence::Offline)).unwrap();
    assert_eq!(offers(&rollout, now(1)), [node(3)]);
    rollout.apply(now(2), &Event::ended(node(1), FIRST, Outcome::Succeeded)).unwrap();
    assert_eq!(offers(&rollout, now(2)), [node(2), node(3)]);

    let mut reading = input(3, nodes());
    reading.changes = false;
    assert_eq!(offers(&online(Plan::new(reading).unwrap()), now(1)).len(), 3);
}

#[test]
fn an_offline_node_holds_nobody_up_and_every_reason_is_named() {
    let mut delayed = input(1, singles(2));
    delayed.not_before = at(10);
    let mut rollout = online(Plan::new(delayed).unwrap());
    rollout.apply(now(1), &Event::presence(node(1), Presence::Offline)).unwrap();
    assert_eq!(why(&rollout, 1, now(1)), ["starts at 2026-01-01T00:00:10Z at the earliest", "offline"]);
    assert_eq!(offers(&rollout, now(9)), []);
    assert_eq!(look_in(&rollout, 9), Some(1));
    assert_eq!(offers(&rollout, now(10)), [node(2)]);
    assert_eq!(look_in(&rollout, 10), Some(3590));
    assert_eq!(why(&rollout, 1, now(10)), ["offline"]);
    assert_eq!(why(&rollout, 9, now(10)), ["not part of this run"]);
}

#[test]
fn what_has_not_started_by_the_last_start_expires() {
    let mut rollout = rollout(1, &[Phase::Running, Phase::Queued, Phase::Queued]);
    rollout.apply(now(0), &Event::presence(node(3), Presence::Offline)).unwrap();
    rollout.apply(now(3599), &Event::reported(node(1), FIRST, Reported::Running, None)).unwrap();
    assert_eq!(rollout.wanted(now(900)).end, []);
    let expired = rollout.wanted(now(3600)).end;
    let of: Vec<_> = expired.iter().map(|end| (end.node, end.outcome)).collect();
    assert_eq!(of.last_chunk(), Some(&[(node(2), Outcome::Expired), (node(3), Outcome::Expired)]));
    assert_eq!(
        expired.last().unwrap().reason,
        "not started before the last start 2026-01-01T01:00:00Z; the node is offline"
    );
    assert_eq!(why(&rollout, 2, now(3600))[0], "too late: last start was 2026-01-01T01:00:00Z");
    assert_eq!(offers(&rollout, now(3600)), []);
}

#[test]
fn a_cancel_ends_what_is_queued_and_stops_what_is_in_flight() {
    let halting = Mode::Halting { reason: "wrong file".to_owned() };
    let jobs = [(node(1), known(Phase::Running, FIRST)), (node(2), known(Phase::Queued, FIRST))];
    let mut rollout =
        Rollout::restore(plan(2, singles(2)), halting, now(0), mono(0), jobs, [], one_ring()).unwrap();
    let wanted = rollout.wanted(now(1));
    assert_eq!(wanted.cancel, [node(1)]);
    assert_eq!(ends(&rollout, now(1)), [(Outcome::Cancelled, "the run was ended: wrong file".to_owned())]);
    assert_eq!(why(&rollout, 2, now(1)), ["run is ending: wrong file"]);
    assert_eq!(rollout.state(at(1)), RunState::Halting);
    for n in [1, 2] {
        rollout.apply(now(2), &Event::ended(node(n), FIRST, Outcome::Cancelled)).unwrap();
    }
    assert_eq!(rollout.terminal_state(), Some(RunState::Cancelled));
    assert!(rollout.wanted(now(2)).is_empty() && rollout.is_done());
}

/// The seconds until the engine wants to be asked again.
fn look_in(rollout: &Rollout, at: u64) -> Option<u64> {
    rollout.next_look(now(at)).map(|wait| wait.as_secs())
}

const GRACE: u64 = LOST_GRACE.as_secs();

fn running(n: u32, left: u64) -> Event {
    Event::reported(node(n), FIRST, Reported::Running, Some(Duration::from_secs(left)))
}

#[test]
fn a_connected_node_that_says_it_has_the_job_is_never_lost() {
    let mut rollout = online(plan(1, singles(1)));
    rollout.apply(now(0), &Event::offered(node(1), FIRST)).unwrap();
    rollout.apply(now(1), &running(1, 60)).unwrap();
    assert_eq!(look_in(&rollout, 1), None);
    assert_eq!(ends(&rollout, now(1_000_000)), []);
    // Nor when an operator holds it: it gets nothing new, and is listened to.
    rollout.apply(now(2), &Event::presence(node(1), Presence::Held)).unwrap();
    assert_eq!(ends(&rollout, now(1_000_000)), []);
    // Its silence begins with the end of its link.
    rollout.apply(now(5_000), &Event::presence(node(1), Presence::Offline)).unwrap();
    assert_eq!(look_in(&rollout, 5_000), Some(GRACE));
    assert_eq!(ends(&rollout, now(5_000 + GRACE - 1)), []);
    let lost = "nothing heard for 300 s, longer than it may take; how it ended is not known";
    assert_eq!(ends(&rollout, now(5_000 + GRACE)), [(Outcome::Lost, lost.to_owned())]);
}

#[test]
fn a_held_node_is_offered_nothing_and_says_why() {
    let mut rollout = online(plan(2, singles(2)));
    rollout.apply(now(0), &Event::presence(node(1), Presence::Held)).unwrap();
    assert_eq!(offers(&rollout, now(1)), [node(2)]);
    assert_eq!(rollout.blocked(node(1), now(1)), [BlockReason::Held]);
    rollout.apply(now(2), &Event::presence(node(1), Presence::Online)).unwrap();
    assert_eq!(offers(&rollout, now(2)), [node(1), node(2)]);
}

#[test]
fn a_silent_node_has_the_time_that_it_said_and_the_grace() {
    let mut rollout = online(plan(1, singles(1)));
    rollout.apply(now(0), &Event::offered(node(1), FIRST)).unwrap();
    rollout.apply(now(10), &running(1, 1_000)).unwrap();
    rollout.apply(now(20), &Event::presence(node(1), Presence::Offline)).unwrap();
    assert_eq!(look_in(&rollout, 20), Some(990 + GRACE));
    // Without a word, working time counts from the first step; here ten minutes.
    let mut old = online(plan(1, singles(1)));
    old.apply(now(0), &Event::offered(node(1), FIRST)).unwrap();
    old.apply(now(10), &Event::reported(node(1), FIRST, Reported::Running, None)).unwrap();
    old.apply(now(20), &Event::reported(node(1), FIRST, Reported::Waiting, None)).unwrap();
    old.apply(now(30), &Event::presence(node(1), Presence::Offline)).unwrap();
    assert_eq!(look_in(&old, 30), Some(580 + GRACE));
    // One word does not keep a run open for ever: last start, and twice the limit.
    let mut liar = online(plan(1, singles(1)));
    liar.apply(now(0), &Event::offered(node(1), FIRST)).unwrap();
    liar.apply(now(0), &running(1, 1_000_000_000)).unwrap();
    liar.apply(now(0), &Event::presence(node(1), Presence::Offline)).unwrap();
    assert_eq!(ends(&liar, now(3_600 + 2 * 600 + GRACE - 1)), []);
    assert_eq!(ends(&liar, now(3_600 + 2 * 600 + GRACE)).len(), 1);
}

#[test]
fn what_waits_on_a_node_may_wait_until_the_last_start() {
    for word in [None, Some(Reported::Accepted)] {
        let mut rollout = online(plan(1, singles(1)));
        rollout.apply(now(0), &Event::offered(node(1), FIRST)).unwrap();
        if let Some(word) = word {
            rollout.apply(now(1), &Event::reported(node(1), FIRST, word, None)).unwrap();
        }
        rollout.apply(now(2), &Event::presence(node(1), Presence::Offline)).unwrap();
        // An hour until the last start, ten minutes of work, the grace.
        let lost = 3_600 + 600 + GRACE;
        assert_eq!(ends(&rollout, now(lost - 1)).len(), 0, "{word:?}");
        assert_eq!(ends(&rollout, now(lost)).len(), 1, "{word:?}");
    }
    // Unanswered, it is lost even on a link that is up: whether it was taken is not known.
    let mut deaf = online(plan(1, singles(1)));
    deaf.apply(now(0), &Event::offered(node(1), FIRST)).unwrap();
    assert_eq!(
        ends(&deaf, now(3_600 + 600 + GRACE))[0].1,
        "no answer since it was offered at 2026-01-01T00:00:00Z, 4500 s without contact; whether it began is not known"
    );
}

#[test]
fn a_wall_clock_that_steps_makes_nobody_lost() {
    let mut rollout = online(plan(1, singles(1)));
    let stepped = |seconds, ahead| Moment { wall: at(seconds + ahead), mono: mono(seconds) };
    rollout.apply(now(0), &Event::offered(node(1), FIRST)).unwrap();
    // Ahead by half an hour when the node answers, and by a day later on.
    let accepted = Event::reported(node(1), FIRST, Reported::Accepted, None);
    rollout.apply(stepped(1, 1_800), &accepted).unwrap();
    rollout.apply(stepped(2, 86_400), &Event::presence(node(1), Presence::Offline)).unwrap();
    assert_eq!(ends(&rollout, stepped(3_600 + 600 + GRACE - 1, 86_400)), []);
    assert_eq!(ends(&rollout, stepped(3_600 + 600 + GRACE, 0)).len(), 1);
}

#[test]
fn a_standstill_of_the_controller_is_not_held_against_the_nodes() {
    let mut rollout = online(plan(1, singles(1)));
    rollout.apply(now(0), &Event::offered(node(1), FIRST)).unwrap();
    rollout.apply(now(1), &running(1, 60)).unwrap();
    rollout.apply(now(2), &Event::presence(node(1), Presence::Offline)).unwrap();
    // Suspended for ten hours: the first thing after it is to say so.
    rollout.listening_from(mono(36_000));
    assert_eq!(ends(&rollout, now(36_000 + GRACE - 1)), []);
    assert_eq!(look_in(&rollout, 36_000), Some(GRACE));
    assert_eq!(ends(&rollout, now(36_000 + GRACE)).len(), 1);
    // The same after a start, with nothing known beyond the offer: it may begin until the last start.
    let fact = JobFact::Offered { attempt: FIRST, at: at(0) };
    let restore = |at: u64| {
        let known = [(node(1), fact.into())];
        Rollout::restore(plan(1, singles(1)), Mode::Going, now(at), mono(at), known, [], one_ring()).unwrap()
    };
    assert_eq!(look_in(&restore(90_000), 90_000), Some(600 + GRACE));
    assert_eq!(look_in(&restore(300), 300), Some(3_300 + 600 + GRACE));
}

#[test]
fn a_pair_that_is_held_elsewhere_waits_and_says_for_whom() {
    let nodes = vec![planned(1, Some("a")), planned(2, Some("b"))];
    let mut rollout = online(plan(2, nodes));
    let holder =
        Holder { run: RunId::from_number(9), node: node(5), name: "fw-5".to_owned(), attempt: FIRST };
    let taken = held(Place::pair("a".to_owned()), Some(holder));
    rollout.apply(now(1), &taken).unwrap();
    assert_eq!(offers(&rollout, now(1)), [node(2)]);
    assert_eq!(why(&rollout, 1, now(1)), ["its pair is held for fw-5 in run r-0000000009"]);
    let error = rollout.apply(now(1), &Event::offered(node(1), FIRST)).unwrap_err().to_string();
    assert!(error.contains("held for fw-5"), "{error}");
    let free = held(Place::pair("a".to_owned()), None);
    rollout.apply(now(2), &free).unwrap();
    assert_eq!(offers(&rollout, now(2)), [node(1), node(2)]);
    // Of a pair that this run has nothing to do with nothing is kept.
    let before = rollout.clone();
    let holder =
        Holder { run: RunId::from_number(9), node: node(6), name: "fw-6".to_owned(), attempt: FIRST };
    rollout.apply(now(2), &held(Place::pair("x".to_owned()), Some(holder))).unwrap();
    assert_eq!(rollout, before);
}

#[test]
fn a_lost_job_keeps_its_pair_until_the_hold_goes() {
    let mut rollout = online(plan(2, vec![planned(1, Some("a")), planned(2, Some("a"))]));
    let own = Holder { run: RunId::from_number(7), node: node(1), name: "fw-1".to_owned(), attempt: FIRST };
    rollout.apply(now(1), &held(Place::pair("a".to_owned()), Some(own))).unwrap();
    rollout.apply(now(1), &Event::offered(node(1), FIRST)).unwrap();
    rollout.apply(now(2), &Event::ended(node(1), FIRST, Outcome::Lost)).unwrap();
    assert_eq!(offers(&rollout, now(3)), []);
    assert_eq!(why(&rollout, 2, now(3)), ["its pair is held for fw-1 in run r-0000000007"]);
    rollout.apply(now(3), &held(Place::pair("a".to_owned()), None)).unwrap();
    assert_eq!(offers(&rollout, now(3)), [node(2)]);
}

#[test]
fn starts_end_after_so_many_failures() {
    let mut limited = input(1, singles(5));
    limited.max_failures = Some(2);
    let mut rollout = online(Plan::new(limited).unwrap());
    let mut end = |n, outcome| {
        rollout.apply(now(1), &Event::offered(node(n), FIRST)).unwrap();
        rollout.apply(now(1), &Event::ended(node(n), FIRST, outcome)).unwrap();
        rollout.wanted(now(2))
    };
    assert_eq!(nodes_of(end(1, Outcome::Failed).offer), [node(2)]);
    assert_eq!(nodes_of(end(2, Outcome::Refused).offer), [node(3)], "a refusal changed nothing");
    let over = end(3, Outcome::RolledBack);
    assert_eq!(over.offer, []);
    let cancelled = over.end.iter().map(|end| (end.node, end.outcome)).collect::<Vec<_>>();
    assert_eq!(cancelled, [(node(4), Outcome::Cancelled), (node(5), Outcome::Cancelled)]);
    assert_eq!(over.end[0].reason, "not started: 2 failed, and the run stops at 2");
    assert_eq!(why(&rollout, 4, now(2)), ["2 failed, and the run stops at 2"]);
}

#[test]
fn records_must_fit_the_plan_and_are_taken_as_they_are() {
    let restore = |known: &[u32]| {
        let known = known.iter().map(|n| (node(*n), JobFact::Queued.into()));
        Rollout::restore(plan(1, singles(2)), Mode::Going, now(0), mono(0), known, [], one_ring()).map(|_| ())
    };
    assert_eq!(restore(&[2, 1]), Ok(()));
    assert_eq!(restore(&[1]), Err(RestoreError::Missing(node(2))));
    assert_eq!(restore(&[1, 1]), Err(RestoreError::Twice(node(1))));
    assert_eq!(restore(&[1, 2, 3]), Err(RestoreError::Unknown(node(3))));
    // More in flight than allowed: nothing is offered until that is over.
    let mut over = rollout(1, &[Phase::Running, Phase::Offered, Phase::Queued]);
    assert_eq!(why(&over, 3, now(1)), ["all slots taken: 2 of 1 nodes in flight"]);
    over.apply(now(1), &Event::ended(node(1), FIRST, Outcome::Succeeded)).unwrap();
    assert_eq!(offers(&over, now(1)), []);
    over.apply(now(1), &Event::ended(node(2), FIRST, Outcome::Succeeded)).unwrap();
    assert_eq!(offers(&over, now(1)), [node(3)]);
}

#[test]
fn answers_are_pages() {
    let many = u32::try_from(PAGE).unwrap() * 2;
    let rollout = online(plan(many, singles(many)));
    assert_eq!(offers(&rollout, now(1)).len(), PAGE);
    assert_eq!(
        why(&rollout, many, now(1)),
        [format!("its turn has not come: {many} free slots, others go first")]
    );
    assert_eq!(rollout.wanted(now(3600)).end.len(), PAGE);
}

#[test]
fn the_state_of_the_run_follows_its_jobs() {
    let open = |phases: &[Phase]| rollout(9, phases).state(at(1));
    let good = Phase::Ended(Outcome::Succeeded);
    assert_eq!(open(&[Phase::Queued, Phase::Queued]), RunState::Planned);
    assert_eq!(open(&[Phase::Offered, Phase::Queued]), RunState::Running);
    assert_eq!(open(&[Phase::Waiting, Phase::Queued]), RunState::Running);
    assert_eq!(open(&[Phase::Waiting, good]), RunState::Waiting);
    assert_eq!(open(&[good, Phase::Queued]), RunState::Running);
    assert_eq!(open(&[good, good]), RunState::Succeeded);
    assert_eq!(open(&[good, Phase::Ended(Outcome::Lost)]), RunState::Partly);
    let summary = rollout(9, &[Phase::RollingBack, Phase::Accepted, good, Phase::Queued]).summary(at(1));
    assert_eq!((summary.tally.nodes, summary.tally.total_ended(), summary.counts.in_flight()), (4, 1, 2));
    assert_eq!((summary.counts.rolling_back, summary.counts.accepted, summary.counts.queued), (1, 1, 1));
}
