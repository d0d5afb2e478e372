//! What is held for jobs that may be changing their node: pairs, places of sites and of the fleet. Who takes and frees
//! them is in [`super::jobs`]. Decides nothing.

use std::collections::BTreeMap;

use fleet_rollout::{Holder, Place, Scope};
use fleet_store::Key;
use fleet_types::id::{Attempt, Name, NodeId, RunId};
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::codec::record;
use super::jobs::JobRecord;
use super::keys::{Made, make};
use super::reader::Repo;
use crate::error::Result;

/// A pair, or a place of a site or of the fleet, that is held, by its key, and whose job it is held for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRecord {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub node_name: Name,
    /// The attempt.
    pub attempt: Attempt,
    /// When the job was offered.
    pub since: Timestamp,
}
record!(HoldRecord, "hold", 1);

impl HoldRecord {
    /// The hold for a job that was offered.
    pub fn of(job: &JobRecord) -> Self {
        Self {
            run: job.run,
            node: job.node,
            node_name: job.node_name.clone(),
            attempt: job.attempt,
            since: job.offered.unwrap_or_else(|| Timestamp::clamped(0)),
        }
    }

    /// Is it for this job?
    pub fn is_of(&self, job: &JobRecord) -> bool {
        self.run == job.run && self.node == job.node
    }

    /// As the engine knows it.
    pub fn holder(&self) -> Holder {
        Holder { run: self.run, node: self.node, name: self.node_name.to_string(), attempt: self.attempt }
    }
}

/// Prefix of all that is held.
pub const ALL: &str = "hold/";

/// Says that every job in flight that was offered before there were holds has its own.
pub fn pairs_made() -> Made {
    make("meta/pair-holds-made".to_owned())
}

/// The hold of a pair, or of a place of a site or of the fleet: there while a job may be changing its node.
pub fn key(place: &Place) -> Made {
    let number = place.number;
    make(match &place.scope {
        Scope::Pair(pair) => format!("{ALL}pair/{pair}"),
        Scope::Site(site) => format!("{ALL}site/{site}/{number:010}"),
        Scope::Fleet => format!("{ALL}fleet/{number:010}"),
    })
}

/// What is held by a key below [`ALL`]; `None` when the key is of another shape.
pub fn place_in(key: &Key) -> Option<Place> {
    let text = std::str::from_utf8(key.as_bytes().strip_prefix(ALL.as_bytes())?).ok()?;
    let (kind, rest) = text.split_once('/')?;
    let (scope, number) = match kind {
        "pair" => return Some(Place::pair(rest.to_owned())),
        "site" => rest.rsplit_once('/').map(|(site, number)| (Scope::Site(site.to_owned()), number))?,
        "fleet" => (Scope::Fleet, rest),
        _ => return None,
    };
    Some(Place { scope, number: number.parse().ok()? })
}

/// All that is held, and for whose job.
pub async fn holds(repo: &Repo) -> Result<BTreeMap<Place, Holder>> {
    let stored = repo.all::<HoldRecord>(ALL).await?;
    let named = stored.into_iter().filter_map(|(key, hold)| Some((place_in(&key)?, hold.record.holder())));
    Ok(named.collect())
}

/// Who holds a place.
pub async fn hold(repo: &Repo, place: &Place) -> Result<Option<Holder>> {
    Ok(repo.get::<HoldRecord>(&key(place)?).await?.map(|hold| hold.record.holder()))
}
