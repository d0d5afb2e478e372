//! The pairs that are held over all runs, as the store says, and which of them changed since the engines were told.
//!
//! The loop keeps it beside the runs and tells every engine of a change; a pass notes what it has taken.

use std::collections::BTreeSet;

use fleet_rollout::{Holder, Holds};

use crate::context::Context;
use crate::error::Result;
use crate::repo::jobs;

/// The table with its news.
#[derive(Debug, Default)]
pub struct PairHolds {
    known: Holds,
    changed: BTreeSet<String>,
}

impl PairHolds {
    /// Reads all of them anew: at start, and whenever a run is read.
    pub async fn read_all(&mut self, context: &Context) -> Result<()> {
        let stored = jobs::pair_holds(&context.repo).await?;
        let held: BTreeSet<&String> = stored.iter().map(|(pair, _)| pair).collect();
        let gone: Vec<String> = self.known.pairs().filter(|pair| !held.contains(pair)).cloned().collect();
        for pair in gone {
            self.set(&pair, None);
        }
        for (pair, holder) in stored {
            self.set(&pair, Some(holder));
        }
        Ok(())
    }

    /// Reads one of them anew.
    pub async fn read(&mut self, context: &Context, pair: &str) -> Result<()> {
        let holder = jobs::pair_hold(&context.repo, pair).await?;
        self.set(pair, holder);
        Ok(())
    }

    /// Notes what a commit has made so.
    pub fn set(&mut self, pair: &str, holder: Option<Holder>) {
        if self.known.set(pair, holder) {
            self.changed.insert(pair.to_owned());
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
