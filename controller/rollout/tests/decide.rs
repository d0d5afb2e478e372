//! What is wanted, what is blocked and why, and when to look again: one case a rule.
#![allow(clippy::unwrap_used)] // In a test a panic is the answer.

mod support;

use fleet_rollout::{
    Directive, Event, JobFact, LOST_GRACE, Mode, Offer, PAGE, Plan, PlanProblem, Reported, RestoreError,
    Rollout,
};
use fleet_types::job::{Outcome, Phase};
use fleet_types::run::RunState;
use fleet_types::time::Timestamp;
use support::{FIRST, MINUTE, at, input, known, node, plan, planned, rollout, singles};

/// A rollout with everyone online.
fn online(plan: Plan) -> Rollout {
    let nodes: Vec<_> = plan.nodes().iter().map(|n| n.node).collect();
    let mut rollout = Rollout::new(plan);
    for node in nodes {
        rollout.apply(at(0), &Event::online(node)).unwrap();
    }
    rollout
}

fn offers(rollout: &Rollout, now: Timestamp) -> Vec<Offer> {
    rollout.wanted(now).offer
}

fn offer_of(n: u32) -> Offer {
    Offer { node: node(n), attempt: FIRST }
}

fn why(rollout: &Rollout, n: u32, now: Timestamp) -> Vec<String> {
    rollout.blocked(node(n), now).iter().map(ToString::to_string).collect()
}

fn ends(rollout: &Rollout, now: Timestamp) -> Vec<(Outcome, String)> {
    rollout.wanted(now).end.into_iter().map(|end| (end.outcome, end.reason)).collect()
}

#[test]
fn all_problems_of_a_plan_at_once() {
    let mut bad = input(0, vec![planned(2, None), planned(1, Some("")), planned(2, None)]);
    bad.not_after = bad.not_before;
    bad.job_deadline = LOST_GRACE;
    let problems = Plan::new(bad).unwrap_err();
    assert_eq!(
        problems,
        [
            PlanProblem::Twice(node(2)),
            PlanProblem::EmptyPair(node(1)),
            PlanProblem::NoneAtOnce,
            PlanProblem::NoTime { not_before: at(0), not_after: at(0) },
            PlanProblem::DeadlineTooShort(LOST_GRACE),
        ]
    );
    assert_eq!(Plan::new(input(1, Vec::new())).unwrap_err(), [PlanProblem::NoNodes]);
}

#[test]
fn the_first_nodes_go_up_to_the_cap_in_the_order_of_their_ids() {
    let mut rollout = online(plan(2, vec![planned(3, None), planned(1, None), planned(2, None)]));
    assert_eq!(offers(&rollout, at(1)), [offer_of(1), offer_of(2)]);
    assert_eq!(why(&rollout, 3, at(1)), ["its turn has not come: 2 free slots, others go first"]);
    assert_eq!(rollout.state(at(1)), RunState::Planned);
    rollout.apply(at(1), &Event::offered(node(1), FIRST)).unwrap();
    rollout.apply(at(1), &Event::offered(node(2), FIRST)).unwrap();
    assert_eq!(why(&rollout, 3, at(1)), ["all slots taken: 2 of 2 nodes in flight"]);
    assert_eq!(rollout.state(at(1)), RunState::Running);
    rollout.apply(at(2), &Event::ended(node(1), FIRST, Outcome::Failed)).unwrap();
    assert_eq!(offers(&rollout, at(2)), [offer_of(3)]);
    assert_eq!(why(&rollout, 1, at(2)), ["already ended: failed"]);
}

#[test]
fn a_pair_goes_one_after_the_other_only_where_the_run_changes_nodes() {
    let nodes = || vec![planned(1, Some("a")), planned(2, Some("a")), planned(3, None)];
    let mut rollout = online(plan(3, nodes()));
    assert_eq!(offers(&rollout, at(1)), [offer_of(1), offer_of(3)]);
    assert_eq!(why(&rollout, 2, at(1)), [format!("partner {} goes first", node(1))]);
    rollout.apply(at(1), &Event::offered(node(1), FIRST)).unwrap();
    assert_eq!(why(&rollout, 2, at(1)), [format!("partner {} is in flight", node(1))]);
    // It may be changing, so being offline does not free its partner.
    rollout.apply(at(1), &Event::offline(node(1))).unwrap();
    assert_eq!(offers(&rollout, at(1)), [offer_of(3)]);
    rollout.apply(at(2), &Event::ended(node(1), FIRST, Outcome::Succeeded)).unwrap();
    assert_eq!(offers(&rollout, at(2)), [offer_of(2), offer_of(3)]);

    let mut reading = input(3, nodes());
    reading.changes = false;
    assert_eq!(offers(&online(Plan::new(reading).unwrap()), at(1)).len(), 3);
}

