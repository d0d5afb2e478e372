//! What was asked for: the nodes of a run, its limits and its times.
//!
//! Fixed for the life of the run, and with it the denominator.
//! Must never change after [`Plan::new`]. Called by whoever starts or reloads a run.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use fleet_types::id::{NodeId, RunId};
use fleet_types::time::Timestamp;

use crate::holds::{Limits, Scope};
use crate::ring::{MAX_RINGS, RingInput, RingPlan, Tolerance};

/// More nodes than this in one run are a mistake; ten times the largest fleet that is measured.
pub const MAX_NODES: usize = 1_000_000;

/// A node as selected for the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedNode {
    /// The node.
    pub node: NodeId,
    /// Its name, for reasons that people read.
    pub name: String,
    /// The pair that it belongs to (label `ha_group`), if any.
    pub pair: Option<String>,
    /// Its site (label `site`).
    pub site: String,
    /// The number of its ring, from 0.
    pub ring: usize,
}

/// The parts of a plan before they are checked.
#[derive(Debug, Clone)]
pub struct PlanInput {
    /// The run.
    pub run: RunId,
    /// Does the procedure change nodes? Only then do the pair rule and the limits hold.
    pub changes: bool,
    /// How many nodes may be in change at once, over all runs.
    pub limits: Limits,
    /// At most this many nodes in flight at once.
    pub max_parallel: u32,
    /// No node is offered its job before this instant.
    pub not_before: Timestamp,
    /// No node is offered its job at or after this instant; the end of first starts.
    pub not_after: Timestamp,
    /// The longest that a job may take once it has begun: working time, way back and final entries, as the
    /// signed documents say. Counts where the node has not said more.
    pub job_limit: Duration,
    /// New starts end once so many jobs have failed, were rolled back or got lost; `None` for no such limit.
    pub max_failures: Option<u32>,
    /// The rings of a rollout policy, in their order. None at all is the plain run: one ring of which nothing is asked.
    pub rings: Vec<RingInput>,
    /// Rings are judged by gates, and nodes may take so long to say whether they hold; `None` where there are none.
    pub judging: Option<Duration>,
    /// How many failures a ring may have.
    pub tolerance: Tolerance,
    /// The selected nodes, in any order.
    pub nodes: Vec<PlannedNode>,
}

/// What is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanProblem {
    /// No node was selected.
    #[error("no node is selected: a run needs at least one")]
    NoNodes,
    /// More than [`MAX_NODES`].
    #[error("{0} nodes are selected: a run has at most {MAX_NODES}")]
    TooManyNodes(usize),
    /// A node is listed twice.
    #[error("node {0} is selected twice")]
    Twice(NodeId),
    /// A pair without a name would bind strangers to each other.
    #[error("node {0} has a pair with an empty name: leave the pair out or name it")]
    EmptyPair(NodeId),
    /// Nothing could ever start.
    #[error("at most 0 nodes at once lets none start: allow at least 1")]
    NoneAtOnce,
    /// Nothing could ever start.
    #[error("the last start {not_after} is not after the first start {not_before}")]
    NoTime {
        /// First starts from here.
        not_before: Timestamp,
        /// First starts until here.
        not_after: Timestamp,
    },
    /// No job could do anything.
    #[error("a job limit of 0 s leaves no time for work")]
    NoWorkingTime,
    /// Nothing could ever start.
    #[error("at most 0 failures lets none start: allow at least 1, or set no limit")]
    NoFailures,
    /// More than [`MAX_RINGS`].
    #[error("{0} rings: a rollout has at most {MAX_RINGS}")]
    TooManyRings(usize),
    /// A node of a ring that there is not.
    #[error("node {0} is in ring {1}, and there are {2}")]
    NoSuchRing(NodeId, usize, usize),
}

/// A checked plan. Nodes are held in the order in which they go, by ring and in it by id, so that a plan rebuilt from
/// records in any order is the same plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub(crate) run: RunId,
    pub(crate) changes: bool,
    pub(crate) max_parallel: usize,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) job_limit: Duration,
    pub(crate) max_failures: Option<u32>,
    pub(crate) nodes: Vec<PlannedNode>,
    /// Places in `nodes`, in the order of their ids. 100,000 nodes are far below its numbers.
    by_id: Vec<u32>,
    pub(crate) rings: Vec<RingPlan>,
    pub(crate) judging: Option<Duration>,
    /// None at all in a run that only reads.
    pub(crate) limits: Limits,
    /// Where the pair rule holds.
    pub(crate) pairs: Groups,
    /// Where sites are limited.
    pub(crate) sites: Groups,
}

/// Nodes by the name of their pair or their site, names numbered as they come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Groups {
    /// For each node the number of its group, if it has one.
    pub(crate) of: Vec<Option<usize>>,
    index: BTreeMap<String, usize>,
    members: Vec<Vec<NodeId>>,
}

