//! Who works when, over all scripted agents of a story: the truth that caps and the pair rule are judged by.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use fleet_types::id::RunId;

#[derive(Debug, Default)]
struct Inner {
    working: BTreeMap<(RunId, String), Option<String>>,
    peaks: BTreeMap<RunId, usize>,
    both_of_a_pair: Vec<String>,
}

/// Shared by the agents of a story.
#[derive(Debug, Default)]
pub struct Activity(Mutex<Inner>);

impl Activity {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A node begins to work for a run.
    pub fn begin(&self, run: RunId, node: &str, pair: Option<&str>) {
        self.with(|inner| {
            if let Some(pair) = pair {
                let partner = inner.working.iter().find(|((other_run, other), other_pair)| {
                    *other_run == run && other != node && other_pair.as_deref() == Some(pair)
                });
                if let Some(((_, partner), _)) = partner {
                    let text = format!("{node} began run {run} while its partner {partner} worked");
                    inner.both_of_a_pair.push(text);
                }
            }
            inner.working.insert((run, node.to_owned()), pair.map(str::to_owned));
            let now = inner.working.keys().filter(|(other, _)| *other == run).count();
            let peak = inner.peaks.entry(run).or_default();
            *peak = (*peak).max(now);
        });
    }

    /// It has ended.
    pub fn end(&self, run: RunId, node: &str) {
        self.with(|inner| inner.working.remove(&(run, node.to_owned())));
    }

    /// Most nodes that worked at once for a run.
    pub fn peak(&self, run: RunId) -> usize {
        self.with(|inner| inner.peaks.get(&run).copied().unwrap_or(0))
    }

    /// Times that both nodes of a pair worked at once for one run.
    pub fn both_of_a_pair(&self) -> Vec<String> {
        self.with(|inner| inner.both_of_a_pair.clone())
    }
}
