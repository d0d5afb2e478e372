//! Runs and limits of a simulated world, drawn from its seed.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use fleet_rollout::invariant::Witness;
use fleet_rollout::{
    JobFact, Limits, Mode, Moment, Mono, Plan, PlanInput, PlannedNode, RingInput, RingProgress, Rollout,
    Tolerance,
};
use fleet_types::document::Share;
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

/// What is asked for: some of the nodes, limits between a minute and three hours.
pub(super) fn run_input(
    number: u64,
    pairs: &[Option<u64>],
    sites: &[String],
    limits: Limits,
    random: &mut Random,
) -> PlanInput {
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
    PlanInput {
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
        rings: vec![],
        judging: None,
        tolerance: Tolerance::default(),
        nodes: nodes.collect(),
    }
}

/// In two worlds of three the run is a rollout of two to four rings, some of them empty.
pub(super) fn with_rings(input: PlanInput, random: &mut Random) -> PlanInput {
    if random.chance(33) {
        return input;
    }
    let count = 2 + random.below(3);
    let percent = |random: &mut Random| Share::from_str(&format!("{}%", 1 + random.below(100))).unwrap();
    let rings = (0..count).map(|n| RingInput {
        name: format!("ring-{n}"),
        max_parallel: random.chance(70).then(|| percent(random)),
        soak: Duration::from_secs(if random.chance(30) { 0 } else { random.below(900) }),
        success_percent: u32::try_from(if random.chance(50) { 100 } else { random.below(101) }).unwrap(),
        is_manual: random.chance(20),
    });
    let rings = rings.collect();
    let some = |random: &mut Random| random.chance(60).then(|| u32::try_from(random.below(3)).unwrap());
    let tolerance = Tolerance { nodes: some(random), percent: some(random), goes_on: random.chance(25) };
    let last = input.nodes.len() as u64;
    let of_ring = |node| PlannedNode { ring: usize::try_from(random.below(count)).unwrap(), ..node };
    let nodes = input.nodes.into_iter().map(of_ring).collect();
    // Soaks take their time; it must be possible to come to the end.
    let not_after = input.not_after.plus(Duration::from_secs(600 * count * last));
    PlanInput { rings, tolerance, nodes, not_after, ..input }
}

/// In four rollouts of five its rings are judged, for up to two hours. Its jobs are short and many may fail, so that there
/// is something to judge.
pub(super) fn with_gates(input: PlanInput, random: &mut Random) -> PlanInput {
    if input.rings.is_empty() || random.chance(20) {
        return input;
    }
    let judging = Some(Duration::from_secs(600 + random.below(6600)));
    let job_limit = Duration::from_secs(120 + random.below(240));
    let ring = |ring: RingInput| RingInput { success_percent: ring.success_percent.clamp(34, 50), ..ring };
    let rings: Vec<RingInput> = input.rings.into_iter().take(2).map(ring).collect();
    let nodes = input.nodes.into_iter().enumerate();
    let nodes = nodes.map(|(n, node)| PlannedNode { ring: n % 2, ..node }).collect();
    let tolerance = Tolerance { goes_on: random.chance(25), ..Tolerance::default() };
    PlanInput { judging, job_limit, rings, tolerance, nodes, ..input }
}

/// A run as it begins.
pub(super) fn run(input: PlanInput) -> (RunId, Run) {
    let plan = Plan::new(input.clone()).unwrap();
    let now = Moment { wall: at(0), mono: Mono::default() };
    let PlanInput { run: id, changes, job_limit, not_after, .. } = input;
    let run = Run {
        work: Work { run: id, changes, limit: job_limit / 2, not_after: not_after.since(at(0)) },
        stored: plan.nodes().iter().map(|n| (n.node, JobFact::Queued)).collect(),
        stored_places: BTreeMap::new(),
        stored_mode: Mode::Going,
        stored_looks: BTreeMap::new(),
        stored_rings: (0..input.rings.len().max(1)).map(RingProgress::begin).collect(),
        soak_began: None,
        engine: Rollout::new(plan.clone(), now),
        witness: Witness::default(),
        input,
        plan,
    };
    (id, run)
}
