//! Services, health checks and the status view.

use serde::{Deserialize, Serialize};

use super::programs::Format;
use crate::document::ids::Id;
use crate::document::schema::JsonSchema;
use crate::document::threshold::Threshold;
use crate::document::value::is_false;
use crate::time::Span;

/// A systemd unit the node depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The unit with its suffix.
    #[schemars(extend("x-takes" = "unit"))]
    pub unit: String,
    /// `timer`: unit is a timer that starts the oneshot unit runs.
    #[serde(default, rename = "type")]
    pub service_type: ServiceType,
    /// For a timer: the unit that it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "unit"))]
    pub runs: Option<String>,
    /// For a timer: how long ago the last good run may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub succeeded_within: Option<Span>,
    /// The state that is healthy.
    #[serde(default)]
    pub expect: ServiceExpect,
    /// What happens when it is not in that state.
    #[serde(default)]
    #[schemars(extend("x-idle" = crate::idle::NO_RESTARTS))]
    pub on_down: OnDown,
    /// How often it is restarted before only the alert is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-idle" = crate::idle::NO_RESTARTS))]
    pub max_restarts: Option<MaxRestarts>,
    /// Stopping or starting it can change filter rules: its steps need a guard.
    #[serde(default, skip_serializing_if = "is_false")]
    pub touches_network: bool,
}

/// What kind of unit a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceType {
    /// Runs all the time.
    #[default]
    Daemon,
    /// Starts a oneshot unit at its times.
    Timer,
}

/// The state of a unit that is healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceExpect {
    /// Runs.
    #[default]
    Active,
    /// Is there and does not run.
    Inactive,
    /// Is not there.
    Absent,
}

/// What happens when a service is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDown {
    /// `health.repair` may start it, within `max_restarts`.
    Restart,
    /// An alert is raised.
    #[default]
    Alert,
    /// Nothing.
    Ignore,
}

/// Bounds of restarting by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaxRestarts {
    /// At most so many starts.
    #[schemars(range(min = 1, max = 100))]
    pub count: u32,
    /// Within this time.
    pub within: Span,
    /// Pause before each start but the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "0s"))]
    pub backoff: Option<Span>,
}

/// A continuous health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What is looked at.
    pub kind: CheckKind,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// Mount point, folder or file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "path"))]
    pub path: Option<String>,
    /// One service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = { "id-of": "service" }))]
    pub service: Option<Id>,
    /// Several services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-takes" = { "id-of": "service" }))]
    pub services: Vec<Id>,
    /// A command with `changes = false`; exit 0 is ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = { "id-of": "command" }))]
    pub command: Option<Id>,
    /// `address`: is it on an interface of this node? port: where to connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "template", "x-default" = "127.0.0.1 for port"))]
    pub address: Option<String>,
    /// The TCP port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// Warning limit; percent, load average or days, as the kind has it.
    ///
    /// For `disk_free` and `cert_expiry` the value must be more than this, for all others not more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warn: Option<Threshold>,
    /// Critical limit, in the unit of `warn`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critical: Option<Threshold>,
    /// Must hold this long before it counts.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "0s"))]
    pub lasting: Option<Span>,
    /// How often it is made.
    #[schemars(extend("x-idle" = crate::idle::NO_CHECKS))]
    pub every: Span,
    /// Limit of one look; one that hangs is a failed check.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "10s"))]
    pub timeout: Option<Span>,
    /// The file may be no older than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
}

impl Check {
    /// Ten seconds: a local look takes milliseconds, and a node with fifty hanging checks still answers.
    pub const DEFAULT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

    /// The limit of one look.
    pub fn time_limit(&self) -> std::time::Duration {
        self.timeout.as_ref().map_or(Self::DEFAULT_TIMEOUT, Span::length)
    }

    /// The services it looks at, whether written as `service` or as `services`.
    pub fn all_services(&self) -> impl Iterator<Item = &Id> {
        self.service.iter().chain(&self.services)
    }
}

/// What a check looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// Units are in their expected state.
    #[schemars(extend("x-needs" = [["service", "services"]]))]
    Service,
    /// Used share of a file system, percent.
    #[schemars(extend("x-needs" = [["path"], ["warn", "critical"]]))]
    DiskUsed,
    /// Free share of a file system, percent.
    #[schemars(extend("x-needs" = [["path"], ["warn", "critical"]]))]
    DiskFree,
    /// Used share of memory, percent.
    #[schemars(extend("x-needs" = [["warn", "critical"]]))]
    MemoryUsed,
    /// Used share of all cores, percent.
    #[schemars(extend("x-needs" = [["warn", "critical"]]))]
    CpuUsed,
    /// One-minute load average.
    #[schemars(extend("x-needs" = [["warn", "critical"]]))]
    Load,
    /// Used share of the connection tracking table, percent.
    #[schemars(extend("x-needs" = [["warn", "critical"]]))]
    ConntrackUsed,
    /// A declared command exits with 0.
    #[schemars(extend("x-needs" = [["command"]]))]
    Command,
    /// Days until a certificate file ends.
    #[schemars(extend("x-needs" = [["path"], ["warn", "critical"]]))]
    CertExpiry,
    /// A TCP port answers.
    #[schemars(extend("x-needs" = [["port"]], "x-may" = ["address"]))]
    Port,
    /// A file is there and young enough.
    #[schemars(extend("x-needs" = [["path"], ["within"]]))]
    FileAge,
    /// A state file holds MASTER, BACKUP or FAULT.
    #[schemars(extend("x-needs" = [["path"]]))]
    VrrpState,
    /// An address is on an interface of this node.
    #[schemars(extend("x-needs" = [["address"]]))]
    Address,
}

/// What the status of a node shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Words such as `cpu_used`, `memory_used`, `disk_used:/`, `load_average`, `uptime`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-takes" = "template",
        "x-idle" = "metrics.collect measures all of it, and reads disk_used:<path> only"
    ))]
    pub system: Vec<String>,
    /// Services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-takes" = { "id-of": "service" }))]
    pub services: Vec<Id>,
    /// Interface counters, with rates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<StatusNetwork>,
    /// A command whose output is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<CommandRef>,
    /// Forms it is stored in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "items" = { "type": "string", "enum": ["text", "json"] },
        "x-idle" = "no file of the status is written"
    ))]
    pub formats: Vec<Format>,
}

/// Interface counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusNetwork {
    /// Which interfaces.
    pub interfaces: Interfaces,
    /// Which counters.
    #[schemars(extend(
        "items" = { "type": "string", "enum": [
                "bytes_sent", "bytes_received", "packets_sent", "packets_received", "errors_in", "errors_out"
            ] },
        "x-idle" = "metrics.collect gives all counters"
    ))]
    pub counters: Vec<String>,
}

/// Which interfaces the status counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Interfaces {
    /// The word `all_but_loopback`.
    Word(InterfacesWord),
    /// Interfaces by name.
    Named(Vec<String>),
}

/// The one word that may stand for interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterfacesWord {
    /// Every interface but `lo`.
    AllButLoopback,
}

/// A command whose output is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandRef {
    /// A command with `changes = false`.
    #[schemars(extend("x-takes" = { "id-of": "command" }))]
    pub command: Id,
}
