//! The top of a profile: its head and its tables by id.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Alert, Backup, Check, Command, Contact, Dashboard, Database, Fact, Hardening, Link, Log, Metric,
    MetricStore, Package, Report, Ruleset, Service, Status, Tools, Tuning, Validator,
};
use crate::action::Table;
use crate::document::ids::{Id, Key};
use crate::document::kind::SchemaVersion;
use crate::document::schema::JsonSchema;
use crate::id::Name;
use crate::label::Selector;

/// What a kind of node is made of, and what healthy means for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Schema of the file.
    pub schema: SchemaVersion,
    /// Name; procedures refer to it.
    pub name: Name,
    /// Raised on every change; shown next to results.
    #[schemars(range(min = 1))]
    pub version: u32,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Nodes that get this profile; the most specific selector wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "no node"))]
    pub selector: Option<Selector>,
    /// Variables, usable as `{name}` here and in the procedures of this profile.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-takes" = "vars"))]
    pub vars: BTreeMap<Key, String>,
    /// Facts of the product, for conditions.
    #[serde(default, rename = "fact", skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<Key, Fact>,
    /// The paper this profile was written from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<Paper>,
    /// systemd units the node depends on.
    #[serde(default, rename = "service", skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<Id, Service>,
    /// Continuous health checks.
    #[serde(default, rename = "check", skip_serializing_if = "BTreeMap::is_empty")]
    pub checks: BTreeMap<Id, Check>,
    /// What the status of a node shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// The only way to run a program: declared, signed, argv form.
    #[serde(default, rename = "command", skip_serializing_if = "BTreeMap::is_empty")]
    pub commands: BTreeMap<Id, Command>,
    /// Databases.
    #[serde(default, rename = "database", skip_serializing_if = "BTreeMap::is_empty")]
    pub databases: BTreeMap<Id, Database>,
    /// Backups.
    #[serde(default, rename = "backup", skip_serializing_if = "BTreeMap::is_empty")]
    pub backups: BTreeMap<Id, Backup>,
    /// Rotation and clean-up of logs.
    #[serde(default, rename = "log", skip_serializing_if = "BTreeMap::is_empty")]
    pub logs: BTreeMap<Id, Log>,
    /// Desired kernel, disk and mount settings.
    #[serde(default, rename = "tuning", skip_serializing_if = "BTreeMap::is_empty")]
    pub tunings: BTreeMap<Id, Tuning>,
    /// Rule sets of the packet filter.
    #[serde(default, rename = "ruleset", skip_serializing_if = "BTreeMap::is_empty")]
    pub rulesets: BTreeMap<Id, Ruleset>,
    /// Packages.
    #[serde(default, rename = "package", skip_serializing_if = "BTreeMap::is_empty")]
    pub packages: BTreeMap<Id, Package>,
    /// Validators of configuration.
    #[serde(default, rename = "validator", skip_serializing_if = "BTreeMap::is_empty")]
    pub validators: BTreeMap<Id, Validator>,
    /// The hardening checklist; items only read.
    #[serde(default, rename = "hardening", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-idle" = crate::idle::NO_ACTION))]
    pub hardening: BTreeMap<Id, Hardening>,
    /// Sampled metrics.
    #[serde(default, rename = "metric", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-idle" = crate::idle::NO_SAMPLES))]
    pub metrics: BTreeMap<Id, Metric>,
    /// Optional copy of the samples for local programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-idle" = crate::idle::NO_SAMPLES))]
    pub metric_store: Option<MetricStore>,
    /// Alert rules.
    #[serde(default, rename = "alert", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-idle" = crate::idle::NO_ALERTS))]
    pub alerts: BTreeMap<Id, Alert>,
    /// Reports.
    #[serde(default, rename = "report", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-idle" = crate::idle::NO_ACTION))]
    pub reports: BTreeMap<Id, Report>,
    /// Panels of a page of the controller's dashboard.
    #[serde(default, rename = "dashboard", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-idle" = "there is no dashboard"))]
    pub dashboards: BTreeMap<Id, Dashboard>,
    /// People.
    #[serde(default, rename = "contact", skip_serializing_if = "BTreeMap::is_empty")]
    pub contacts: BTreeMap<Id, Contact>,
    /// Places to read on.
    #[serde(default, rename = "link", skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<Id, Link>,
    /// Where maintenance programs lie; inventoried, not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-idle" = crate::idle::NO_ACTION))]
    pub tools: Option<Tools>,
}

/// The paper a profile or procedure was written from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Paper {
    /// Version of the paper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Day of its last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "day"))]
    pub last_updated: Option<String>,
    /// Day of its next review; passing it raises a low alert.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "day", "x-idle" = "nothing watches that day"))]
    pub next_review: Option<String>,
    /// Id of a contact.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "contact"))]
    pub owner: Option<Id>,
}

impl Profile {
    /// The ids that a table declares.
    pub fn ids(&self, table: Table) -> Vec<&str> {
        fn keys<T>(map: &BTreeMap<Id, T>) -> Vec<&str> {
            map.keys().map(Id::as_str).collect()
        }
        match table {
            Table::Service => keys(&self.services),
            Table::Check => keys(&self.checks),
            Table::Command => keys(&self.commands),
            Table::Database => keys(&self.databases),
            Table::Backup => keys(&self.backups),
            Table::Log => keys(&self.logs),
            Table::Tuning => keys(&self.tunings),
            Table::Ruleset => keys(&self.rulesets),
            Table::Package => keys(&self.packages),
            Table::Validator => keys(&self.validators),
            Table::Hardening => keys(&self.hardening),
            Table::Metric => keys(&self.metrics),
            Table::Alert => keys(&self.alerts),
        }
    }
}
