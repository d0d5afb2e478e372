//! Standing orders: the one that stands for each schedule of each file, by the names of both. Its signed bytes lie among
//! the documents, and stay there when another takes its place: runs refer to them.
//!
//! Decides nothing; called by `service/standing_orders`, the scheduler and retention.

use fleet_store::Batch;
use fleet_types::digest::Digest;
use fleet_types::document::Id;
use fleet_types::id::Name;
use fleet_types::seal::{Envelope, KeyId};
use fleet_types::standing_order::StandingOrder;
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::codec::record;
use super::documents;
use super::keys::{Made, make};
use super::reader::{BatchExt as _, Repo, Stored};
use crate::error::{ControllerError, Result};

/// What stands for a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRecord {
    /// Name of the file of schedules.
    pub file: Name,
    /// Digest of the order: its signed bytes lie under it.
    pub digest: Digest,
    /// What was signed.
    pub order: StandingOrder,
    /// Key that signed it.
    pub key: KeyId,
    /// Name of the person, at the time.
    pub signed_by: Name,
    /// When it was taken here.
    pub taken: Timestamp,
}
record!(OrderRecord, "standing order", 1);

impl OrderRecord {
    /// As people write the schedule: `FILE/ID`.
    pub fn schedule(&self) -> String {
        format!("{}/{}", self.file, self.order.schedule)
    }
}

/// Prefix of all of them.
pub const ALL: &str = "standing-order/";

/// Prefix of those of a file.
pub fn of_file(file: &str) -> String {
    format!("{ALL}{file}/")
}

/// The order of a schedule.
pub fn key(file: &Name, schedule: &Id) -> Made {
    make(format!("{ALL}{file}/{schedule}"))
}

/// All that stand, by file and schedule; those that have ended and were not taken away yet among them.
pub async fn all(repo: &Repo) -> Result<Vec<Stored<OrderRecord>>> {
    Ok(repo.all::<OrderRecord>(ALL).await?.into_iter().map(|(_, stored)| stored).collect())
}

/// What stands for a schedule.
pub async fn get(repo: &Repo, file: &Name, schedule: &Id) -> Result<Option<Stored<OrderRecord>>> {
    repo.get(&key(file, schedule)?).await
}

/// Writes an order in the place of the one that was seen there, or as the first one, with its signed bytes.
pub fn put(
    batch: Batch,
    seen: Option<&Stored<OrderRecord>>,
    order: &OrderRecord,
    envelope: &Envelope,
) -> Result<Batch> {
    let place = key(&order.file, &order.order.schedule)?;
    let batch = match seen {
        Some(seen) => batch.replace_record(place, seen.write_id, order)?,
        None => batch.create_record(place, order)?,
    };
    let stored = serde_json::to_vec(envelope).map_err(ControllerError::internal)?;
    batch.put_object(&documents::content(&order.digest)?, &stored)
}

/// Takes the order that was seen away; its signed bytes stay.
pub fn remove(batch: Batch, seen: &Stored<OrderRecord>) -> Result<Batch> {
    Ok(batch.remove(key(&seen.record.file, &seen.record.order.schedule)?, seen.write_id))
}
