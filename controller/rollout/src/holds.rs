//! What is taken for jobs, over all runs: pairs, and places of the limits of a site and of the fleet.
//!
//! A hold is a record in the store, made in the commit that offers a job and removed in the commit that ends it,
//! so that two runs never change both halves of a pair nor more nodes than a limit allows, and two controllers
//! would not either. Here is the pure table of them: the runner keeps it beside its runs and the simulation beside
//! its own, and both tell the engines of every change ([`crate::Event::Held`]).
//! Must never decide who goes next; the engines do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;

use fleet_types::id::{Attempt, NodeId, RunId};
use serde::{Deserialize, Serialize};

/// How many jobs of all runs may be changing nodes at once; `None` for no such limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Of one site.
    pub site: Option<NonZeroU32>,
    /// Of the whole fleet.
    pub fleet: Option<NonZeroU32>,
}

/// What is limited over all runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The nodes that stand in for each other: one at a time, always.
    Pair(String),
    /// The nodes of one site.
    Site(String),
    /// All nodes.
    Fleet,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pair(name) => write!(f, "pair {name}"),
            Self::Site(name) => write!(f, "site {name}"),
            Self::Fleet => f.write_str("fleet"),
        }
    }
}

/// One place of what is limited. Whoever takes one takes the lowest that is free, so that of two who take the last
/// one at once the store refuses the second.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Of what.
    pub scope: Scope,
    /// From 0; a pair has this one only.
    pub number: u32,
}

impl Place {
    /// A pair's only one.
    pub const fn pair(name: String) -> Self {
        Self { scope: Scope::Pair(name), number: 0 }
    }
}

/// Whose job a place is taken for.
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

/// The places that are taken, and which of them changed since the engines were told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holds {
    known: BTreeMap<Scope, BTreeMap<u32, Holder>>,
    changed: BTreeSet<Place>,
}

impl Holds {
    /// Notes what the store says of a place; true when that is news.
    pub fn set(&mut self, place: &Place, holder: Option<Holder>) -> bool {
        let is_news = self.get(place) != holder.as_ref();
        if is_news {
            self.changed.insert(place.clone());
            let taken = self.known.entry(place.scope.clone()).or_default();
            match holder {
                Some(holder) => drop(taken.insert(place.number, holder)),
                None => drop(taken.remove(&place.number)),
            }
            if taken.is_empty() {
                self.known.remove(&place.scope);
            }
        }
        is_news
    }

    /// Notes all that the store says: places that it does not name are free.
    pub fn set_all(&mut self, stored: BTreeMap<Place, Holder>) {
        let gone: Vec<Place> =
            self.all().map(|(place, _)| place).filter(|place| !stored.contains_key(place)).collect();
        for place in gone {
            self.set(&place, None);
        }
        for (place, holder) in stored {
            self.set(&place, Some(holder));
        }
    }

    /// Who holds a place.
    pub fn get(&self, place: &Place) -> Option<&Holder> {
        self.known.get(&place.scope)?.get(&place.number)
    }

    /// What is taken of one scope.
    pub fn of(&self, scope: &Scope) -> impl Iterator<Item = (Place, &Holder)> {
        self.known.get_key_value(scope).into_iter().flat_map(places)
    }

    /// The lowest place of a scope that is free, whatever its limit.
    pub fn lowest_free(&self, scope: &Scope) -> Place {
        let taken = self.known.get(scope);
        let number =
            (0..=u32::MAX).find(|number| taken.is_none_or(|taken| !taken.contains_key(number))).unwrap_or(0);
        Place { scope: scope.clone(), number }
    }

    /// All that is taken.
    pub fn all(&self) -> impl Iterator<Item = (Place, &Holder)> {
        self.known.iter().flat_map(places)
    }

    /// What changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<Place> {
        std::mem::take(&mut self.changed)
    }
}

fn places<'a>(
    (scope, taken): (&'a Scope, &'a BTreeMap<u32, Holder>),
) -> impl Iterator<Item = (Place, &'a Holder)> {
    taken.iter().map(|(number, holder)| (Place { scope: scope.clone(), number: *number }, holder))
}
