//! Pairs that are taken, over all runs.
//!
//! A hold is a record in the store, made in the commit that offers a job and removed in the commit that ends it,
//! so that two runs never change both halves of a pair, and two controllers would not either. Here is the pure
//! table of them: the runner keeps it beside its runs and the simulation beside its own, and both tell the
//! engines of every change ([`crate::Event::PairHeld`]).
//! Must never decide who goes next; the engines do.

use std::collections::BTreeMap;

use fleet_types::id::{Attempt, NodeId, RunId};

/// Whose job a pair is taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: NodeId,
    /// Its name, for showing.
    pub name: String,
    /// Which try.
    pub attempt: Attempt,
}

/// The pairs that are taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holds(BTreeMap<String, Holder>);

impl Holds {
    /// Notes what the store says of a pair; true when that is news.
    pub fn set(&mut self, pair: &str, holder: Option<Holder>) -> bool {
        match holder {
            Some(holder) if self.0.get(pair) == Some(&holder) => false,
            Some(holder) => {
                self.0.insert(pair.to_owned(), holder);
                true
            }
            None => self.0.remove(pair).is_some(),
        }
    }

    /// The pairs that are held.
    pub fn pairs(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// Who holds a pair.
    pub fn get(&self, pair: &str) -> Option<&Holder> {
        self.0.get(pair)
    }
}
