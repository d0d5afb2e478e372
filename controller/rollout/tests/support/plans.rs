//! A small plan and short names for the tests of the engine.

use std::num::NonZeroU32;
use std::time::Duration;

use fleet_rollout::{
    JobFact, KnownJob, Limits, Live, Moment, Mono, Plan, PlanInput, PlannedNode, Presence, Reported,
    RingProgress, Rollout, Tolerance,
};
use fleet_types::id::{Attempt, NodeId, RunId};
use fleet_types::job::{Outcome, Phase};
use fleet_types::time::Timestamp;

pub const FIRST: Attempt = Attempt(1);
pub const MINUTE: Duration = Duration::from_mins(1);

/// The test clock: seconds after 2026-01-01T00:00:00Z.
pub fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_767_225_600_000).unwrap().plus(Duration::from_secs(seconds))
}

/// Node number `n`; the numbers sort as the nodes go.
pub fn node(n: u32) -> NodeId {
    let mut bytes = [0; 16];
    bytes[12..].copy_from_slice(&n.to_be_bytes());
    NodeId::from_slice(&bytes).unwrap()
}

/// Both clocks, so many seconds after the start.
pub fn now(seconds: u64) -> Moment {
    Moment { wall: at(seconds), mono: mono(seconds) }
}

pub fn mono(seconds: u64) -> Mono {
    Mono::new(Duration::from_secs(seconds))
}

pub fn planned(n: u32, pair: Option<&str>) -> PlannedNode {
    PlannedNode {
        node: node(n),
        name: format!("fw-{n}"),
        pair: pair.map(str::to_owned),
        site: "-".to_owned(),
        ring: 0,
    }
}

/// A node of a site.
pub fn at_site(n: u32, site: &str) -> PlannedNode {
    PlannedNode { site: site.to_owned(), ..planned(n, None) }
}

/// At most so many jobs of all runs in change; 0 for no limit.
pub fn limits(site: u32, fleet: u32) -> Limits {
    Limits { site: NonZeroU32::new(site), fleet: NonZeroU32::new(fleet) }
}

/// First starts from 0 to 3,600 s, 10 minutes a job.
pub fn input(max_parallel: u32, nodes: Vec<PlannedNode>) -> PlanInput {
    PlanInput {
        run: RunId::from_number(7),
        changes: true,
        limits: Limits::default(),
        max_parallel,
        not_before: at(0),
        not_after: at(3600),
        job_limit: 10 * MINUTE,
        max_failures: None,
        rings: vec![],
        judging: None,
        tolerance: Tolerance::default(),
        nodes,
    }
}

pub fn plan(max_parallel: u32, nodes: Vec<PlannedNode>) -> Plan {
    Plan::new(input(max_parallel, nodes)).unwrap()
}

/// What is stored of the one ring of a plain run.
pub fn one_ring() -> [(RingProgress, Mono); 1] {
    [(RingProgress::begin(0), Mono::default())]
}

/// `n` nodes without pairs.
pub fn singles(n: u32) -> Vec<PlannedNode> {
    (1..=n).map(|n| planned(n, None)).collect()
}

pub fn reported(phase: Phase) -> Option<Reported> {
    match phase {
        Phase::Accepted => Some(Reported::Accepted),
        Phase::Running => Some(Reported::Running),
        Phase::Waiting => Some(Reported::Waiting),
        Phase::RollingBack => Some(Reported::RollingBack),
        Phase::Queued | Phase::Offered | Phase::Ended(_) => None,
    }
}

/// A job in `phase`, its node online, begun at 0 if it has.
pub fn known(phase: Phase, attempt: Attempt) -> KnownJob {
    let fact = match phase {
        Phase::Queued => JobFact::Queued,
        Phase::Ended(outcome) => JobFact::Ended { attempt, outcome },
        Phase::Offered | Phase::Accepted | Phase::Running | Phase::Waiting | Phase::RollingBack => {
            JobFact::Offered { attempt, at: at(0) }
        }
    };
    let live = Live { reported: reported(phase), ends: mono(600), heard: mono(0) };
    KnownJob { fact, live: Some(live), presence: Presence::Online }
}

/// A rollout of the given phases, one node each, node 1 first.
pub fn rollout(max_parallel: u32, phases: &[Phase]) -> Rollout {
    let nodes = singles(u32::try_from(phases.len()).unwrap());
    let jobs = nodes.iter().zip(phases).map(|(n, p)| (n.node, known(*p, FIRST))).collect::<Vec<_>>();
    Rollout::restore(
        plan(max_parallel, nodes),
        fleet_rollout::Mode::Going,
        now(0),
        mono(0),
        jobs,
        [],
        one_ring(),
    )
    .unwrap()
}

/// Every phase with every outcome.
pub fn all_phases() -> Vec<Phase> {
    let open =
        [Phase::Queued, Phase::Offered, Phase::Accepted, Phase::Running, Phase::Waiting, Phase::RollingBack];
    open.into_iter().chain(Outcome::ALL.map(Phase::Ended)).collect()
}
