//! Blackouts: which nodes may not start a scheduled change now, and until when the others may.
//!
//! A blackout of any file counts for every node that it selects. `allow` names severities; no run has one in this release,
//! so that nothing is allowed by it.

use fleet_types::document::schedule::ScheduleFile;
use fleet_types::id::Name;
use fleet_types::label::{Labels, Selector};
use fleet_types::time::Timestamp;

/// The blackouts of all files.
#[derive(Debug, Clone, Default)]
pub struct Blackouts(Vec<One>);

#[derive(Debug, Clone)]
struct One {
    name: String,
    from: Timestamp,
    to: Timestamp,
    selector: Option<Selector>,
}

/// May a node start now?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Free {
    /// Yes; where an instant is given, no longer than until then.
    Until(Option<Timestamp>),
    /// No: this blackout, as `FILE/ID`.
    No(String),
}

impl Blackouts {
    /// Adds those of a file. Instants were checked when it was applied; one that cannot be read would hold for ever.
    pub fn add(&mut self, file: &ScheduleFile) {
        self.0.extend(file.blackouts.iter().map(|blackout| One {
            name: format!("{}/{}", file.name, blackout.id),
            from: blackout.from.parse().unwrap_or(Timestamp::clamped(0)),
            to: blackout.to.parse().unwrap_or(Timestamp::clamped(i64::MAX)),
            selector: blackout.selector.clone(),
        }));
    }

    /// May this node start a change at `now`, and until when?
    pub fn free(&self, name: &Name, labels: &Labels, now: Timestamp) -> Free {
        let mine = || {
            self.0
                .iter()
                .filter(|one| one.selector.as_ref().is_none_or(|selector| selector.matches(name, labels)))
        };
        match mine().find(|one| (one.from..one.to).contains(&now)) {
            Some(one) => Free::No(one.name.clone()),
            None => Free::Until(mine().map(|one| one.from).filter(|from| *from > now).min()),
        }
    }
}
