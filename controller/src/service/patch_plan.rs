//! Whether deadlines can be held: what can be patched now, ring by ring as a rollout policy says, and when each node would be
//! done. Said before a rollout is started; the engine itself is run ahead (`fleet_rollout::Rollout::forecast`).
//!
//! Starts nothing and writes nothing. A policy that could not be started is refused as at the start. Called by the edge.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_rollout::{Event, Forecast, Plan, PlanInput, PlannedNode, RingInput, Rollout};
use fleet_types::digest::Digest;
use fleet_types::document::rollout_policy::RolloutPolicy;
use fleet_types::document::{Document, DocumentKind};
use fleet_types::id::{NodeId, RunId};
use fleet_types::request::{MAX_NODES, MAX_PLAIN_RUN};
use fleet_types::time::Timestamp;
use fleet_types::view::{DeadlineState, FixState, PatchPlan, PlanMiss, PlanWay, PlannedRing};

use super::documents;
use super::patches::{self, Node};
use super::rollouts::{self, Rings};
use crate::context::Context;
use crate::error::{ControllerError, Kind, Result};
use crate::rebuild;
use crate::repo::rollouts::RingRecord;

/// Misses of one answer; who wants others narrows it down.
const MAX_MISSES: usize = 1000;
/// The shortest and the longest time that a node may be said to take.
const TAKES: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// The policy's name.
    pub policy: String,
    /// Which nodes.
    pub selector: String,
    /// How long a node takes.
    pub takes: Duration,
}

/// A node that can be patched, and the first end of what can be.
struct Patchable {
    id: NodeId,
    name: String,
    finding: String,
    due: Timestamp,
}

/// Whether the deadlines of what can be patched now can be held.
pub async fn plan(context: &Context, question: Question) -> Result<PatchPlan> {
    let now = context.storage.clock.now();
    if !TAKES.contains(&question.takes) {
        return Err(ControllerError::invalid("takes", "a node takes 1 s to 24 h"));
    }
    let (policy, digest) = policy(context, &question.policy).await?;
    let nodes = patches::nodes(context, &question.selector).await?;
    let all = nodes.len();
    let (nodes, patchable): (Vec<Node>, Vec<Patchable>) =
        nodes.into_iter().filter_map(|node| patchable(&node, now).map(|patchable| (node, patchable))).unzip();
    if nodes.is_empty() {
        return Err(ControllerError::new(
            Kind::NotFound,
            "nothing-to-patch",
            format!("of {all} chosen nodes none has a finding whose fix is in its archive"),
        )
        .fix("fleetctl patch sla says what is not known; fleetctl patch list what has no fix"));
    }
    if nodes.len() > MAX_NODES {
        return Err(ControllerError::invalid("selector", format!("it means more than {MAX_NODES} nodes")));
    }
    let known: Vec<_> = nodes.iter().map(|node| node.known.clone()).collect();
    let rings = rollouts::of_policy(&policy, digest, &context.settings, &known)?;
    let takes = question.takes;
    let usual = rings.record.rings.iter().map(RingRecord::input).collect::<Vec<_>>();
    let forecast = async |change: Change| {
        let mut changed = usual.clone();
        changed.iter_mut().for_each(change);
        ahead(context, &nodes, &rings, changed, (takes, policy.gates_shortest())).await
    };
    let as_written = forecast(|_| ()).await?;
    let judged = Judged::of(&as_written, &patchable, now);
    let mut ways = Vec::new();
    if !judged.missed.is_empty() {
        for (what, change) in WAYS {
            let misses = Judged::of(&forecast(change).await?, &patchable, now).missed.len();
            ways.push(PlanWay { what: what.to_owned(), misses: misses as u64 });
        }
    }
    Ok(judged.view(context, &rings, &as_written, ways, (&policy, takes, all - nodes.len())))
}

/// A change of a ring.
type Change = fn(&mut RingInput);

/// What an operator could change of a policy; applied to each ring.
const WAYS: [(&str, Change); 3] = [
    ("without soaks", |ring| ring.soak = Duration::ZERO),
    ("as many at once as limits and pairs allow", |ring| ring.max_parallel = None),
    ("both", |ring| {
        ring.soak = Duration::ZERO;
        ring.max_parallel = None;
    }),
];

async fn policy(context: &Context, name: &str) -> Result<(RolloutPolicy, Digest)> {
    let kind = DocumentKind::RolloutPolicy.as_str();
    let digest = documents::show(&context.storage, kind, name, 0).await?.item.digest;
    match documents::document(&context.storage, digest).await? {
        Document::RolloutPolicy(policy) => Ok((*policy, digest)),
        _ => Err(ControllerError::not_found(kind, name)),
    }
}

/// The finding of a node that must be gone first, of those that can be installed now and that nobody lets stay.
fn patchable(node: &Node, now: Timestamp) -> Option<Patchable> {
    let judged = node.findings.found.iter().filter(|found| found.is == FixState::FixInArchive);
    let judged = judged.map(|found| patches::judge(found, node, None, now));
    let open = judged.filter(|judged| !matches!(judged.state, DeadlineState::Held | DeadlineState::Nothing));
    let (due, finding) = open
        .filter_map(|judged| Some((judged.due()?, patches::ids(&judged.found.about).into_iter().next()?)))
        .min()?;
    let record = &node.known.record;
    Some(Patchable { id: record.id, name: record.name.to_string(), finding, due })
}

