//! The rings of a rollout as a table. Called by `run show`, which `rollout status` is too.

use std::time::Duration;

use fleet_types::run::{RingState, Verdict};
use fleet_types::view::RingView;

use crate::render::{Cell, Column, Table, Tone, units};

/// One line a ring.
pub fn table(rings: &[RingView]) -> Table {
    // Nothing is said of gates where a policy has none.
    let has_gates = rings.iter().any(|ring| ring.gates.is_some());
    let mut columns = vec![
        Column::whole("RING"),
        Column::number("NODES"),
        Column::number("DONE"),
        Column::number("FAILED"),
        Column::number("RUNNING"),
        Column::whole("STATE"),
    ];
    columns.extend(has_gates.then(|| Column::whole("GATES")));
    columns.push(Column::text("REASON"));
    let mut table = Table::new(&columns);
    for ring in rings {
        let count = |of: fn(fleet_types::view::RingNodes) -> u32| {
            Cell::from(ring.nodes.map_or_else(|| "-".to_owned(), |nodes| of(nodes).to_string()))
        };
        let state = match ring.state {
            RingState::Halted => Cell::toned(Tone::Bad, ring.state.to_string()),
            state => Cell::from(state.to_string()),
        };
        let [all, done, failed, running] = [
            count(|nodes| nodes.all),
            count(|nodes| nodes.succeeded),
            count(|nodes| nodes.failed),
            count(|nodes| nodes.in_flight),
        ];
        let (name, why) = (ring.name.as_str().into(), reason(ring).into());
        if has_gates {
            table.row([name, all, done, failed, running, state, gates(ring), why]);
        } else {
            table.row([name, all, done, failed, running, state, why]);
        }
    }
    table
}

/// What the gates of a ring said last.
fn gates(ring: &RingView) -> Cell {
    match ring.gates.as_ref().map(|gates| gates.verdict) {
        None => Cell::from("-"),
        Some(None) if ring.state == RingState::Judging => Cell::from("asked"),
        Some(None) => Cell::from("not asked"),
        Some(Some(Verdict::Pass)) => Cell::toned(Tone::Good, Verdict::Pass.as_str()),
        Some(Some(verdict)) => Cell::toned(Tone::Bad, verdict.as_str()),
    }
}

/// Why it stands where it does, or what it waits for.
fn reason(ring: &RingView) -> String {
    let length = |milliseconds| units::length(Duration::from_millis(milliseconds));
    let soaked = || format!("soaked {} of {}", length(ring.soaked_ms), length(ring.soak_ms));
    match (ring.state, ring.nodes) {
        (RingState::Open, Some(nodes)) => format!("{} of {} must succeed", nodes.needed, nodes.all),
        (RingState::Judging, _) => judged(ring).unwrap_or_default(),
        (RingState::Pending, _) | (RingState::Open, None) => String::new(),
        (RingState::AwaitingApproval, _) => {
            "an operator lets the next ring begin: fleetctl rollout promote".to_owned()
        }
        (RingState::Done, _) if ring.soak_ms == 0 => String::new(),
        (RingState::Soaking | RingState::Done, _) => soaked(),
        (RingState::Halted, _) => ring.because.clone(),
    }
}

/// How many nodes have said that the gates hold.
fn judged(ring: &RingView) -> Option<String> {
    let gates = ring.gates.as_ref()?;
    let (passed, awaited) = (gates.passed?, gates.awaited?);
    Some(format!("{}: {passed} of {} nodes pass", gates.ids.join(", "), passed + awaited))
}
