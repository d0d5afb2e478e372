//! Schedules: when a procedure runs, where, and what happens when it could not.
//!
//! The cron text is kept as written; `fleet-documents` refuses what cannot fire, the controller's
//! scheduler computes ticks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{Id, Key};
use super::kind::SchemaVersion;
use super::value::{Value, is_true, yes};
use crate::id::Name;
use crate::label::Selector;
use crate::severity::Severity;
use crate::time::Span;

/// A file of schedules (reference/schedule.toml).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleFile {
    /// The schema of the file.
    pub schema: SchemaVersion,
    /// Its name.
    pub name: Name,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The schedules.
    #[serde(default, rename = "schedule", skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<Schedule>,
    /// Times in which no scheduled change starts.
    #[serde(default, rename = "blackout", skip_serializing_if = "Vec::is_empty")]
    pub blackouts: Vec<Blackout>,
}

/// One schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Its id, unique in the file.
    pub id: Id,
    /// The procedure.
    pub procedure: Name,
    /// The nodes; left out: those of the procedure, else of its profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Five fields; also L, W and `SAT#1`. Instead of `relative_to`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// A time before or after another schedule's. Instead of `cron`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative_to: Option<RelativeTo>,
    /// IANA name, or `site`; left out: the controller's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// From the fire time: how long nodes may change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Span>,
    /// How late the tick itself may still start; default the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_within: Option<Span>,
    /// Expected working time on one node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_duration: Option<Span>,
    /// Starts are spread over this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Span>,
    /// What happens with a tick that was missed; default the controller's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub misfire: Option<Misfire>,
    /// How late a missed tick may still start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<Span>,
    /// What happens when the previous run still goes.
    #[serde(default)]
    pub overlap: Overlap,
    /// What happens with nodes that were offline or not reached in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_nodes: Option<LateNodes>,
    /// Rings, pairs and gates; required when the procedure changes nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout_policy: Option<Name>,
    /// Parameters of the procedure.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<Key, Value>,
    /// What happens at a change of the clocks.
    #[serde(default)]
    pub dst: Dst,
    /// `false`: shown, never starts.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub enabled: bool,
    /// Notifiers of the controller's configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<Name>,
}

/// A time before or after another schedule's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelativeTo {
    /// Id of a schedule of the same file.
    pub schedule: Id,
    /// A duration, with `-` in front for before: `-14d`.
    pub by: String,
}

/// What happens with a tick that was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dst {
    /// A time that does not exist runs right after the gap; one that comes twice runs once.
    #[default]
    Shift,
}

/// A time in which no scheduled change starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blackout {
    /// Its id, unique in the file.
    pub id: Id,
    /// RFC 3339 instant.
    pub from: String,
    /// RFC 3339 instant, after `from`.
    pub to: String,
    /// The nodes; left out: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Severities that may still start, with approval.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Severity>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}
