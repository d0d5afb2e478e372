//! The rings of a rollout as a table. Called by `run show`, which `rollout status` is too.

use std::time::Duration;

use fleet_types::run::RingState;
use fleet_types::view::RingView;

use crate::render::{Cell, Column, Table, Tone, units};

/// One line a ring.
pub fn table(rings: &[RingView]) -> Table {
    let mut table = Table::new(&[
        Column::whole("RING"),
        Column::number("NODES"),
        Column::number("DONE"),
        Column::number("FAILED"),
        Column::number("RUNNING"),
        Column::whole("STATE"),
        Column::text("REASON"),
    ]);
    for ring in rings {
        let count = |of: fn(fleet_types::view::RingNodes) -> u32| {
            Cell::from(ring.nodes.map_or_else(|| "-".to_owned(), |nodes| of(nodes).to_string()))
        };
        let state = match ring.state {
            RingState::Halted => Cell::toned(Tone::Bad, ring.state.to_string()),
            state => Cell::from(state.to_string()),
        };
        table.row([
            ring.name.as_str().into(),
            count(|nodes| nodes.all),
            count(|nodes| nodes.succeeded),
            count(|nodes| nodes.failed),
            count(|nodes| nodes.in_flight),
            state,
            reason(ring).into(),
        ]);
    }
    table
}

/// Why it stands where it does, or what it waits for.
fn reason(ring: &RingView) -> String {
    let length = |milliseconds| units::length(Duration::from_millis(milliseconds));
    let soaked = || format!("soaked {} of {}", length(ring.soaked_ms), length(ring.soak_ms));
    match (ring.state, ring.nodes) {
        (RingState::Open, Some(nodes)) => format!("{} of {} must succeed", nodes.needed, nodes.all),
        (RingState::Pending | RingState::Judging, _) | (RingState::Open, None) => String::new(),
        (RingState::AwaitingApproval, _) => {
            "an operator lets the next ring begin: fleetctl rollout promote".to_owned()
        }
        (RingState::Done, _) if ring.soak_ms == 0 => String::new(),
        (RingState::Soaking | RingState::Done, _) => soaked(),
        (RingState::Halted, _) => ring.because.clone(),
    }
}
