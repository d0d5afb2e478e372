//! Standing orders: an operator signs once what a schedule may start for up to 400 days, and each of its ticks is a request
//! made from that, word for word (security-and-delivery §1.15).
//!
//! The signed file of schedules says when and where; the order binds it to the very procedure, profile and rollout policy.
//! Controller and node make the request of a tick with the same function: what differs is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::document::Id;
use crate::document::schedule::{Schedule, ScheduleFile};
use crate::id::{FleetId, RunId};
use crate::request::{MAX_PLAIN_RUN, NodeList, REQUEST_SCHEMA, Request, Verb};
use crate::time::{Span, Timestamp};

/// Schema of standing orders.
pub const STANDING_ORDER_SCHEMA: &str = "fleet/v1/standing-order";
/// The longest that one may hold (security-and-delivery §1.15).
pub const MAX_STANDING: Duration = Duration::from_hours(400 * 24);
/// Everybody is told so long before the end (security-and-delivery §1.15).
pub const WARN_BEFORE_END: Duration = Duration::from_hours(30 * 24);

/// What an operator signs for one schedule of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandingOrder {
    /// [`STANDING_ORDER_SCHEMA`].
    pub schema: String,
    /// The fleet that it is for.
    pub fleet: FleetId,
    /// Digest of the file of schedules: times, windows, selector and parameters are there.
    pub file: Digest,
    /// Number of the file under its name, as the operator saw it.
    pub file_revision: u32,
    /// The schedule, by its id in the file.
    pub schedule: Id,
    /// Digest of the procedure.
    pub procedure: Digest,
    /// Number of the procedure under its name.
    pub procedure_revision: u32,
    /// Digest of its profile.
    pub profile: Digest,
    /// Number of the profile under its name.
    pub profile_revision: u32,
    /// Digest of the rollout policy that the schedule names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout_policy: Option<Digest>,
    /// The nodes: the schedule's selector, and where it has none that of the procedure. Words count, not a list: a node that
    /// gets the labels later is meant from then on.
    pub selector: String,
    /// At most this many nodes at once.
    pub max_parallel: u32,
    /// A run stops starting after so many failures; no limit when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<u32>,
    /// No tick before this instant.
    pub not_before: Timestamp,
    /// No tick after this instant.
    pub not_after: Timestamp,
}

/// Which tick of which order a request carries out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tick {
    /// Digest of the standing order.
    pub order: Digest,
    /// The time for which the schedule calls, whenever it is carried out.
    pub at: Timestamp,
}

/// What is the controller's to choose for the run of a tick.
#[derive(Debug, Clone)]
pub struct TickRun {
    /// The run.
    pub run: RunId,
    /// Its nodes.
    pub nodes: NodeList,
    /// Not before this instant.
    pub not_before: Timestamp,
    /// No first start on a node after this instant.
    pub not_after: Timestamp,
}

/// What is wrong with a standing order, or with a request that refers to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StandingError {
    /// Another schema.
    #[error("schema {0:?} is not known here; expected {STANDING_ORDER_SCHEMA}")]
    Schema(String),
    /// Another fleet.
    #[error("the standing order is for fleet {0}")]
    OtherFleet(FleetId),
    /// Ends before it begins, or lasts too long.
    #[error("the standing order holds from {from} to {to}: it must end after it begins and within 400 days")]
    Validity {
        /// Begin.
        from: Timestamp,
        /// End.
        to: Timestamp,
    },
    /// Zero at once.
    #[error("max_parallel is 0; at least 1 node must be allowed at once")]
    Parallel,
    /// It would stop before it began.
    #[error("max_failures is 0; leave it out for no limit")]
    Failures,
    /// The file has no such schedule.
    #[error("the file of schedules has no \"{0}\"")]
    NoSchedule(String),
    /// The schedule is switched off in the file.
    #[error("schedule \"{0}\" is not enabled in its file")]
    NotEnabled(String),
    /// The tick lies outside of what was signed.
    #[error("the tick of {at} is outside of the standing order, which holds from {from} to {to}")]
    TickOutside {
        /// The tick.
        at: Timestamp,
        /// Begin.
        from: Timestamp,
        /// End.
        to: Timestamp,
    },
    /// Its run begins before the tick, or would go on after all that the schedule allows.
    #[error("a run from {from} to {to} is not in time for the tick of {at}")]
    NotInTime {
        /// The tick.
        at: Timestamp,
        /// Begin of the run.
        from: Timestamp,
        /// End of the run.
        to: Timestamp,
    },
    /// The request is not the one that follows from the order.
    #[error("the request is not what its standing order makes of this tick")]
    Differs,
}

