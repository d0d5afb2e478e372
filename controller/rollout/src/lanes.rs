//! Who could go next, in the order of the plan, where a site whose places are all taken holds up nobody but its own
//! nodes.
//!
//! Each limited site has a lane of its own, all other nodes share one. A lane stands in `heads` with its first node
//! while it has a free place, so that finding the next nodes looks at no node that may not go. Must never know why a
//! node is ready; `state` says which are. Called by `state`, `wanted` and `invariant`.

use std::collections::btree_set::Range;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;

use crate::holds::{Holder, Limits};
use crate::taken::Taken;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Lane {
    ready: BTreeSet<usize>,
    taken: Taken,
    /// The node with which it stands in `heads`.
    head: Option<usize>,
}

/// All lanes of a run; nodes by their place in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lanes {
    /// One for each limited site by its number in the plan, and behind them that of all other nodes.
    lanes: Vec<Lane>,
    heads: BTreeSet<(usize, usize)>,
}

impl Lanes {
    pub(crate) fn new(sites: usize, limits: Limits) -> Self {
        let lane = |at_most| Lane { ready: BTreeSet::new(), taken: Taken::new(at_most), head: None };
        let mut lanes = vec![lane(limits.site); sites];
        lanes.push(lane(None));
        Self { lanes, heads: BTreeSet::new() }
    }

    /// The lane of the nodes of a site, or of no limited one.
    fn at(&self, site: Option<usize>) -> usize {
        site.unwrap_or(self.lanes.len() - 1)
    }

    pub(crate) fn add(&mut self, site: Option<usize>, index: usize) {
        let lane = self.at(site);
        self.lanes[lane].ready.insert(index);
        self.settle(lane);
    }

    pub(crate) fn remove(&mut self, site: Option<usize>, index: usize) {
        let lane = self.at(site);
        self.lanes[lane].ready.remove(&index);
        self.settle(lane);
    }

    /// Notes who holds a place of a site; false when that is no news.
    pub(crate) fn hold(&mut self, site: usize, number: u32, holder: Option<&Holder>) -> bool {
        let is_news = self.lanes[site].taken.set(number, holder);
        self.settle(site);
        is_news
    }

    /// The places of a node's site; without a limit where that is not limited.
    pub(crate) fn taken(&self, site: Option<usize>) -> &Taken {
        &self.lanes[self.at(site)].taken
    }

    fn settle(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        let head = lane.ready.first().copied().filter(|_| lane.taken.free() > 0);
        if head != lane.head {
            if let Some(old) = lane.head {
                self.heads.remove(&(old, at));
            }
            self.heads.extend(head.map(|head| (head, at)));
            lane.head = head;
        }
    }

    /// All that are ready, whether or not their site has a free place.
    pub(crate) fn ready(&self) -> BTreeSet<usize> {
        self.lanes.iter().flat_map(|lane| lane.ready.iter().copied()).collect()
    }

    /// The nodes that may go as far as their sites say, in the order of the plan, each with the number of the place
    /// that it takes of a limited site. Costs O(log n) for each that is taken.
    pub(crate) fn in_turn(&self) -> impl Iterator<Item = (usize, Option<u32>)> {
        InTurn { lanes: &self.lanes, heads: self.heads.range(..).peekable(), begun: BTreeMap::new() }
    }
}

/// Lanes of which one node or more has gone already, by their next one.
struct InTurn<'a> {
    lanes: &'a [Lane],
    heads: Peekable<Range<'a, (usize, usize)>>,
    begun: BTreeMap<usize, Begun<'a>>,
}

struct Begun<'a> {
    ready: Peekable<Range<'a, usize>>,
    /// Of a limited site.
    numbers: Option<Peekable<Box<dyn Iterator<Item = u32> + 'a>>>,
}

impl<'a> Begun<'a> {
    fn of(lane: &'a Lane) -> Self {
        let numbers: Box<dyn Iterator<Item = u32>> = Box::new(lane.taken.numbers());
        let numbers = lane.taken.is_limited().then(|| numbers.peekable());
        Self { ready: lane.ready.range(..).peekable(), numbers }
    }

    fn has_place(&mut self) -> bool {
        self.numbers.as_mut().is_none_or(|numbers| numbers.peek().is_some())
    }
}

impl Iterator for InTurn<'_> {
    type Item = (usize, Option<u32>);

    fn next(&mut self) -> Option<Self::Item> {
        let begun = self.begun.first_key_value().map_or(usize::MAX, |(next, _)| *next);
        let mut lane = match self.heads.next_if(|(head, _)| *head < begun) {
            Some((_, lane)) => Begun::of(&self.lanes[*lane]),
            None => self.begun.pop_first()?.1,
        };
        let item = (*lane.ready.next()?, lane.numbers.as_mut().and_then(Iterator::next));
        if lane.has_place()
            && let Some(next) = lane.ready.peek().map(|next| **next)
        {
            self.begun.insert(next, lane);
        }
        Some(item)
    }
}