impl Groups {
    fn new<'a>(nodes: &'a [PlannedNode], name: impl Fn(&'a PlannedNode) -> Option<&'a str>) -> Self {
        let mut groups = Self::default();
        for node in nodes {
            let number = name(node).map(|name| {
                let next = groups.index.len();
                *groups.index.entry(name.to_owned()).or_insert(next)
            });
            if let Some(number) = number {
                groups.members.resize_with(groups.index.len(), Vec::new);
                groups.members[number].push(node.node);
            }
            groups.of.push(number);
        }
        groups
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> usize {
        self.members.len()
    }

    /// The number of a group.
    pub(crate) fn number(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    fn nodes(&self, name: &str) -> &[NodeId] {
        self.number(name).map_or(&[], |number| &self.members[number])
    }
}

impl Plan {
    /// Checks everything and reports all problems at once.
    pub fn new(input: PlanInput) -> Result<Self, Vec<PlanProblem>> {
        let mut problems = Vec::new();
        let mut nodes = input.nodes;
        nodes.sort_by_key(|n| (n.ring, n.node));
        if nodes.is_empty() {
            problems.push(PlanProblem::NoNodes);
        }
        if nodes.len() > MAX_NODES {
            problems.push(PlanProblem::TooManyNodes(nodes.len()));
        }
        let mut by_id: Vec<u32> = (0..).take(nodes.len()).collect();
        let id = |index: &u32| nodes[*index as usize].node;
        by_id.sort_by_key(id);
        for chunk in by_id.chunk_by(|a, b| id(a) == id(b)).filter(|c| c.len() > 1) {
            problems.push(PlanProblem::Twice(id(&chunk[0])));
        }
        let plain = RingInput {
            name: "all".to_owned(),
            max_parallel: None,
            soak: Duration::ZERO,
            success_percent: 0,
            is_manual: false,
        };
        let rings = if input.rings.is_empty() { vec![plain] } else { input.rings };
        if rings.len() > MAX_RINGS {
            problems.push(PlanProblem::TooManyRings(rings.len()));
        }
        let stray = nodes.iter().filter(|n| n.ring >= rings.len());
        problems.extend(stray.map(|n| PlanProblem::NoSuchRing(n.node, n.ring, rings.len())));
        let nameless = nodes.iter().filter(|n| n.pair.as_deref() == Some(""));
        problems.extend(nameless.map(|n| PlanProblem::EmptyPair(n.node)));
        if input.max_parallel == 0 {
            problems.push(PlanProblem::NoneAtOnce);
        }
        if input.not_after <= input.not_before {
            problems.push(PlanProblem::NoTime { not_before: input.not_before, not_after: input.not_after });
        }
        if input.job_limit.is_zero() {
            problems.push(PlanProblem::NoWorkingTime);
        }
        if input.max_failures == Some(0) {
            problems.push(PlanProblem::NoFailures);
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let limits = if input.changes { input.limits } else { Limits::default() };
        let rings = rings.iter().enumerate().map(|(number, ring)| {
            let of_ring = nodes.iter().filter(|n| n.ring == number).count();
            // MAX_NODES is far below.
            RingPlan::new(ring, input.tolerance, u32::try_from(of_ring).unwrap_or(u32::MAX))
        });
        let rings = rings.collect();
        let pairs = Groups::new(&nodes, |node| node.pair.as_deref().filter(|_| input.changes));
        let sites = Groups::new(&nodes, |node| limits.site.map(|_| node.site.as_str()));
        Ok(Self {
            run: input.run,
            changes: input.changes,
            // A number of nodes that this machine cannot count is no limit.
            max_parallel: usize::try_from(input.max_parallel).unwrap_or(usize::MAX),
            not_before: input.not_before,
            not_after: input.not_after,
            job_limit: input.job_limit,
            max_failures: input.max_failures,
            nodes,
            by_id,
            rings,
            judging: input.judging,
            limits,
            pairs,
            sites,
        })
    }

    /// The run that this plan is for.
    pub const fn run(&self) -> RunId {
        self.run
    }

    /// At most this many nodes in flight at once.
    pub const fn max_parallel(&self) -> usize {
        self.max_parallel
    }

    /// The nodes in the order in which they go.
    pub fn nodes(&self) -> &[PlannedNode] {
        &self.nodes
    }

    /// Of what a changing run must hold a place while one of its nodes is in flight; nothing where it only reads.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        let pairs = self.pairs.index.keys().cloned().map(Scope::Pair);
        let sites = self.sites.index.keys().cloned().map(Scope::Site);
        pairs.chain(sites).chain(self.limits.fleet.map(|_| Scope::Fleet))
    }

    /// The pair of a node, where the pair rule holds.
    pub fn pair_of(&self, node: NodeId) -> Option<&str> {
        self.nodes[self.index(node)?].pair.as_deref().filter(|_| self.changes)
    }

    /// The nodes of a pair, where the pair rule holds.
    pub fn nodes_of_pair(&self, pair: &str) -> &[NodeId] {
        self.pairs.nodes(pair)
    }

    /// The nodes of a site, where sites are limited.
    pub fn nodes_of_site(&self, site: &str) -> &[NodeId] {
        self.sites.nodes(site)
    }

    /// The place of a node in the plan.
    pub(crate) fn index(&self, node: NodeId) -> Option<usize> {
        let id = |index: &u32| self.nodes[*index as usize].node;
        self.by_id.binary_search_by_key(&node, id).ok().map(|at| self.by_id[at] as usize)
    }

    /// Where the nodes of a ring lie.
    pub(crate) fn ring_range(&self, ring: usize) -> Range<usize> {
        let begin = self.nodes.partition_point(|n| n.ring < ring);
        begin..self.nodes.partition_point(|n| n.ring <= ring)
    }
}
