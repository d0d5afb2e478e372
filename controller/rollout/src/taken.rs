//! The places of one limit as an engine knows them: which are taken, for whose jobs, and which is the next one.
//!
//! More may be taken than the limit allows, after an operator lowered it: then none is free until so many jobs have
//! ended. Must never decide who goes. Called by `lanes`, `state` and `blocked`.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use crate::blocked::BlockReason;
use crate::holds::{Holder, Scope};

/// Holders that a reason names; the rest is counted. More names would not help whoever reads one line.
const NAMED: usize = 5;

/// The places of one limit, or of none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Taken {
    at_most: Option<u32>,
    by: BTreeMap<u32, Holder>,
    /// Free numbers below the highest one that is taken.
    gaps: BTreeSet<u32>,
}

impl Taken {
    pub(crate) fn new(at_most: Option<NonZeroU32>) -> Self {
        Self { at_most: at_most.map(NonZeroU32::get), ..Self::default() }
    }

    pub(crate) const fn is_limited(&self) -> bool {
        self.at_most.is_some()
    }

    /// Notes who holds a place; false when that is no news.
    pub(crate) fn set(&mut self, number: u32, holder: Option<&Holder>) -> bool {
        if self.by.get(&number) == holder {
            return false;
        }
        let end = self.end();
        if let Some(holder) = holder {
            self.by.insert(number, holder.clone());
            self.gaps.remove(&number);
            self.gaps.extend(end..number);
        } else {
            self.by.remove(&number);
            self.gaps.insert(number);
            let end = self.end();
            drop(self.gaps.split_off(&end));
        }
        true
    }

    /// The numbers that are taken.
    pub(crate) fn held(&self) -> impl Iterator<Item = u32> {
        self.by.keys().copied()
    }

    /// The number behind the highest one that is taken.
    fn end(&self) -> u32 {
        self.by.last_key_value().map_or(0, |(last, _)| last.saturating_add(1))
    }

    /// How many are free.
    pub(crate) fn free(&self) -> usize {
        self.at_most.map_or(usize::MAX, |at_most| {
            usize::try_from(at_most).unwrap_or(usize::MAX).saturating_sub(self.by.len())
        })
    }

    /// The free numbers, lowest first; as many as there are free ones, since fewer are taken than there are numbers.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> {
        let at_most = self.at_most.unwrap_or(0);
        self.gaps.iter().copied().chain(self.end()..).take_while(move |n| *n < at_most).take(self.free())
    }

    /// Is one of the places taken for this very job?
    pub(crate) fn has(&self, is_own: impl Fn(&Holder) -> bool) -> bool {
        self.by.values().any(is_own)
    }

    /// The places that are taken for it.
    pub(crate) fn of(&self, is_own: impl Fn(&Holder) -> bool) -> impl Iterator<Item = u32> {
        self.by.iter().filter(move |(_, holder)| is_own(holder)).map(|(number, _)| *number)
    }

    /// Why nobody gets a place; `None` while one is free.
    pub(crate) fn reason(&self, scope: impl FnOnce() -> Scope) -> Option<BlockReason> {
        let at_most = self.at_most.filter(|_| self.free() == 0)?;
        let by = self.by.values().take(NAMED).map(|holder| holder.name.clone()).collect();
        Some(BlockReason::NoPlace { scope: scope(), taken: self.by.len(), at_most, by })
    }
}

#[cfg(test)]
mod tests {
    use fleet_types::id::{Attempt, NodeId, RunId};

    use super::*;

    fn holder() -> Holder {
        let node = NodeId::from_slice(&[1; 16]).unwrap();
        Holder { run: RunId::from_number(1), node, name: "fw-1".to_owned(), attempt: Attempt(1) }
    }

    #[test]
    fn the_lowest_free_numbers_come_first_and_never_more_than_are_free() {
        let mut taken = Taken::new(NonZeroU32::new(4));
        let numbers = |taken: &Taken| taken.numbers().collect::<Vec<_>>();
        assert_eq!(numbers(&taken), [0, 1, 2, 3]);
        assert!(taken.set(1, Some(&holder())) && !taken.set(1, Some(&holder())));
        assert_eq!(numbers(&taken), [0, 2, 3]);
        // Two of the time before the limit was lowered: they count, although their numbers are none of ours.
        taken.set(9, Some(&holder()));
        taken.set(6, Some(&holder()));
        assert_eq!((numbers(&taken), taken.free()), (vec![0], 1));
        taken.set(0, Some(&holder()));
        assert_eq!((numbers(&taken), taken.free()), (vec![], 0));
        taken.set(9, None);
        assert_eq!(numbers(&taken), [2]);
        // Whatever came in between, the same places are the same state.
        for number in [0, 1, 6] {
            assert!(taken.set(number, None) && !taken.set(number, None));
        }
        assert_eq!(taken, Taken::new(NonZeroU32::new(4)));
        assert_eq!(numbers(&Taken::new(None)), [0; 0]);
        assert_eq!(Taken::new(None).free(), usize::MAX);
    }
}
