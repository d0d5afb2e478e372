//! Services, health checks and the status view.

use serde::{Deserialize, Serialize};

use super::programs::Format;
use crate::document::ids::Id;
use crate::document::threshold::Threshold;
use crate::document::value::is_false;
use crate::time::Span;

/// `[service.*]`: a systemd unit the node depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The unit, with its suffix: `nginx.service`.
    pub unit: String,
    /// Daemon (default) or timer.
    #[serde(default, rename = "type")]
    pub service_type: ServiceType,
    /// For a timer: the oneshot unit it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runs: Option<String>,
    /// For a timer: how long ago the last good run may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub succeeded_within: Option<Span>,
    /// The state that is healthy.
    #[serde(default)]
    pub expect: ServiceExpect,
    /// What is done when it is not in that state.
    #[serde(default)]
    pub on_down: OnDown,
    /// How often it is restarted before only the alert is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<MaxRestarts>,
    /// Stopping or starting it can change filter rules.
    #[serde(default, skip_serializing_if = "is_false")]
    pub touches_network: bool,
}

/// What kind of unit a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceType {
    /// Runs all the time.
    #[default]
    Daemon,
    /// Starts a oneshot unit at its times.
    Timer,
}

/// The state of a unit that is healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaxRestarts {
    /// At most so many starts …
    pub count: u32,
    /// … within this time.
    pub within: Span,
    /// Pause before each start but the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Span>,
}

/// `[check.*]`: a continuous health check. Which fields count follows from `kind`;
/// `fleet-documents` refuses a check that lacks one its kind needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What is looked at.
    pub kind: CheckKind,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// `disk_used`, `disk_free`: mount point or folder; `file_age`, `vrrp_state`, `cert_expiry`: file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `service`: one of `[service.*]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Id>,
    /// `service`: several of `[service.*]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Id>,
    /// `command`: one of `[command.*]`; exit 0 is ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Id>,
    /// `address`: is it on an interface of this node? `port`: where to connect; default 127.0.0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `port`: the TCP port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Warning limit. Percent for disk, memory, cpu and conntrack; load average for load; days for
    /// certificates. For `disk_free` and `cert_expiry` the value must be more than this, for all others not more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warn: Option<Threshold>,
    /// Critical limit, in the unit of `warn`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critical: Option<Threshold>,
    /// Must hold this long before it counts.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasting: Option<Span>,
    /// How often it is made.
    pub every: Span,
    /// Limit of one look; default [`Check::DEFAULT_TIMEOUT`]. One that hangs is a failed check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// `file_age`: the file may be no older than this.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// Units are in their expected state.
    Service,
    /// Used share of a file system, percent.
    DiskUsed,
    /// Free share of a file system, percent.
    DiskFree,
    /// Used share of memory, percent.
    MemoryUsed,
    /// Used share of all cores, percent.
    CpuUsed,
    /// One-minute load average.
    Load,
    /// Used share of the connection tracking table, percent.
    ConntrackUsed,
    /// A declared command exits with 0.
    Command,
    /// Days until a certificate file ends.
    CertExpiry,
    /// A TCP port answers.
    Port,
    /// A file is there and young enough.
    FileAge,
    /// A state file holds MASTER, BACKUP or FAULT.
    VrrpState,
    /// An address is on an interface of this node.
    Address,
}

/// `[status]`: what the status of a node shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Words such as `cpu_used`, `memory_used`, `disk_used:/`, `load_average`, `uptime`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub system: Vec<String>,
    /// Services by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Id>,
    /// Interface counters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<StatusNetwork>,
    /// A command whose output is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<CommandRef>,
    /// Forms it is stored in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub formats: Vec<Format>,
}

/// Interface counters of the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusNetwork {
    /// Which interfaces.
    pub interfaces: Interfaces,
    /// `bytes_sent`, `bytes_received`, `packets_sent`, `packets_received`, `errors_in`, `errors_out`.
    pub counters: Vec<String>,
}

/// Which interfaces the status counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Interfaces {
    /// The word `all_but_loopback`.
    Word(InterfacesWord),
    /// Interfaces by name.
    Named(Vec<String>),
}

/// The one word that may stand for interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InterfacesWord {
    /// Every interface but `lo`.
    AllButLoopback,
}

/// A reference to a declared command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandRef {
    /// Id of a `[command.*]`.
    pub command: Id,
}
