//! Forecasts: when each node of a rollout will be done, if nothing fails.
#![allow(clippy::unwrap_used)] // In a test a panic is the answer.

mod support;

use std::num::NonZeroU32;
use std::time::Duration;

use fleet_rollout::{
    Event, Forecast, Holder, Limits, Moment, Mono, Place, Plan, PlanInput, PlannedNode, Presence, RingInput,
    Rollout, Tolerance,
};
use fleet_types::document::Share;
use fleet_types::id::{Attempt, NodeId, RunId};
use fleet_types::time::Timestamp;
use support::Random;

const MINUTE: Duration = Duration::from_mins(1);

fn node(n: usize) -> NodeId {
    support::node(u32::try_from(n).unwrap() + 1)
}

fn now() -> Moment {
    Moment { wall: Timestamp::clamped(1_795_000_000_000), mono: Mono::new(Duration::from_hours(1)) }
}

fn ring(name: &str, at_once: Option<u32>, soak: Duration, is_manual: bool) -> RingInput {
    RingInput {
        name: name.to_owned(),
        max_parallel: at_once.map(|number| Share::Nodes(NonZeroU32::new(number).unwrap())),
        soak,
        success_percent: 100,
        is_manual,
    }
}

/// Nodes by ring and pair, all online.
fn rollout(
    nodes: &[(usize, Option<u32>)],
    rings: Vec<RingInput>,
    max_parallel: u32,
    site: Option<u32>,
) -> Rollout {
    judged(nodes, rings, max_parallel, site, false)
}

/// The same, with gates.
fn judged(
    nodes: &[(usize, Option<u32>)],
    rings: Vec<RingInput>,
    max_parallel: u32,
    site: Option<u32>,
    is_judged: bool,
) -> Rollout {
    let planned = |(n, (ring, pair)): (usize, &(usize, Option<u32>))| PlannedNode {
        node: node(n),
        name: format!("fw-{n}"),
        pair: pair.map(|pair| format!("pair-{pair}")),
        site: "ams2".to_owned(),
        ring: *ring,
    };
    let plan = Plan::new(PlanInput {
        run: RunId::from_number(1),
        changes: true,
        limits: Limits { site: site.and_then(NonZeroU32::new), fleet: None },
        max_parallel,
        not_before: now().wall,
        not_after: now().wall.plus(Duration::from_hours(24)),
        job_limit: Duration::from_hours(1),
        max_failures: None,
        judging: is_judged.then_some(MINUTE * 30),
        rings,
        tolerance: Tolerance::default(),
        nodes: nodes.iter().enumerate().map(planned).collect(),
    })
    .unwrap();
    let mut rollout = Rollout::new(plan, now());
    for n in 0..nodes.len() {
        rollout.apply(now(), &Event::presence(node(n), Presence::Online)).unwrap();
    }
    rollout
}

fn ahead(rollout: &Rollout) -> Forecast {
    rollout.forecast(now(), |_| MINUTE * 10, MINUTE * 3).unwrap()
}

fn minutes(forecast: &Forecast) -> Vec<u64> {
    forecast.done.values().map(|done| done.as_secs() / 60).collect()
}

#[test]
fn rings_soaks_and_pairs_take_their_time_and_an_operator_none() {
    let rings = vec![
        ring("canary", Some(1), MINUTE * 60, false),
        ring("early", None, MINUTE * 5, true),
        ring("rest", None, Duration::ZERO, false),
    ];
    let nodes = [(0, None), (0, None), (1, Some(1)), (1, Some(1)), (2, Some(2)), (2, Some(2)), (2, None)];
    let forecast = ahead(&rollout(&nodes, rings, 10, None));
    // Two canaries one after the other, an hour of soak, a pair one after the other, five minutes, and the rest.
    assert_eq!(minutes(&forecast), [10, 20, 90, 100, 115, 125, 115]);
    let told: Vec<_> = forecast
        .rings
        .iter()
        .map(|ring| {
            (ring.begins.unwrap().as_secs() / 60, ring.ends.unwrap().as_secs() / 60, ring.waits_for_operator)
        })
        .collect();
    assert_eq!(told, [(0, 80, false), (80, 105, true), (105, 125, false)]);
}

