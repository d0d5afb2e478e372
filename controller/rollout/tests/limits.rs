//! Limits of a site and of the fleet over all runs: who goes, who waits for whom, and what is taken.
#![allow(clippy::unwrap_used)] // In a test a panic is the answer.

mod support;

use fleet_rollout::{Event, Holder, Limits, Place, Plan, PlanInput, PlannedNode, Presence, Rollout, Scope};
use fleet_types::id::{NodeId, RunId};
use fleet_types::job::Outcome;
use support::{FIRST, at_site, input, limits, node, now, planned};

fn online(limits: Limits, max_parallel: u32, nodes: Vec<PlannedNode>) -> Rollout {
    let ids: Vec<NodeId> = nodes.iter().map(|planned| planned.node).collect();
    let plan = Plan::new(PlanInput { limits, ..input(max_parallel, nodes) }).unwrap();
    let mut rollout = Rollout::new(plan, now(0));
    for id in ids {
        rollout.apply(now(0), &Event::presence(id, Presence::Online)).unwrap();
    }
    rollout
}

fn site(name: &str, number: u32) -> Place {
    Place { scope: Scope::Site(name.to_owned()), number }
}

const fn fleet(number: u32) -> Place {
    Place { scope: Scope::Fleet, number }
}

/// A job of another run.
fn other(n: u32) -> Holder {
    Holder { run: RunId::from_number(9), node: node(n), name: format!("gw-{n}"), attempt: FIRST }
}

fn hold(rollout: &mut Rollout, place: Place, holder: Option<Holder>) {
    rollout.apply(now(1), &Event::Held { place, holder }).unwrap();
}

/// Who is to be offered, and the places that each takes.
fn offers(rollout: &Rollout) -> Vec<(NodeId, Vec<Place>)> {
    rollout.wanted(now(1)).offer.into_iter().map(|offer| (offer.node, offer.places)).collect()
}

fn why(rollout: &Rollout, n: u32) -> Vec<String> {
    rollout.blocked(node(n), now(1)).iter().map(ToString::to_string).collect()
}

#[test]
fn a_full_site_holds_up_nobody_but_its_own_nodes() {
    let nodes =
        vec![at_site(1, "ams"), at_site(2, "ams"), at_site(3, "fra"), at_site(4, "ams"), at_site(5, "fra")];
    let mut rollout = online(limits(2, 0), 4, nodes);
    let all = [(1, site("ams", 0)), (2, site("ams", 1)), (3, site("fra", 0)), (5, site("fra", 1))];
    assert_eq!(offers(&rollout), all.map(|(n, place)| (node(n), vec![place])), "in the order of the plan");
    assert_eq!(why(&rollout, 4), ["its turn has not come: 2 free slots, others go first"]);
    // Another run takes the places of ams.
    hold(&mut rollout, site("ams", 1), Some(other(8)));
    assert_eq!(offers(&rollout)[0], (node(1), vec![site("ams", 0)]));
    assert_eq!(why(&rollout, 2), ["its turn has not come: 1 free slots, others go first"]);
    hold(&mut rollout, site("ams", 0), Some(other(7)));
    assert_eq!(offers(&rollout), [(node(3), vec![site("fra", 0)]), (node(5), vec![site("fra", 1)])]);
    assert_eq!(why(&rollout, 2), ["site ams: 2 of 2 nodes are in change: gw-7, gw-8"]);
    let refused = rollout.apply(now(1), &Event::offered(node(2), FIRST)).unwrap_err().to_string();
    assert!(refused.contains("site ams: 2 of 2 nodes are in change"), "{refused}");
    // The place that became free is the one that is taken.
    hold(&mut rollout, site("ams", 0), None);
    assert_eq!(offers(&rollout)[0], (node(1), vec![site("ams", 0)]));
}

#[test]
fn the_fleet_has_places_too_and_a_pair_is_taken_with_them() {
    let nodes = vec![planned(1, Some("edge")), planned(2, Some("edge")), planned(3, None), planned(4, None)];
    let mut rollout = online(limits(9, 2), 4, nodes);
    hold(&mut rollout, fleet(0), Some(other(8)));
    assert_eq!(offers(&rollout), [(node(1), vec![Place::pair("edge".to_owned()), site("-", 0), fleet(1)])]);
    rollout.apply(now(1), &Event::offered(node(1), FIRST)).unwrap();
    let own = Holder { run: rollout.plan().run(), name: "fw-1".to_owned(), ..other(1) };
    hold(&mut rollout, fleet(1), Some(own));
    assert_eq!(offers(&rollout), []);
    assert_eq!(why(&rollout, 3), ["fleet: 2 of 2 nodes are in change: gw-8, fw-1"]);
    assert_eq!(rollout.general_block(now(1)).len(), 1, "it is the same for every node");
    // Its end alone frees nothing: that the record is gone does.
    rollout.apply(now(2), &Event::ended(node(1), FIRST, Outcome::Lost)).unwrap();
    assert_eq!(offers(&rollout), []);
    hold(&mut rollout, fleet(1), None);
    assert_eq!(offers(&rollout)[0].1.last(), Some(&fleet(1)));
}

#[test]
fn more_than_the_limit_are_taken_after_it_was_lowered() {
    let mut rollout = online(limits(0, 2), 9, vec![planned(1, None), planned(2, None)]);
    for number in [7, 3, 4, 9, 12, 0] {
        hold(&mut rollout, fleet(number), Some(other(number)));
    }
    assert_eq!(
        why(&rollout, 1),
        ["fleet: 6 of 2 nodes are in change: gw-0, gw-3, gw-4, gw-7, gw-9 and 1 more"]
    );
    for number in [0, 7, 3, 9] {
        hold(&mut rollout, fleet(number), None);
        assert_eq!(offers(&rollout), []);
    }
    hold(&mut rollout, fleet(12), None);
    assert_eq!(offers(&rollout), [(node(1), vec![fleet(0)])], "one more, with a number of the limit");
}

#[test]
fn a_run_that_only_reads_takes_nothing_and_waits_for_nothing() {
    let nodes = vec![at_site(1, "ams"), at_site(2, "ams")];
    let reading = PlanInput { limits: limits(1, 1), changes: false, ..input(2, nodes.clone()) };
    let plan = Plan::new(reading).unwrap();
    assert_eq!(plan.scopes().count(), 0);
    let mut rollout = Rollout::new(plan, now(0));
    for planned in nodes {
        rollout.apply(now(0), &Event::presence(planned.node, Presence::Online)).unwrap();
    }
    let before = rollout.clone();
    hold(&mut rollout, fleet(0), Some(other(8)));
    hold(&mut rollout, site("ams", 0), Some(other(8)));
    assert_eq!(rollout, before);
    assert_eq!(offers(&rollout), [(node(1), vec![]), (node(2), vec![])]);
}
