//! A standing order made ready to be decided on: its schedule, the times of each zone, its rules.
//!
//! Everything comes from signed documents, by digest, so that it never changes while the order stands. Decides nothing.
//! Called by the scheduler and by the views of schedules.

use fleet_calendar::{Times, UTC, Zones};
use fleet_schedule::Rules;
use fleet_types::document::Document;
use fleet_types::document::schedule::{Schedule, ScheduleFile};
use fleet_types::id::NodeId;
use fleet_types::label::request_means;

use crate::context::{Context, Storage};
use crate::error::{ControllerError, Result};
use crate::fleet::node_cache::Known;
use crate::repo::standing_orders::OrderRecord;
use crate::repo::ticks::Lane;
use crate::service::documents;

/// An order, ready.
pub struct Prepared {
    /// The order.
    pub record: OrderRecord,
    /// Its file.
    pub file: ScheduleFile,
    /// Its procedure's name.
    pub procedure: fleet_types::id::Name,
    /// Does its procedure change nodes?
    pub changes: bool,
    /// Does each node live in the zone of its site?
    pub by_site: bool,
    /// One for each zone.
    pub lanes: Vec<PreparedLane>,
}

/// A schedule in one zone, ready.
pub struct PreparedLane {
    /// Which.
    pub lane: Lane,
    /// When it ticks.
    pub times: Times,
    /// What its file says.
    pub rules: Rules,
}

impl Prepared {
    /// Reads what an order refers to.
    pub async fn of(storage: &Storage, record: OrderRecord) -> Result<Self> {
        let order = &record.order;
        let Document::Schedule(file) = documents::document(storage, order.file).await? else {
            return Err(other("file", "schedules"));
        };
        let Document::Procedure(procedure) = documents::document(storage, order.procedure).await? else {
            return Err(other("procedure", "a procedure"));
        };
        let policy = match order.rollout_policy {
            None => None,
            Some(digest) => match documents::document(storage, digest).await? {
                Document::RolloutPolicy(policy) => policy.late_nodes,
                _ => return Err(other("rollout_policy", "a rollout policy")),
            },
        };
        let invalid = |error: &dyn std::fmt::Display| ControllerError::invalid("schedule", error);
        let schedule = order.schedule_in(&file).map_err(|error| invalid(&error))?;
        let zones = Zones::of(&file, schedule).map_err(|error| invalid(&error))?;
        let longest = procedure.changes.then(|| procedure.longest());
        let lane = |zone: &str| -> Result<PreparedLane> {
            let lane =
                Lane { file: record.file.clone(), schedule: order.schedule.clone(), zone: zone.to_owned() };
            let zone = zone.parse().map_err(|error| invalid(&error))?;
            let times = Times::of(&file, schedule, zone).map_err(|error| invalid(&error))?;
            Ok(PreparedLane { times, rules: Rules::of(schedule, &lane.to_string(), policy, longest), lane })
        };
        let lanes = zones.all().into_iter().map(lane).collect::<Result<Vec<_>>>()?;
        let by_site = zones.by_site();
        Ok(Self {
            procedure: procedure.name.clone(),
            changes: procedure.changes,
            by_site,
            lanes,
            file: *file,
            record,
        })
    }

    /// The schedule in its file.
    pub fn schedule(&self) -> Option<&Schedule> {
        self.record.order.schedule_in(&self.file).ok()
    }

    /// Nodes that a lane means and that take work now, by id.
    pub fn nodes(&self, context: &Context, lane: &Lane) -> Vec<NodeId> {
        let zones = self.schedule().and_then(|schedule| Zones::of(&self.file, schedule).ok());
        let zone_of = |known: &Known| zones.map_or(UTC, |zones| zones.of_node(&known.record.labels));
        let means = |known: &Known| {
            known.takes_work()
                && request_means(&self.record.order.selector, &known.record.name, &known.record.labels)
                    .unwrap_or(false)
                && zone_of(known) == lane.zone
        };
        let mut nodes = context.memory.node_cache.ids(means);
        nodes.sort_unstable();
        nodes
    }
}

fn other(what: &str, expected: &str) -> ControllerError {
    ControllerError::invalid(&format!("order.{what}"), format!("the digest is not of {expected}"))
}
