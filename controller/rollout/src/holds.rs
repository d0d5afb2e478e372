//! Pairs that are taken, over all runs.
//!
//! A hold is a record in the store, made in the commit that offers a job and removed in the commit that ends it,
//! so that two runs never change both halves of a pair, and two controllers would not either. Here is the pure
//! table of them: the runner keeps it beside its runs and the simulation beside its own, and both tell the
//! engines of every change ([`crate::Event::PairHeld`]).
//! Must never decide who goes next; the engines do.

use std::collections::{BTreeMap, BTreeSet};

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

/// The pairs that are taken, and which of them changed since the engines were told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holds {
    known: BTreeMap<String, Holder>,
    changed: BTreeSet<String>,
}

impl Holds {
    /// Notes what the store says of a pair; true when that is news.
    pub fn set(&mut self, pair: &str, holder: Option<Holder>) -> bool {
        let is_news = self.known.get(pair) != holder.as_ref();
        if is_news {
            self.changed.insert(pair.to_owned());
            match holder {
                Some(holder) => drop(self.known.insert(pair.to_owned(), holder)),
                None => drop(self.known.remove(pair)),
            }
        }
        is_news
    }

    /// Notes all that the store says: pairs that it does not name are free.
    pub fn set_all(&mut self, stored: BTreeMap<String, Holder>) {
        let gone: Vec<String> =
            self.known.keys().filter(|pair| !stored.contains_key(*pair)).cloned().collect();
        for pair in gone {
            self.set(&pair, None);
        }
        for (pair, holder) in stored {
            self.set(&pair, Some(holder));
        }
    }

    /// Who holds a pair.
    pub fn get(&self, pair: &str) -> Option<&Holder> {
        self.known.get(pair)
    }

    /// What changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed)
    }
}