impl StandingOrder {
    /// Checks everything that needs no clock and no other record.
    pub fn check(&self, fleet: FleetId) -> Result<(), StandingError> {
        if self.schema != STANDING_ORDER_SCHEMA {
            return Err(StandingError::Schema(self.schema.chars().take(64).collect()));
        }
        if self.fleet != fleet {
            return Err(StandingError::OtherFleet(self.fleet));
        }
        let too_long = self.not_after.since(self.not_before) > MAX_STANDING;
        if self.not_after <= self.not_before || too_long {
            return Err(StandingError::Validity { from: self.not_before, to: self.not_after });
        }
        if self.max_parallel == 0 {
            return Err(StandingError::Parallel);
        }
        if self.max_failures == Some(0) {
            return Err(StandingError::Failures);
        }
        Ok(())
    }

    /// The schedule in its file.
    pub fn schedule_in<'f>(&self, file: &'f ScheduleFile) -> Result<&'f Schedule, StandingError> {
        let name = || self.schedule.to_string();
        let found = file.schedules.iter().find(|schedule| schedule.id == self.schedule);
        let found = found.ok_or_else(|| StandingError::NoSchedule(name()))?;
        if found.enabled { Ok(found) } else { Err(StandingError::NotEnabled(name())) }
    }

    /// The request of one tick; `order` is the digest of this order, `schedule` is [`Self::schedule_in`] its file.
    pub fn request(
        &self,
        order: Digest,
        file: &ScheduleFile,
        at: Timestamp,
        run: TickRun,
    ) -> Result<Request, StandingError> {
        let schedule = self.schedule_in(file)?;
        let TickRun { run, nodes, not_before, not_after } = run;
        if !(self.not_before..self.not_after).contains(&at) {
            return Err(StandingError::TickOutside { at, from: self.not_before, to: self.not_after });
        }
        if not_before < at || not_after <= not_before || not_after > at.plus(lasts(schedule)) {
            return Err(StandingError::NotInTime { at, from: not_before, to: not_after });
        }
        Ok(Request {
            schema: REQUEST_SCHEMA.to_owned(),
            fleet: self.fleet,
            run,
            verb: Verb::Run,
            procedure: self.procedure,
            procedure_revision: Some(self.procedure_revision),
            profile: self.profile,
            profile_revision: Some(self.profile_revision),
            older_revisions: false,
            params: params(schedule),
            selector: self.selector.clone(),
            nodes,
            plan: None,
            rollout_policy: self.rollout_policy,
            max_parallel: self.max_parallel,
            max_failures: self.max_failures,
            not_before,
            not_after,
            tick: Some(Tick { order, at }),
            reason: format!("schedule {}/{}", file.name, schedule.id),
        })
    }

    /// Is `request` what this order makes of its tick?
    pub fn made(&self, order: Digest, file: &ScheduleFile, request: &Request) -> Result<(), StandingError> {
        let tick = request.tick.filter(|tick| tick.order == order).ok_or(StandingError::Differs)?;
        let run = TickRun {
            run: request.run,
            nodes: request.nodes.clone(),
            not_before: request.not_before,
            not_after: request.not_after,
        };
        if self.request(order, file, tick.at, run)? == *request {
            Ok(())
        } else {
            Err(StandingError::Differs)
        }
    }
}

/// Nodes may change for so long after a start: the window, and a day where none is written, as for any plain run.
pub fn window(schedule: &Schedule) -> Duration {
    schedule.window.as_ref().map_or(MAX_PLAIN_RUN, |window| window.length().min(MAX_PLAIN_RUN))
}

/// How late a tick may still start: `start_within`, and the window where that is not written.
pub fn start_within(schedule: &Schedule) -> Duration {
    schedule.start_within.as_ref().map_or_else(|| window(schedule), Span::length)
}

/// So long after its time nothing of a tick begins any more, whatever was missed.
pub fn lasts(schedule: &Schedule) -> Duration {
    let catch_up = schedule.catch_up.as_ref().map_or(Duration::ZERO, Span::length);
    start_within(schedule).max(catch_up).saturating_add(window(schedule))
}

