//! Schedules: when a procedure runs, where, and what happens when it could not.
//!
//! The cron text is kept as written; `fleet-documents` refuses what cannot fire, `fleet-calendar`
//! computes ticks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{Id, Key};
use super::kind::SchemaVersion;
use super::schema::JsonSchema;
use super::value::{Value, is_true, yes};
use crate::id::Name;
use crate::label::Selector;
use crate::severity::Severity;
use crate::time::Span;

/// When procedures run, where, and what happens when they could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleFile {
    /// Schema of the file.
    pub schema: SchemaVersion,
    /// Its name.
    pub name: Name,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// IANA zone of each site, for `timezone = "site"`; a site without one is in UTC.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-takes" = "site-zones"))]
    pub zones: BTreeMap<String, String>,
    /// The schedules.
    #[serde(default, rename = "schedule", skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<Schedule>,
    /// Times in which no scheduled change starts.
    #[serde(default, rename = "blackout", skip_serializing_if = "Vec::is_empty")]
    pub blackouts: Vec<Blackout>,
}

/// When a procedure runs, where, and what happens when it could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Its id, unique in the file.
    pub id: Id,
    /// The procedure.
    #[schemars(extend("x-takes" = "procedure"))]
    pub procedure: Name,
    /// The nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "nodes of the procedure"))]
    pub selector: Option<Selector>,
    /// Minute, hour, day, month, day of the week; also L, W and SAT#1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "cron"))]
    pub cron: Option<String>,
    /// Instead of cron: before or after another schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative_to: Option<RelativeTo>,
    /// IANA name, or "site": each node in the zone of its site.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "zone", "x-default" = "UTC"))]
    pub timezone: Option<String>,
    /// From the fire time: when nodes may change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Span>,
    /// How late the tick itself may still start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "the window, or 10m"))]
    pub start_within: Option<Span>,
    /// Working time on one node; longer raises run.slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-idle" = crate::idle::NO_SLOW))]
    pub expected_duration: Option<Span>,
    /// Nodes begin up to so much later: one offset for a schedule and zone, the same every time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "0s"))]
    pub jitter: Option<Span>,
    /// What happens with a tick that was missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "run_once"))]
    pub misfire: Option<Misfire>,
    /// How late `run_once` and `run_all` may still start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "start_within"))]
    pub catch_up: Option<Span>,
    /// What happens when the previous run still goes.
    #[serde(default)]
    pub overlap: Overlap,
    /// What happens with nodes that were offline or not reached in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "that of the rollout policy, or next_window"))]
    pub late_nodes: Option<LateNodes>,
    /// Rings, pairs and gates.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "rollout-policy"))]
    pub rollout_policy: Option<Name>,
    /// Parameters of the procedure.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-takes" = "param-values"))]
    pub params: BTreeMap<Key, Value>,
    /// A skipped time runs right after the gap, a repeated one once.
    #[serde(default)]
    pub dst: Dst,
    /// `false`: shown, never starts.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    #[schemars(extend("default" = true))]
    pub enabled: bool,
    /// Notifiers of the controller's configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-idle" = crate::idle::NO_NOTIFIERS))]
    pub notify: Vec<Name>,
}

/// A time before or after another schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RelativeTo {
    /// A schedule of the same file.
    pub schedule: Id,
    /// How long after; "-14d" is before.
    #[schemars(extend("x-takes" = "offset"))]
    pub by: String,
}

/// What happens with a tick that was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Misfire {
    /// Nothing.
    Skip,
    /// The newest missed one runs.
    RunOnce,
    /// All missed ones run.
    RunAll,
}

/// What happens when the previous run still goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The tick is skipped.
    #[default]
    Skip,
    /// It waits.
    Queue,
    /// The old one is cancelled, between steps only.
    CancelRunning,
}

/// What happens with nodes that were not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LateNodes {
    /// With the next tick.
    NextWindow,
    /// The same hours of the following days, within `catch_up`.
    NextDay,
    /// As soon as they are there.
    WhenOnline,
    /// Not at all.
    Drop,
}

/// What happens at a change of the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dst {
    /// A time that does not exist runs right after the gap; one that comes twice runs once.
    #[default]
    Shift,
}

/// A time in which no scheduled change starts; checks, sign-offs and undo go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Blackout {
    /// Its id, unique in the file.
    pub id: Id,
    /// Its beginning.
    #[schemars(extend("x-takes" = "instant"))]
    pub from: String,
    /// Its end.
    #[schemars(extend("x-takes" = "instant"))]
    pub to: String,
    /// The nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "all nodes"))]
    pub selector: Option<Selector>,
    /// Severities that may still start, with approval.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-idle" = crate::idle::NO_SEVERITY_OF_RUNS))]
    pub allow: Vec<Severity>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}