#[test]
fn an_offline_node_holds_nobody_up_and_every_reason_is_named() {
    let mut delayed = input(1, singles(2));
    delayed.not_before = at(10);
    let mut rollout = online(Plan::new(delayed).unwrap());
    rollout.apply(at(1), &Event::offline(node(1))).unwrap();
    rollout.apply(at(1), &Event::Pause { reason: "lunch".to_owned() }).unwrap();
    assert_eq!(rollout.state(at(1)), RunState::Paused);
    assert_eq!(
        why(&rollout, 1, at(1)),
        ["run paused: lunch", "starts at 2026-01-01T00:00:10Z at the earliest", "offline"]
    );
    assert_eq!(offers(&rollout, at(20)), []);
    rollout.apply(at(20), &Event::Resume).unwrap();
    assert_eq!(offers(&rollout, at(9)), []);
    assert_eq!(rollout.next_deadline(at(9)), Some(at(10)));
    assert_eq!(offers(&rollout, at(10)), [offer_of(2)]);
    assert_eq!(rollout.next_deadline(at(10)), Some(at(3600)));
    assert_eq!(why(&rollout, 1, at(10)), ["offline"]);
    assert_eq!(why(&rollout, 9, at(10)), ["not part of this run"]);
}

#[test]
fn what_has_not_started_by_the_last_start_expires() {
    let mut rollout = rollout(1, &[Phase::Running, Phase::Queued, Phase::Queued]);
    rollout.apply(at(0), &Event::offline(node(3))).unwrap();
    let heard = at(3599);
    rollout.apply(heard, &Event::reported(node(1), FIRST, Reported::Running)).unwrap();
    assert_eq!(rollout.wanted(at(900)).end, []);
    let expired = rollout.wanted(at(3600)).end;
    let of: Vec<_> = expired.iter().map(|end| (end.node, end.outcome)).collect();
    assert_eq!(of.last_chunk(), Some(&[(node(2), Outcome::Expired), (node(3), Outcome::Expired)]));
    assert_eq!(
        expired.last().unwrap().reason,
        "not started before the last start 2026-01-01T01:00:00Z; the node is offline"
    );
    assert_eq!(why(&rollout, 2, at(3600))[0], "too late: last start was 2026-01-01T01:00:00Z");
    assert_eq!(offers(&rollout, at(3600)), []);
}

#[test]
fn a_cancel_ends_what_is_queued_and_stops_what_is_in_flight() {
    let mut rollout = rollout(2, &[Phase::Running, Phase::Queued]);
    assert_eq!(rollout.directive(node(1), at(1)), Some(Directive::Work { attempt: FIRST }));
    rollout.apply(at(1), &Event::Cancel { reason: "wrong file".to_owned() }).unwrap();
    let wanted = rollout.wanted(at(1));
    assert_eq!(wanted.cancel, [node(1)]);
    assert_eq!(ends(&rollout, at(1)), [(Outcome::Cancelled, "the run was ended: wrong file".to_owned())]);
    assert_eq!(
        rollout.directives(at(1)).collect::<Vec<_>>(),
        [(node(1), Directive::Stop { attempt: FIRST })]
    );
    assert_eq!(why(&rollout, 2, at(1)), ["run is ending: wrong file"]);
    assert_eq!(rollout.state(at(1)), RunState::Halting);
    for n in [1, 2] {
        rollout.apply(at(2), &Event::ended(node(n), FIRST, Outcome::Cancelled)).unwrap();
    }
    assert_eq!(rollout.terminal_state(), Some(RunState::Cancelled));
    assert!(rollout.wanted(at(2)).is_empty() && rollout.is_done());
}

#[test]
fn silence_is_borne_until_the_deadline_and_its_grace() {
    // Fifteen minutes a job, five of them grace; running since 0, last heard at 0.
    let mut silent = rollout(1, &[Phase::Running]);
    assert_eq!(silent.next_deadline(at(0)), Some(at(900)));
    assert_eq!(ends(&silent, at(899)), []);
    let lost =
        (Outcome::Lost, "nothing heard since 2026-01-01T00:00:00Z; its time and grace are over".to_owned());
    assert_eq!(ends(&silent, at(900)), [lost]);
    // Who still talks is not silent …
    silent.apply(at(890), &Event::reported(node(1), FIRST, Reported::Running)).unwrap();
    assert_eq!(silent.next_deadline(at(890)), Some(at(890).plus(LOST_GRACE)));
    // … but is not borne for longer than the deadline once more.
    silent.apply(at(1790), &Event::reported(node(1), FIRST, Reported::Running)).unwrap();
    assert_eq!(ends(&silent, at(1799)), []);
    assert_eq!(ends(&silent, at(1800)).len(), 1);
}

