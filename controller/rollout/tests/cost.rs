//! The cost of an event stays flat as the fleet grows (DESIGN, "Store": O(log n) an event).
#![allow(clippy::unwrap_used)] // In a test a panic is the answer.

mod support;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fleet_rollout::{Event, Holder, Offer, Plan, PlanInput, PlannedNode, Presence, Reported, Rollout};
use fleet_types::job::Outcome;
use support::{FIRST, input, limits, node, now, planned};

/// A whole run over `count` nodes, half of them in pairs and a quarter in one group much too large to be a
/// pair, on sites of forty nodes of which two may change at once and one site of a quarter of all, asking what is
/// wanted, why and when after every event. Returns the time an event took on average.
fn cost_of_an_event(count: u32) -> Duration {
    let nodes = (0..count)
        .map(|n| {
            let pair = match n % 4 {
                0 | 1 => Some(format!("pair-{}", n / 4)),
                2 => Some("everyone".to_owned()),
                _ => None,
            };
            let site = if n % 4 == 3 { "large".to_owned() } else { format!("site-{}", n / 40) };
            PlannedNode { site, ..planned(n, pair.as_deref()) }
        })
        .collect();
    let limited = PlanInput { limits: limits(2, 8), ..input(10, nodes) };
    let mut rollout = Rollout::new(Plan::new(limited).unwrap(), now(0));
    let begin = Instant::now();
    let mut events = 0;
    let mut apply = |rollout: &mut Rollout, event: &Event| {
        rollout.apply(now(1), event).unwrap();
        events += 1;
        let wanted = rollout.wanted(now(1));
        assert!(wanted.offer.len() <= 8 && (rollout.next_look(now(1)).is_none() || !rollout.is_done()));
        wanted.offer
    };
    for n in 0..count {
        apply(&mut rollout, &Event::presence(node(n), Presence::Online));
    }
    let mut open = VecDeque::new();
    loop {
        // As many at once as are allowed, so that sites are full and nodes of others go past theirs.
        for Offer { node, attempt, places } in rollout.wanted(now(1)).offer {
            apply(&mut rollout, &Event::offered(node, attempt));
            let by = Holder { run: rollout.plan().run(), node, name: format!("fw-{node}"), attempt };
            for place in &places {
                apply(&mut rollout, &Event::Held { place: place.clone(), holder: Some(by.clone()) });
            }
            open.push_back((node, places));
        }
        let Some((node, places)) = open.pop_front() else { break };
        apply(&mut rollout, &Event::reported(node, FIRST, Reported::Running, None));
        apply(&mut rollout, &Event::ended(node, FIRST, Outcome::Succeeded));
        for place in places {
            apply(&mut rollout, &Event::Held { place, holder: None });
        }
    }
    assert!(rollout.is_done());
    assert!(events > 8 * count, "{events}");
    begin.elapsed() / events
}

#[test]
fn an_event_among_a_hundred_thousand_nodes_costs_about_as_much_as_among_a_thousand() {
    let small = cost_of_an_event(1_000);
    let large = cost_of_an_event(100_000);
    // O(n) would be a factor of 100 and O(log n) is one of 2; the rest is room for caches and neighbours.
    assert!(large < small * 20, "{small:?} among 1,000 nodes, {large:?} among 100,000");
}