/// The parameters of its procedure, as a request has them.
pub fn params(schedule: &Schedule) -> BTreeMap<String, serde_json::Value> {
    let json = |value| serde_json::to_value(value).unwrap_or_default();
    schedule.params.iter().map(|(key, value)| (key.to_string(), json(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    fn fleet() -> FleetId {
        FleetId::from_uuid(uuid::Uuid::from_u128(7))
    }

    fn at(hours: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000).unwrap().plus(Duration::from_hours(hours))
    }

    fn file(catch_up: &str) -> ScheduleFile {
        serde_json::from_value(serde_json::json!({
            "schema": "fleet/v1",
            "name": "edge",
            "schedule": [
                {"id": "daily", "procedure": "daily", "cron": "0 2 * * *", "window": "2h", "catch_up": catch_up,
                 "params": {"batch": 5000}},
                {"id": "off", "procedure": "daily", "cron": "0 2 * * *", "enabled": false},
            ],
        }))
        .unwrap()
    }

    fn order() -> StandingOrder {
        StandingOrder {
            schema: STANDING_ORDER_SCHEMA.to_owned(),
            fleet: fleet(),
            file: Digest::of(b"file"),
            file_revision: 3,
            schedule: "daily".parse().unwrap(),
            procedure: Digest::of(b"procedure"),
            procedure_revision: 2,
            profile: Digest::of(b"profile"),
            profile_revision: 1,
            rollout_policy: None,
            selector: "product=edgefw".to_owned(),
            max_parallel: 20,
            max_failures: Some(1),
            not_before: at(0),
            not_after: at(24 * 400),
        }
    }

    fn run(from: Timestamp, to: Timestamp) -> TickRun {
        let nodes = NodeList::of(&[NodeId::from_uuid(uuid::Uuid::from_u128(1))]);
        TickRun { run: RunId::from_number(5), nodes, not_before: from, not_after: to }
    }

    #[test]
    fn a_request_is_what_its_order_makes_of_the_tick_or_nothing() {
        let (order, file, digest) = (order(), file("12h"), Digest::of(b"order"));
        let good = order.request(digest, &file, at(10), run(at(11), at(13))).unwrap();
        assert_eq!(good.check(fleet()), Ok(()));
        assert_eq!(good.params["batch"], 5000);
        assert_eq!(order.made(digest, &file, &good), Ok(()));
        let others = [
            Request { procedure: Digest::of(b"other"), ..good.clone() },
            Request { selector: String::new(), ..good.clone() },
            Request { params: BTreeMap::new(), ..good.clone() },
            Request { max_parallel: 21, ..good.clone() },
            Request { max_failures: None, ..good.clone() },
            Request { rollout_policy: Some(Digest::of(b"none")), ..good.clone() },
            Request { older_revisions: true, ..good.clone() },
            Request { tick: None, ..good.clone() },
            Request { tick: Some(Tick { order: Digest::of(b"other"), at: at(10) }), ..good.clone() },
        ];
        for other in others {
            assert_eq!(order.made(digest, &file, &other), Err(StandingError::Differs), "{other:?}");
        }
    }

    #[test]
    fn nothing_begins_outside_of_the_order_or_too_late_for_the_tick() {
        let (order, file, digest) = (order(), file("12h"), Digest::of(b"order"));
        let made = |tick, from, to| order.request(digest, &file, tick, run(from, to)).map(drop);
        assert_eq!(made(at(10), at(22), at(24)), Ok(()), "twelve hours late, and two hours to go");
        for (from, to) in [(at(9), at(11)), (at(23), at(25)), (at(12), at(12))] {
            let late = Err(StandingError::NotInTime { at: at(10), from, to });
            assert_eq!(made(at(10), from, to), late);
        }
        let end = at(24 * 400);
        assert!(matches!(made(end, end, at(24 * 400 + 1)), Err(StandingError::TickOutside { .. })));
    }

    #[test]
    fn an_order_for_more_than_400_days_or_for_what_is_off_is_refused() {
        assert_eq!(order().check(fleet()), Ok(()));
        let long = StandingOrder { not_after: at(24 * 400 + 1), ..order() };
        assert!(matches!(long.check(fleet()), Err(StandingError::Validity { .. })));
        for (id, expected) in [
            ("off", StandingError::NotEnabled("off".to_owned())),
            ("gone", StandingError::NoSchedule("gone".to_owned())),
        ] {
            let order = StandingOrder { schedule: id.parse().unwrap(), ..order() };
            assert_eq!(order.schedule_in(&file("1h")).map(drop), Err(expected));
        }
    }
}