#[test]
fn gates_are_looked_at_after_the_soak_and_hold() {
    let rings = vec![ring("canary", None, MINUTE * 60, false), ring("rest", None, Duration::ZERO, false)];
    let forecast = ahead(&judged(&[(0, None), (0, None), (1, None)], rings, 10, None, true));
    assert_eq!(minutes(&forecast), [10, 10, 83]);
}

#[test]
fn who_is_offline_held_by_others_or_out_of_time_is_not_there() {
    let mut rollout = rollout(&[(0, Some(1)), (0, None), (0, None)], vec![], 1, None);
    let other =
        Holder { run: RunId::from_number(2), node: node(9), name: "fw-9".to_owned(), attempt: Attempt(1) };
    rollout
        .apply(now(), &Event::Held { place: Place::pair("pair-1".to_owned()), holder: Some(other) })
        .unwrap();
    rollout.apply(now(), &Event::presence(node(1), Presence::Offline)).unwrap();
    let forecast = ahead(&rollout);
    assert_eq!(forecast.done.keys().copied().collect::<Vec<_>>(), [node(2)]);
    assert_eq!(forecast.rings[0].ends, Some(Duration::from_hours(24)), "the others end with the last start");
    // Ten nodes of ten hours each, one after the other: the last start is after 24 hours.
    let slow = self::rollout(&[(0, None); 10], vec![], 1, None);
    let forecast = slow.forecast(now(), |_| Duration::from_hours(10), MINUTE).unwrap();
    assert_eq!(forecast.done.len(), 3, "one that begins in time may end later");
}

#[test]
fn a_rollout_under_way_is_told_from_where_it_stands_and_not_changed() {
    let mut rollout =
        rollout(&[(0, None), (0, None)], vec![ring("all", Some(1), Duration::ZERO, false)], 1, Some(1));
    let offer = rollout.wanted(now()).offer.remove(0);
    let own =
        Holder { run: RunId::from_number(1), node: offer.node, name: String::new(), attempt: offer.attempt };
    for place in offer.places {
        rollout.apply(now(), &Event::Held { place, holder: Some(own.clone()) }).unwrap();
    }
    rollout.apply(now(), &Event::offered(offer.node, offer.attempt)).unwrap();
    let before = rollout.clone();
    assert_eq!(minutes(&ahead(&rollout)), [10, 20], "its place of the site is free when it ends");
    assert_eq!(rollout, before);
}

/// More at once, or a shorter soak, makes nobody late.
#[test]
fn nobody_is_later_for_a_shorter_soak_and_the_end_is_not_for_more_at_once() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let count = 3 + random.below(21);
        let mut nodes = Vec::new();
        for _ in 0..count {
            let pair = random.chance(50).then(|| u32::try_from(random.below(4)).unwrap());
            nodes.push((usize::try_from(random.below(3)).unwrap(), pair));
        }
        let mut number = |most| 1 + u32::try_from(random.below(most)).unwrap();
        let (at_once, parallel, soak) = (number(3), number(5), number(120));
        let site = (number(2) == 1).then(|| number(4));
        let with = |more: u32, soak: u32| {
            let ring = |name: &str| ring(name, Some(at_once + more), MINUTE * soak, false);
            let rings = vec![ring("a"), ring("b"), ring("c")];
            ahead(&rollout(&nodes, rings, parallel + more, site.map(|site| site + more)))
        };
        let (base, quick, wide) = (with(0, soak), with(0, soak / 2), with(1, soak));
        assert_eq!(base.done.len(), nodes.len(), "seed {seed}: everybody gets done");
        assert!(quick.done.iter().all(|(node, at)| *at <= base.done[node]), "seed {seed}");
        assert!(wide.done.values().max() <= base.done.values().max(), "seed {seed}");
    }
}
