//! Facts of a product, metrics, alerts, reports, dashboards, contacts and links.

use serde::{Deserialize, Serialize};

use super::programs::Format;
use crate::document::expr::AlertWhen;
use crate::document::schema::JsonSchema;
use crate::id::Name;
use crate::severity::Severity;
use crate::time::Span;

/// A flag for conditions, `facts.<name>`: true where the program or the path is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// A program in the search path of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// A file or folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "path"))]
    pub path: Option<String>,
}

/// A sampled metric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Heading on pages.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// Where it comes from.
    #[schemars(extend("x-takes" = "metric-source"))]
    pub source: String,
    /// How often.
    pub every: Span,
    /// How long samples are kept; the one place for it.
    pub keep: Span,
}

/// Optional copy of the samples for local programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricStore {
    /// The file.
    #[schemars(extend("x-takes" = "path"))]
    pub path: String,
}

/// An alert rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// The rule.
    pub when: AlertWhen,
    /// Must hold this long.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "0s"))]
    pub lasting: Option<Span>,
    /// How bad it is.
    pub severity: Severity,
    /// Notifiers of the controller's configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<Name>,
    /// Not acknowledged for so long: notified again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalate_after: Option<Span>,
    /// `"procedure:<name>"` or a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
}

/// A report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Its title.
    pub title: String,
    /// Forms it is made in.
    #[schemars(extend("items" = { "type": "string", "enum": ["html", "json", "text"] }))]
    pub formats: Vec<Format>,
    /// `fleet`: one for all nodes of the run.
    #[serde(default)]
    pub scope: ReportScope,
    /// Optional copy on the node; the format is appended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "template"))]
    pub file_name: Option<String>,
    /// Its sections in order.
    #[serde(default, rename = "section", skip_serializing_if = "Vec::is_empty")]
    pub sections: Vec<Section>,
}

/// For whom a report is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReportScope {
    /// One a node.
    #[default]
    Node,
    /// One for all nodes of the run, made on the controller.
    Fleet,
}

/// A section of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// `"summary"`, `"step:<id>"` or `"findings"`.
    pub from: String,
    /// At most so many lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000), extend("x-default" = "all"))]
    pub lines: Option<u32>,
    /// What it says when there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty: Option<String>,
}

/// Panels of a page of the controller's dashboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dashboard {
    /// The panels in order.
    #[schemars(extend(
        "items" = { "type": "string", "enum": [
                "schedule_status", "health_trends", "performance_metrics", "alert_statistics", "backup_status"
            ] }
    ))]
    pub panels: Vec<String>,
}

/// A person or team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// Mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Telephone number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
}

/// A place to read on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The address.
    pub url: String,
}

/// Where maintenance programs lie; inventoried, not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    /// The folders.
    #[schemars(extend("x-takes" = "path"))]
    pub directories: Vec<String>,
}
