//! Who could go next, in the order of the plan, where a site whose places are all taken holds up nobody but its own
//! nodes, and a ring that has not begun or has no slot nobody but its own.
//!
//! Each limited site has a lane of its own in each ring, all other nodes of the ring share one. A lane stands in `heads`
//! with its first node while its site has a free place, so that finding the next nodes looks at no node that may not go.
//! Nodes lie in the plan ring after ring: a ring is a range of `heads`, and opening one costs nothing.
//! Must never know why a node is ready; `state` says which are. Called by `state`, `wanted` and `invariant`.

use std::collections::btree_set::Range;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::ops;

use crate::holds::{Holder, Limits};
use crate::taken::Taken;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Lane {
    ready: BTreeSet<usize>,
    /// The node with which it stands in `heads`.
    head: Option<usize>,
}

/// All lanes of a run; nodes by their place in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lanes {
    /// Ring after ring; in each, one for each limited site by its number in the plan, and behind them that of all other
    /// nodes.
    all: Vec<Lane>,
    /// The places of each limited site, and behind them those of no limit.
    taken: Vec<Taken>,
    heads: BTreeSet<(usize, usize)>,
}

impl Lanes {
    pub(crate) fn new(rings: usize, sites: usize, limits: Limits) -> Self {
        let mut taken = vec![Taken::new(limits.site); sites];
        taken.push(Taken::new(None));
        let all = vec![Lane { ready: BTreeSet::new(), head: None }; rings * taken.len()];
        Self { all, taken, heads: BTreeSet::new() }
    }

    /// The place of a site, or of no limited one, among the places.
    fn place(&self, site: Option<usize>) -> usize {
        site.unwrap_or(self.taken.len() - 1)
    }

    fn at(&self, (ring, site): (usize, Option<usize>)) -> usize {
        ring * self.taken.len() + self.place(site)
    }

    pub(crate) fn add(&mut self, lane: (usize, Option<usize>), index: usize) {
        let lane = self.at(lane);
        self.all[lane].ready.insert(index);
        self.settle(lane);
    }

    pub(crate) fn remove(&mut self, lane: (usize, Option<usize>), index: usize) {
        let lane = self.at(lane);
        self.all[lane].ready.remove(&index);
        self.settle(lane);
    }

    /// Notes who holds a place of a site; false when that is no news.
    pub(crate) fn hold(&mut self, site: usize, number: u32, holder: Option<&Holder>) -> bool {
        let is_news = self.taken[site].set(number, holder);
        (site..self.all.len()).step_by(self.taken.len()).for_each(|lane| self.settle(lane));
        is_news
    }

    /// The places of a node's site; without a limit where that is not limited.
    pub(crate) fn taken(&self, site: Option<usize>) -> &Taken {
        &self.taken[self.place(site)]
    }

    fn settle(&mut self, at: usize) {
        let (free, lane) = (self.taken[at % self.taken.len()].free(), &mut self.all[at]);
        let head = lane.ready.first().copied().filter(|_| free > 0);
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
        self.all.iter().flat_map(|lane| lane.ready.iter().copied()).collect()
    }

    /// The nodes that may go as far as their sites say, in the order of the plan, each with the number of the place
    /// that it takes of a limited site: of each range of nodes at most so many. Costs O(log n) for each that is taken.
    pub(crate) fn in_turn(
        &self,
        ranges: impl Iterator<Item = (ops::Range<usize>, usize)>,
    ) -> impl Iterator<Item = (usize, Option<u32>)> {
        let heads = self.heads.range((0, 0)..(0, 0)).peekable();
        InTurn { of: self, ranges, left: 0, heads, begun: BTreeMap::new(), numbers: BTreeMap::new() }
    }
}

type Numbers<'a> = Peekable<Box<dyn Iterator<Item = u32> + 'a>>;

struct InTurn<'a, R> {
    of: &'a Lanes,
    ranges: R,
    /// So many more of the present range.
    left: usize,
    heads: Peekable<Range<'a, (usize, usize)>>,
    /// Lanes of which one node or more has gone already, by their next one.
    begun: BTreeMap<usize, (usize, Peekable<Range<'a, usize>>)>,
    /// The free places of limited sites from which one was given already: several ranges take from them.
    numbers: BTreeMap<usize, Numbers<'a>>,
}

impl<'a, R> InTurn<'a, R> {
    /// The free places of the site of a lane; `None` where there is no limit.
    fn numbers(&mut self, lane: usize) -> Option<&mut Numbers<'a>> {
        let site = lane % self.of.taken.len();
        let taken = &self.of.taken[site];
        let begin = || {
            let numbers: Box<dyn Iterator<Item = u32> + 'a> = Box::new(taken.numbers());
            numbers.peekable()
        };
        taken.is_limited().then(|| self.numbers.entry(site).or_insert_with(begin))
    }

    fn has_place(&mut self, lane: usize) -> bool {
        self.numbers(lane).is_none_or(|numbers| numbers.peek().is_some())
    }

    /// The next node of the present range.
    fn next_in_range(&mut self) -> Option<(usize, Option<u32>)> {
        loop {
            let begun = self.begun.first_key_value().map_or(usize::MAX, |(next, _)| *next);
            let (lane, mut ready) = match self.heads.next_if(|(head, _)| *head < begun) {
                Some((_, lane)) => (*lane, self.of.all[*lane].ready.range(..).peekable()),
                None => self.begun.pop_first()?.1,
            };
            // A range before this one may have taken the last place.
            if !self.has_place(lane) {
                continue;
            }
            let item = (*ready.next()?, self.numbers(lane).and_then(Iterator::next));
            if self.has_place(lane)
                && let Some(next) = ready.peek().map(|next| **next)
            {
                self.begun.insert(next, (lane, ready));
            }
            return Some(item);
        }
    }
}

impl<R: Iterator<Item = (ops::Range<usize>, usize)>> Iterator for InTurn<'_, R> {
    type Item = (usize, Option<u32>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.left > 0
                && let Some(item) = self.next_in_range()
            {
                self.left -= 1;
                return Some(item);
            }
            let (range, at_most) = self.ranges.next()?;
            self.heads = self.of.heads.range((range.start, 0)..(range.end, 0)).peekable();
            self.begun.clear();
            self.left = at_most;
        }
    }
}
