//! The cost of an event stays flat as the fleet grows (DESIGN, "Store": O(log n) an event).
#![allow(clippy::unwrap_used)] // In a test a panic is the answer.

mod support;

use std::time::{Duration, Instant};

use fleet_rollout::{Event, Plan, Presence, Reported, Rollout};
use fleet_types::job::Outcome;
use support::{FIRST, input, node, now, planned};

/// A whole run over `count` nodes, half of them in pairs and a quarter in one group much too large to be a
/// pair, asking what is wanted, why and when after every event. Returns the time an event took on average.
fn cost_of_an_event(count: u32) -> Duration {
    let nodes = (0..count)
        .map(|n| match n % 4 {
            0 | 1 => planned(n, Some(&format!("pair-{}", n / 4))),
            2 => planned(n, Some("everyone")),
            _ => planned(n, None),
        })
        .collect();
    let mut rollout = Rollout::new(Plan::new(input(50, nodes)).unwrap(), now(0));
    let begin = Instant::now();
    let mut events = 0;
    let mut apply = |rollout: &mut Rollout, event: &Event| {
        rollout.apply(now(1), event).unwrap();
        events += 1;
        let wanted = rollout.wanted(now(1));
        assert!(wanted.offer.len() <= 50 && (rollout.next_look(now(1)).is_none() || !rollout.is_done()));
        wanted.offer
    };
    for n in 0..count {
        apply(&mut rollout, &Event::presence(node(n), Presence::Online));
    }
    while let Some(offer) = rollout.wanted(now(1)).offer.first().copied() {
        apply(&mut rollout, &Event::offered(offer.node, offer.attempt));
        apply(&mut rollout, &Event::reported(offer.node, offer.attempt, Reported::Running, None));
        apply(&mut rollout, &Event::ended(offer.node, FIRST, Outcome::Succeeded));
    }
    assert!(rollout.is_done());
    assert_eq!(events, 4 * count);
    begin.elapsed() / events
}

#[test]
fn an_event_among_a_hundred_thousand_nodes_costs_about_as_much_as_among_a_thousand() {
    let small = cost_of_an_event(1_000);
    let large = cost_of_an_event(100_000);
    // O(n) would be a factor of 100 and O(log n) is one of 2; the rest is room for caches and neighbours.
    assert!(large < small * 20, "{small:?} among 1,000 nodes, {large:?} among 100,000");
}