#[test]
fn an_unanswered_offer_is_repeated_in_time_and_then_lost() {
    let mut rollout = online(plan(1, singles(1)));
    rollout.apply(at(0), &Event::offered(node(1), FIRST)).unwrap();
    assert_eq!(rollout.directive(node(1), at(599)), Some(Directive::Work { attempt: FIRST }));
    assert_eq!(rollout.directive(node(1), at(600)), None, "the grace is left for the answer");
    assert_eq!(
        ends(&rollout, at(900))[0].1,
        "no answer since it was offered at 2026-01-01T00:00:00Z; whether it began is not known"
    );
    // It may have received the offer until its link went down, and may work from then on.
    rollout.apply(at(500), &Event::offline(node(1))).unwrap();
    assert_eq!(rollout.next_deadline(at(500)), Some(at(1400)));
    // An acceptance starts the clock anew; so does the first step, and nothing else.
    rollout.apply(at(700), &Event::online(node(1))).unwrap();
    rollout.apply(at(710), &Event::reported(node(1), FIRST, Reported::Accepted)).unwrap();
    assert_eq!(rollout.next_deadline(at(710)), Some(at(1610)));
    rollout.apply(at(720), &Event::reported(node(1), FIRST, Reported::Running)).unwrap();
    rollout.apply(at(730), &Event::reported(node(1), FIRST, Reported::Waiting)).unwrap();
    rollout.apply(at(740), &Event::reported(node(1), FIRST, Reported::Running)).unwrap();
    assert_eq!(rollout.next_deadline(at(740)), Some(at(1620)));
    assert_eq!(rollout.directive(node(1), at(1619)), Some(Directive::Work { attempt: FIRST }));
}

#[test]
fn an_outage_of_the_controller_is_not_held_against_the_nodes() {
    let fact = JobFact::Offered { attempt: FIRST, at: at(0) };
    let long_after = at(90_000);
    let restore =
        |known| Rollout::restore(plan(1, singles(1)), Mode::Going, long_after, [(node(1), known)]).unwrap();
    // With nothing else known, it may have begun until the last start, and that is long ago.
    let restored = restore(fact.into());
    assert_eq!(ends(&restored, long_after), []);
    assert_eq!(restored.next_deadline(long_after), Some(long_after.plus(LOST_GRACE)));
    // The same with what was known from before.
    assert_eq!(ends(&restore(known(Phase::Running, FIRST)), long_after), []);
    // Soon after the offer, it may have begun until now.
    let soon = Rollout::restore(plan(1, singles(1)), Mode::Going, at(300), [(node(1), fact.into())]).unwrap();
    assert_eq!(soon.next_deadline(at(300)), Some(at(300).plus(15 * MINUTE)));
}

#[test]
fn records_must_fit_the_plan_and_are_taken_as_they_are() {
    let restore = |known: &[u32]| {
        let known = known.iter().map(|n| (node(*n), JobFact::Queued.into()));
        Rollout::restore(plan(1, singles(2)), Mode::Going, at(0), known).map(|_| ())
    };
    assert_eq!(restore(&[2, 1]), Ok(()));
    assert_eq!(restore(&[1]), Err(RestoreError::Missing(node(2))));
    assert_eq!(restore(&[1, 1]), Err(RestoreError::Twice(node(1))));
    assert_eq!(restore(&[1, 2, 3]), Err(RestoreError::Unknown(node(3))));
    // More in flight than allowed: nothing is offered until that is over.
    let mut over = rollout(1, &[Phase::Running, Phase::Offered, Phase::Queued]);
    assert_eq!(why(&over, 3, at(1)), ["all slots taken: 2 of 1 nodes in flight"]);
    over.apply(at(1), &Event::ended(node(1), FIRST, Outcome::Succeeded)).unwrap();
    assert_eq!(offers(&over, at(1)), []);
    over.apply(at(1), &Event::ended(node(2), FIRST, Outcome::Succeeded)).unwrap();
    assert_eq!(offers(&over, at(1)), [offer_of(3)]);
}

#[test]
fn answers_are_pages() {
    let many = u32::try_from(PAGE).unwrap() * 2;
    let rollout = online(plan(many, singles(many)));
    assert_eq!(offers(&rollout, at(1)).len(), PAGE);
    assert_eq!(
        why(&rollout, many, at(1)),
        [format!("its turn has not come: {many} free slots, others go first")]
    );
    assert_eq!(rollout.wanted(at(3600)).end.len(), PAGE);
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