/// The engine run ahead over these nodes, away from the threads that serve.
async fn ahead(
    context: &Context,
    nodes: &[Node],
    rings: &Rings,
    inputs: Vec<RingInput>,
    (takes, looks): (Duration, Duration),
) -> Result<Forecast> {
    let moment = context.storage.clock.moment();
    let planned = |(node, ring): (&Node, &u32)| PlannedNode {
        node: node.known.record.id,
        name: node.known.record.name.to_string(),
        pair: node.known.record.labels.pair().map(str::to_owned),
        site: node.known.record.labels.site().to_owned(),
        ring: usize::try_from(*ring).unwrap_or(usize::MAX),
    };
    let plan = Plan::new(PlanInput {
        run: RunId::new(moment.wall, 0),
        changes: true,
        limits: rings.record.limits(context.settings.changing),
        max_parallel: u32::try_from(nodes.len()).unwrap_or(u32::MAX),
        not_before: moment.wall,
        // A start is valid for as long at most; who waits longer expires.
        not_after: moment.wall.plus(MAX_PLAIN_RUN),
        job_limit: takes,
        max_failures: None,
        judging: rings.record.judging_ms.map(Duration::from_millis),
        rings: inputs,
        tolerance: rings.record.tolerance(),
        nodes: nodes.iter().zip(&rings.of).map(planned).collect(),
    });
    let plan = plan.map_err(|problems| {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        ControllerError::invalid("rollout_policy", words.join("; "))
    })?;
    let mut rollout = Rollout::new(plan, moment);
    for node in nodes {
        let id = node.known.record.id;
        let event = Event::presence(id, rebuild::presence(&context.memory, id));
        rollout.apply(moment, &event).map_err(ControllerError::internal)?;
    }
    patches::aside(move || rollout.forecast(moment, |_| takes, looks))
        .await?
        .map_err(ControllerError::internal)
}

/// How deadlines and a forecast fit together.
struct Judged {
    in_time: u64,
    missed: Vec<PlanMiss>,
}

impl Judged {
    fn of(forecast: &Forecast, patchable: &[Patchable], now: Timestamp) -> Self {
        let (mut in_time, mut missed) = (0, Vec::new());
        for node in patchable {
            let done = forecast.done.get(&node.id).map(|after| now.plus(*after));
            if done.is_some_and(|done| done <= node.due) {
                in_time += 1;
                continue;
            }
            missed.push(PlanMiss {
                node: node.name.clone(),
                finding: node.finding.clone(),
                due: node.due,
                done,
                is_late: node.due <= now,
            });
        }
        // The worst first: never done, then by how much it is missed.
        let worst = |miss: &PlanMiss| miss.done.map(|done| std::cmp::Reverse(done.since(miss.due)));
        missed.sort_by(|a, b| {
            (a.done.is_some(), worst(a), &a.node).cmp(&(b.done.is_some(), worst(b), &b.node))
        });
        Self { in_time, missed }
    }

    fn view(
        mut self,
        context: &Context,
        rings: &Rings,
        forecast: &Forecast,
        ways: Vec<PlanWay>,
        (policy, takes, without): (&RolloutPolicy, Duration, usize),
    ) -> PatchPlan {
        let now = context.storage.clock.now();
        let mut nodes: BTreeMap<u32, u32> = BTreeMap::new();
        for ring in &rings.of {
            *nodes.entry(*ring).or_default() += 1;
        }
        let ring =
            |(number, (record, ahead)): (usize, (&RingRecord, &fleet_rollout::RingForecast))| PlannedRing {
                name: record.name.clone(),
                nodes: u32::try_from(number).ok().and_then(|number| nodes.get(&number).copied()).unwrap_or(0),
                begins: ahead.begins.map(|after| now.plus(after)),
                ends: ahead.ends.map(|after| now.plus(after)),
                waits_for_operator: ahead.waits_for_operator,
            };
        let count = self.missed.len() as u64;
        self.missed.truncate(MAX_MISSES);
        PatchPlan {
            schema: "fleet/v1/patch-plan".to_owned(),
            as_of: now,
            policy: policy.name.to_string(),
            takes_ms: u64::try_from(takes.as_millis()).unwrap_or(u64::MAX),
            rings: rings.record.rings.iter().zip(&forecast.rings).enumerate().map(ring).collect(),
            without_fix: without as u64,
            in_time: self.in_time,
            missed: self.missed,
            missed_count: count,
            ways,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z08_a_node_that_is_not_done_in_time_is_told_the_worst_first() {
        let now = Timestamp::clamped(1_795_000_000_000);
        let hours = |count| Duration::from_hours(count);
        let id = |n: u128| NodeId::from_uuid(uuid::Uuid::from_u128(n));
        let node = |n: u128, due: Timestamp| Patchable {
            id: id(n),
            name: format!("fw-{n}"),
            finding: "CVE-2026-0001".to_owned(),
            due,
        };
        let done =
            BTreeMap::from([(id(1), hours(2)), (id(2), hours(3)), (id(3), hours(9)), (id(4), hours(1))]);
        let forecast = Forecast { done, rings: vec![] };
        let nodes = [
            node(1, now.plus(hours(2))),
            node(2, now.plus(hours(2))),
            node(3, now.plus(hours(2))),
            node(4, now.minus(hours(1))),
            node(5, now.plus(hours(99))),
        ];
        let judged = Judged::of(&forecast, &nodes, now);
        assert_eq!(judged.in_time, 1, "done at the very end of it is in time");
        let told: Vec<_> = judged
            .missed
            .iter()
            .map(|miss| (miss.node.as_str(), miss.done.is_some(), miss.is_late))
            .collect();
        let expected =
            [("fw-5", false, false), ("fw-3", true, false), ("fw-4", true, true), ("fw-2", true, false)];
        assert_eq!(told, expected);
    }
}
