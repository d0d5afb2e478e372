//! Runs and limits of a simulated world, drawn from its seed.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_rollout::invariant::Witness;
use fleet_rollout::{JobFact, Limits, Mode, Moment, Mono, Plan, PlanInput, PlannedNode, Rollout};
use fleet_types::id::RunId;

use super::Run;
use crate::support::agent::Work;
use crate::support::random::Random;
use crate::support::{at, limits, planned};

/// In one world of three each none, or from one to three nodes.
pub(super) fn some_limits(random: &mut Random) -> Limits {
    let mut some = || if random.chance(33) { 0 } else { 1 + u32::try_from(random.below(3)).unwrap() };
    limits(some(), some())
}

/// A run over some of the nodes, its limits between a minute and three hours.
pub(super) fn run(
    number: u64,
    pairs: &[Option<u64>],
    sites: &[String],
    limits: Limits,
    random: &mut Random,
) -> (RunId, Run) {
    let id = RunId::from_number(number);
    let longest = if random.chance(25) { 10_800 } else { 900 };
    let limit = Duration::from_secs(60 + random.below(longest));
    let not_before = random.below(600);
    let not_after = not_before + 300 + random.below(5400);
    let first = random.below(pairs.len() as u64);
    let all = random.chance(60);
    let chosen = pairs.iter().enumerate().filter(|(n, _)| all || *n as u64 >= first);
    let nodes = chosen.map(|(n, pair)| {
        let pair = pair.map(|pair| format!("pair-{pair}"));
        PlannedNode { site: sites[n].clone(), ..planned(u32::try_from(n).unwrap(), pair.as_deref()) }
    });
    let changes = random.chance(80);
    let input = PlanInput {
        run: id,
        changes,
        limits,
        max_parallel: 1 + u32::try_from(random.below(4)).unwrap(),
        not_before: at(not_before),
        not_after: at(not_after),
        job_limit: 2 * limit,
        max_failures: if random.chance(50) {
            Some(1 + u32::try_from(random.below(2)).unwrap())
        } else {
            None
        },
        nodes: nodes.collect(),
    };
    let plan = Plan::new(input.clone()).unwrap();
    let now = Moment { wall: at(0), mono: Mono::default() };
    let run = Run {
        work: Work { run: id, changes, limit, not_after: Duration::from_secs(not_after) },
        stored: plan.nodes().iter().map(|n| (n.node, JobFact::Queued)).collect(),
        stored_places: BTreeMap::new(),
        stored_mode: Mode::Going,
        engine: Rollout::new(plan.clone(), now),
        witness: Witness::default(),
        input,
        plan,
    };
    (id, run)
}
